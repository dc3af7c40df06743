//! The clusters that the verbs start. Which addresses one uses is settled machine-wide, so that those of another clone or
//! another home folder (`make fresh`) stand beside them.

use anyhow::Result;
use hermetic_cluster::Instance;

/// The cluster of `make up`.
pub(crate) fn up() -> Result<Instance> {
    Ok(Instance::new("up")?)
}

/// The cluster of `make test`.
pub(crate) fn test() -> Result<Instance> {
    Ok(Instance::new("test")?)
}
