//! The names of the clusters that the verbs start.

use anyhow::Result;
use hermetic_cluster::Instance;

/// Put before the names, so that `make fresh` disturbs nobody: the ranges of a cluster follow from its name.
pub(crate) const PREFIX_VARIABLE: &str = "RINGWRIGHT_INSTANCE_PREFIX";

/// The cluster of `make up`.
pub(crate) fn up() -> Result<Instance> {
    named("up")
}

/// The cluster of `make test`.
pub(crate) fn test() -> Result<Instance> {
    named("test")
}

fn named(name: &str) -> Result<Instance> {
    let prefix = std::env::var(PREFIX_VARIABLE).unwrap_or_default();
    Ok(Instance::new(&format!("{prefix}{name}"))?)
}
