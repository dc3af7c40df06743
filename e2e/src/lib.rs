//! What the end-to-end tests share: the cluster they run on, the platform they test, and eyes on its far ends.
//!
//! Nothing here is a stand-in for a part of the product: Postgres, RabbitMQ, the mail server and Kubernetes are the real
//! ones, and what a test claims it has read from them.

pub mod api;
pub mod database;
mod diagnosis;
pub mod history;
pub mod inbox;
pub mod kubernetes;
pub mod load;
pub mod moves;
pub mod patience;
pub mod platform;
mod tls;

pub use api::{Api, Reply};
pub use kubernetes::{Kubernetes, with_temp_ns};
pub use patience::{await_condition, eventually};
pub use platform::Platform;
