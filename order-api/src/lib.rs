//! The order API: users, orders and invoices over HTTP, on the shard that owns them.
//!
//! A request passes [`observe`] (id, metrics, log), [`admission`] (bounded work), the extractors in [`request`] and
//! [`auth`] (each refuses with a [`problem`]), and a thin handler in [`users`], [`orders`], [`invoices`],
//! [`notifications`] or [`ring_view`], which asks the store and answers with [`reply`]. Events of a commit go to the
//! broker by way of the [`outbox`]. [`service`] starts and ends it all.

pub mod admission;
pub mod app;
pub mod auth;
pub mod config;
pub mod health;
pub mod invoices;
pub mod janitors;
pub mod metrics;
pub mod notifications;
pub mod observe;
pub mod openapi;
pub mod orders;
pub mod outbox;
pub mod problem;
pub mod reply;
pub mod request;
pub mod ring_view;
pub mod routes;
pub mod server;
pub mod service;
pub mod shard_jobs;
pub mod users;
