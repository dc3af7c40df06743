//! The programs of the cluster, built from Go modules and cached by a hash of their sources.

use std::path::{Path, PathBuf};

use crate::{Progress, Result};

/// Where the built programs lie.
#[derive(Debug, Clone)]
pub struct Tools {
    directory: PathBuf,
}

impl Tools {
    /// kubectl (a link to the all-in-one binary).
    pub fn kubectl(&self) -> PathBuf {
        self.directory.join("kubectl")
    }

    /// helm.
    pub fn helm(&self) -> PathBuf {
        self.directory.join("helm")
    }

    /// The directory with all of them, fit for PATH.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// Builds what is not built yet; minutes on a new machine, nothing afterwards.
///
/// # Errors
/// When Go is missing or the build fails.
pub fn build(progress: &Progress) -> Result<Tools> {
    let _ = progress;
    todo!()
}
