//! Moves of keys on the real cluster: under load, with faults, and judged.
//!
//! What is here knows the system only from outside: the HTTP API, Kubernetes' resources, and SQL on the shards.

mod appointments;
mod audit;
mod bench;
mod campaign;
mod faults;
mod measure;
mod observer;
mod rebalance;
pub mod shards;

pub use appointments::{Appointment, Deed, Point, draw};
pub use bench::bench;
pub use campaign::{Campaign, Summary};
pub use observer::{Observer, World};
pub use rebalance::{await_rebalanced, balanced, operators, scale};
