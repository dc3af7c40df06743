//! The notifier: an event from RabbitMQ becomes an email and a text message, each sent once.
//!
//! ```text
//! event --> handler --> rows in the order's shard --> courier: claim, send, record --> SMTP, SMS provider
//!                                  ^
//!                  sweeper: rows whose event or sender was lost
//! ```
//!
//! [`handler`] turns an event into rows (unique per order, kind and sequence, so a repeated event finds its own);
//! [`courier`] sends one row under a lease and records what came of it; [`sweeper`] looks after rows nobody holds.
//! [`handover`] is the distinction everything turns on: was a message certainly not taken, or may it have been? Only the
//! former is ever repeated.

pub mod config;
pub mod courier;
pub mod email;
pub mod handler;
pub mod handover;
pub mod metrics;
pub mod notify;
pub mod service;
pub mod sms;
pub mod sweeper;
pub mod templates;
pub mod tls;
