//! One cluster among several that may run side by side on the machine.

use std::path::Path;

use serde::Serialize;

use crate::{Cluster, Progress, Result};

/// Names a cluster of this user. Nothing is started or created until [`Instance::start`].
#[derive(Debug, Clone)]
pub struct Instance {
    name: String,
}

/// What is there of an instance.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// The instance's name.
    pub name: String,
    /// Whether state of it exists (it may be stopped halfway).
    pub exists: bool,
    /// Whether the API server answers `/readyz`.
    pub ready: bool,
    /// Who holds the lock (process id and command line), if anyone.
    pub holder: Option<String>,
    /// One line a component: name and state.
    pub components: Vec<(String, String)>,
}

impl Instance {
    /// An instance by name: lower-case letters, digits and `-`, at most 20.
    ///
    /// # Errors
    /// When the name is not fit for file names.
    pub fn new(name: &str) -> Result<Self> {
        Ok(Self { name: name.to_owned() })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory that holds all of its state.
    pub fn state_directory(&self) -> &Path {
        todo!()
    }

    /// Brings the cluster up from whatever is there, and waits for three Ready nodes. Builds the tools if needed.
    /// The returned cluster holds the instance's lock until it is dropped; the cluster itself runs on.
    ///
    /// # Errors
    /// [`crate::Error::Held`] when another process holds the instance, otherwise what failed.
    pub fn start(&self, progress: &Progress) -> Result<Cluster> {
        let _ = progress;
        todo!()
    }

    /// The running cluster, without taking the lock: for tests and for people beside a starter that holds it.
    ///
    /// # Errors
    /// [`crate::Error::NotRunning`] when there is none.
    pub fn attach(&self) -> Result<Cluster> {
        todo!()
    }

    /// Removes everything: processes, mounts, namespaces, links, routes, cgroups, loop devices and state. Idempotent.
    ///
    /// # Errors
    /// [`crate::Error::Held`], or what could not be removed.
    pub fn stop(&self, progress: &Progress) -> Result<()> {
        let _ = progress;
        todo!()
    }

    /// What is there of it.
    ///
    /// # Errors
    /// When its state cannot be read.
    pub fn status(&self) -> Result<Status> {
        todo!()
    }
}
