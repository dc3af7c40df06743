//! A real three-node Kubernetes on one Linux machine that needs nothing but package registries.
//!
//! ```no_run
//! use hermetic_cluster::{Instance, Progress, prerequisites};
//! # fn main() -> Result<(), hermetic_cluster::Error> {
//! let progress = Progress::stderr();
//! prerequisites::install(&progress)?;
//! let cluster = Instance::new("up")?.start(&progress)?;
//! println!("{}", cluster.kubectl(["get", "nodes"])?);
//! # Ok(()) }
//! ```
//!
//! `start` is idempotent at every point: it looks at what is there, keeps what works and starts what is missing. What
//! runs is found by looking at the machine (processes by their command line, links by their name), never by trusting a
//! file that a killed starter may not have written. The README beside this crate draws the whole.

mod address_plan;
mod cgroups;
mod cluster;
mod command;
mod configuration;
mod error;
mod files;
mod host;
mod images;
mod instance;
mod lock;
mod machine;
mod mounts;
mod network;
pub mod prerequisites;
mod progress;
mod readiness;
mod state;
pub mod tools;

pub use cluster::{Cluster, Node, NodeName, PodProcesses};
pub use error::{Error, Result};
pub use instance::{Instance, Status};
pub use progress::Progress;
