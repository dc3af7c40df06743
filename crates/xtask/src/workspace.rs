//! Where things are: the checkout, its build output, and the caches that outlive a clone.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The version of every crate, chart and image.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The folders the verbs work in.
#[derive(Debug, Clone)]
pub(crate) struct Workspace {
    root: PathBuf,
    cache: PathBuf,
}

impl Workspace {
    /// The checkout this program was compiled from, and the caches of the current user.
    pub(crate) fn locate() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../..")
            .canonicalize()
            .context("finding the checkout this xtask was built from (was it moved? run it through make again)")?;
        let home = std::env::var_os("HOME").context("HOME is not set, so there is no place for the caches")?;
        let cache = PathBuf::from(home).join(".cache/ringwright");
        std::fs::create_dir_all(&cache).with_context(|| format!("creating the cache folder {}", cache.display()))?;
        Ok(Self { root, cache })
    }

    /// The root of the checkout.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The Helm charts.
    pub(crate) fn charts(&self) -> PathBuf {
        self.root.join("charts")
    }

    /// Cargo's build output. Always in the checkout, because the Dockerfiles copy the programs from there.
    pub(crate) fn target(&self) -> PathBuf {
        self.root.join("target")
    }

    /// Images, tools and whatever else is worth keeping between runs and clones.
    pub(crate) fn cache(&self) -> &Path {
        &self.cache
    }

    /// The logs of one verb's last run.
    pub(crate) fn logs(&self, verb: &str) -> PathBuf {
        self.target().join("logs").join(verb)
    }
}
