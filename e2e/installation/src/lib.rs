//! The platform as `make up` and the end-to-end tests install it, with the development mail server and SMS gateway. How
//! they run kubectl and Helm differs; what they ask for, and how they read the answers, is here.

pub mod api_key;
pub mod charts;
pub mod mail;
