//! A running cluster: kubectl, helm, images and its nodes.

use std::ffi::OsStr;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use crate::{Progress, Result};

/// One of the three workers, 1 to 3; Kubernetes knows it as `node1` to `node3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(u8);

impl NodeName {
    /// The node of that number.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn new(number: u8) -> Result<Self> {
        Ok(Self(number))
    }

    /// Parses `node2`, as Kubernetes writes it in `spec.nodeName`.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn parse(name: &str) -> Result<Self> {
        let _ = name;
        todo!()
    }

    /// 1 to 3.
    pub fn number(self) -> u8 {
        self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "node{}", self.0)
    }
}

/// A worker as it stands.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Its address on the node network.
    pub address: Ipv4Addr,
    /// Whether its processes run.
    pub running: bool,
    /// Whether its link is up.
    pub connected: bool,
}

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {}

impl Cluster {
    /// An administrator's kubeconfig; certificates embedded, so that it can be copied.
    pub fn kubeconfig_path(&self) -> &Path {
        todo!()
    }

    /// Runs kubectl and returns its standard output.
    ///
    /// # Errors
    /// When it fails; the message carries its stderr.
    pub fn kubectl<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I) -> Result<String> {
        let _ = args.into_iter().count();
        todo!()
    }

    /// Runs kubectl with `input` as its standard input, as for `apply -f -`.
    ///
    /// # Errors
    /// As [`Cluster::kubectl`].
    pub fn kubectl_with_input<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I, input: &str) -> Result<String> {
        let _ = (args.into_iter().count(), input);
        todo!()
    }

    /// A kubectl command not yet run, KUBECONFIG set: for callers that stream its output.
    pub fn kubectl_command(&self) -> Command {
        todo!()
    }

    /// Runs helm and returns its standard output.
    ///
    /// # Errors
    /// As [`Cluster::kubectl`].
    pub fn helm<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I) -> Result<String> {
        let _ = args.into_iter().count();
        todo!()
    }

    /// Puts the images of an archive (`docker-archive` or `oci-archive`, as `buildah push` writes) on all nodes.
    /// A node that already has them is skipped.
    ///
    /// # Errors
    /// When the archive cannot be read, or a running node refuses it.
    pub fn import_image(&self, archive: &Path, progress: &Progress) -> Result<()> {
        let _ = (archive, progress);
        todo!()
    }

    /// The workers as they stand.
    ///
    /// # Errors
    /// When their state cannot be read.
    pub fn nodes(&self) -> Result<Vec<Node>> {
        todo!()
    }

    /// The node loses its power: all its processes end at once, its link goes down.
    ///
    /// # Errors
    /// When something refuses to end.
    pub fn stop_node(&self, node: NodeName) -> Result<()> {
        let _ = node;
        todo!()
    }

    /// Boots a stopped node and connects it. Returns when its processes run, not when Kubernetes calls it Ready.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_node(&self, node: NodeName) -> Result<()> {
        let _ = node;
        todo!()
    }

    /// Pulls the node's network cable; its processes run on.
    ///
    /// # Errors
    /// When the link refuses.
    pub fn cut_node(&self, node: NodeName) -> Result<()> {
        let _ = node;
        todo!()
    }

    /// Plugs the cable in again.
    ///
    /// # Errors
    /// When the link refuses.
    pub fn restore_node(&self, node: NodeName) -> Result<()> {
        let _ = node;
        todo!()
    }

    /// Waits until Kubernetes calls all three nodes Ready.
    ///
    /// # Errors
    /// [`crate::Error::Timeout`] with the nodes as they are.
    pub fn wait_nodes_ready(&self, timeout: std::time::Duration) -> Result<()> {
        let _ = timeout;
        todo!()
    }
}
