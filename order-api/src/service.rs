//! Starts and ends the service.
