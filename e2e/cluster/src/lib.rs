//! A real three-node Kubernetes on one Linux machine that needs nothing but package registries.
//!
//! ```no_run
//! use hermetic_cluster::{Instance, Progress, prerequisites, tools};
//! # fn main() -> Result<(), hermetic_cluster::Error> {
//! let progress = Progress::stderr();
//! prerequisites::install(&progress)?;
//! tools::build(&progress)?;
//! let cluster = Instance::new("up")?.start(&progress)?;
//! println!("{}", cluster.kubectl(["get", "nodes"])?);
//! # Ok(()) }
//! ```
//!
//! `start` is idempotent at every point: it looks at what is there, keeps what works and starts what is missing.

mod cluster;
mod error;
mod instance;
pub mod prerequisites;
mod progress;
pub mod tools;

pub use cluster::{Cluster, Node, NodeName};
pub use error::{Error, Result};
pub use instance::{Instance, Status};
pub use progress::Progress;
