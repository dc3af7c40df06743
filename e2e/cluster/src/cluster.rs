//! A running cluster: kubectl, helm, images and its nodes.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::command::{run, run_with_input};
use crate::configuration::Setting;
use crate::images::Archive;
use crate::lock::Lock;
use crate::machine::Machine;
use crate::readiness::{NodeReport, SignsOfLife, wait_until};
use crate::tools::Tools;
use crate::{Error, Progress, Result, cgroups, network};

/// One of the three workers, 1 to 3; Kubernetes knows it as `node1` to `node3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(u8);

impl NodeName {
    const COUNT: u8 = 3;

    /// The node of that number.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn new(number: u8) -> Result<Self> {
        if (1..=Self::COUNT).contains(&number) {
            return Ok(Self(number));
        }
        Err(Error::Invalid(format!(
            "there is no node {number}; nodes are 1 to {}",
            Self::COUNT
        )))
    }

    /// Parses `node2`, as Kubernetes writes it in `spec.nodeName`, or just `2`.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn parse(name: &str) -> Result<Self> {
        match name.trim_start_matches("node").parse() {
            Ok(number) => Self::new(number),
            Err(_) => Err(Error::Invalid(format!(
                "there is no node {name:?}; nodes are node1 to node{}",
                Self::COUNT
            ))),
        }
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        (1..=Self::COUNT).map(Self)
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

/// The processes of a pod, as they were when it was looked at.
#[derive(Debug, Clone)]
pub struct PodProcesses {
    uid: String,
    processes: BTreeSet<i32>,
}

impl PodProcesses {
    /// Whether there are none: the pod does not run.
    pub fn is_empty(&self) -> bool {
        self.processes.is_empty()
    }

    /// Ends all of them by SIGKILL, one after the other within a moment, the eldest first. How many there were.
    pub fn kill(&self) -> usize {
        self.signal(Signal::SIGKILL)
    }

    /// Stops all of them in the middle of whatever they do, as a frozen virtual machine is.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets them go on; they do not know that they were paused.
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) -> usize {
        // One that has ended meanwhile needs no signal, and somebody else's may have its number by now.
        let mine = self
            .processes
            .iter()
            .filter(|process| cgroups::is_of_pod(**process, &self.uid));
        mine.filter(|process| kill(Pid::from_raw(**process), signal).is_ok())
            .count()
    }
}

/// A running cluster. It runs on when this is dropped.
#[derive(Debug)]
pub struct Cluster {
    setting: Setting,
    kubeconfig: PathBuf,
    /// Held by the starter, so that nobody else starts, stops or tests the instance meanwhile.
    _lock: Option<Lock>,
}

impl Cluster {
    pub(crate) fn new(setting: Setting, lock: Option<Lock>) -> Self {
        Self {
            kubeconfig: setting.state.kubeconfig(),
            setting,
            _lock: lock,
        }
    }

    /// An administrator's kubeconfig; certificates embedded, so that it can be copied.
    pub fn kubeconfig_path(&self) -> &Path {
        &self.kubeconfig
    }

    /// The programs that come with the cluster.
    pub fn tools(&self) -> Tools {
        Tools::at(self.setting.tools.clone())
    }

    /// The API server's audit log: one JSON object a line for each write that is not the cluster's own housekeeping.
    pub fn audit_log_path(&self) -> PathBuf {
        self.setting.state.control_plane().join("logs/audit.log")
    }

    /// Runs kubectl and returns its standard output.
    ///
    /// # Errors
    /// When it fails; the message carries its stderr.
    pub fn kubectl<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I) -> Result<String> {
        run("asking the cluster", self.kubectl_command().args(args))
    }

    /// Runs kubectl with `input` as its standard input, as for `apply -f -`.
    ///
    /// # Errors
    /// As [`Cluster::kubectl`].
    pub fn kubectl_with_input<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(
        &self,
        args: I,
        input: &str,
    ) -> Result<String> {
        run_with_input("telling the cluster", self.kubectl_command().args(args), input)
    }

    /// A kubectl command not yet run, KUBECONFIG set: for callers that stream its output.
    pub fn kubectl_command(&self) -> Command {
        self.command(&self.tools().kubectl())
    }

    /// Runs helm and returns its standard output.
    ///
    /// # Errors
    /// As [`Cluster::kubectl`].
    pub fn helm<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I) -> Result<String> {
        run("running helm", self.helm_command().args(args))
    }

    /// A helm command not yet run, KUBECONFIG set.
    pub fn helm_command(&self) -> Command {
        self.command(&self.tools().helm())
    }

    /// Puts the images of an archive (`docker-archive` or `oci-archive`, as `buildah push` writes) on all nodes.
    /// A node that already has them is skipped, and so, with a word, is one that is off.
    ///
    /// # Errors
    /// When the archive cannot be read, or a running node refuses it.
    pub fn import_image(&self, archive: &Path, progress: &Progress) -> Result<()> {
        let started = Instant::now();
        let archive = Archive::open(archive)?;
        let imported = self.on_running_nodes(progress, |machine, directory| archive.import(machine, directory))?;
        let count = imported.iter().filter(|imported| **imported).count();
        let (name, seconds) = (archive.name(), started.elapsed().as_secs_f64());
        if count > 0 {
            progress.say(format_args!("imported {name} on {count} nodes in {seconds:.1} s"));
        } else {
            progress.say(format_args!("{name} is on the nodes already"));
        }
        Ok(())
    }

    /// The workers as they stand.
    ///
    /// # Errors
    /// When their state cannot be read.
    pub fn nodes(&self) -> Result<Vec<Node>> {
        let plan = self.setting.plan;
        NodeName::all()
            .map(|name| {
                let running = self.machine(name).runs()?;
                Ok(Node {
                    name,
                    address: plan.node(name),
                    running,
                    connected: network::connected(plan, name),
                })
            })
            .collect()
    }

    /// The node loses its power: all its processes end at once, its link goes down.
    ///
    /// # Errors
    /// When something refuses to end.
    pub fn stop_node(&self, node: NodeName) -> Result<()> {
        self.machine(node).kill()?;
        network::connect(self.setting.plan, node, false)?;
        cgroups::remove(&self.setting.plan.node_scope(node))
    }

    /// Boots a stopped node and connects it. Returns when its processes run, not when Kubernetes calls it Ready.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_node(&self, node: NodeName) -> Result<()> {
        network::connect(self.setting.plan, node, true)?;
        let machine = self.machine(node);
        if machine.runs()? {
            return Ok(());
        }
        // Also what is left of a node that was killed by another hand: a kubelet would count it as running.
        cgroups::remove(&self.setting.plan.node_scope(node))?;
        cgroups::make(&self.setting.plan.node_scope(node))?;
        machine.start(&self.tools().hermetickube())
    }

    /// Pulls the node's network cable; its processes run on.
    ///
    /// # Errors
    /// When the link refuses.
    pub fn cut_node(&self, node: NodeName) -> Result<()> {
        network::connect(self.setting.plan, node, false)
    }

    /// Plugs the cable in again.
    ///
    /// # Errors
    /// When the link refuses.
    pub fn restore_node(&self, node: NodeName) -> Result<()> {
        network::connect(self.setting.plan, node, true)
    }

    /// Ends every process of a pod at once with SIGKILL, wherever it runs, as a crash would: nothing is told beforehand.
    /// Kubernetes notices, and does what it does about crashed containers. Returns how many processes there were: none if
    /// the pod does not run yet.
    ///
    /// # Errors
    /// When the cgroups cannot be read.
    pub fn crash_pod(&self, uid: &str) -> Result<usize> {
        Ok(self.processes_of_pod(uid)?.kill())
    }

    /// The processes of a pod as they run now, wherever: to be signalled later without losing time on looking for them.
    ///
    /// # Errors
    /// When the cgroups cannot be read.
    pub fn processes_of_pod(&self, uid: &str) -> Result<PodProcesses> {
        let mut processes = BTreeSet::new();
        for node in NodeName::all() {
            let scope = self.setting.plan.node_scope(node);
            processes.extend(cgroups::processes_of_pod(&scope, uid)?);
        }
        Ok(PodProcesses {
            uid: uid.to_owned(),
            processes,
        })
    }

    /// Waits until Kubernetes calls all three nodes Ready.
    ///
    /// # Errors
    /// [`Error::Timeout`] with the nodes as they are.
    pub fn wait_nodes_ready(&self, timeout: Duration) -> Result<()> {
        self.wait_nodes_ready_since(&SignsOfLife::new(), timeout)
    }

    pub(crate) fn wait_nodes_ready_since(&self, before: &SignsOfLife, timeout: Duration) -> Result<()> {
        let hint = || {
            let nodes = self.kubectl(["get", "nodes"]).unwrap_or_else(|error| error.to_string());
            format!(
                "nodes now:\n{nodes}logs are in {}/node*/logs",
                self.setting.state.root().display()
            )
        };
        wait_until("three Ready nodes", timeout, hint, || {
            Ok(NodeReport::fetch(self)?.all_ready_since(before))
        })
    }

    pub(crate) fn setting(&self) -> &Setting {
        &self.setting
    }

    pub(crate) fn machine(&self, node: NodeName) -> Machine {
        let network = network::namespace_path(self.setting.plan, node);
        Machine::new(&self.setting.state.node(node), Some(network))
    }

    /// Does something on each running node at once.
    pub(crate) fn on_running_nodes<T: Send>(
        &self,
        progress: &Progress,
        act: impl Fn(&Machine, &Path) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let mut running = Vec::new();
        for node in NodeName::all() {
            if self.machine(node).runs()? {
                running.push(node);
            } else {
                progress.say(format_args!("{node} is off and skipped"));
            }
        }
        std::thread::scope(|scope| {
            let act = &act;
            let threads: Vec<_> = running
                .into_iter()
                .map(|node| scope.spawn(move || act(&self.machine(node), &self.setting.state.node(node))))
                .collect();
            let died = || Error::Invalid("a thread that worked on a node died".into());
            threads
                .into_iter()
                .map(|thread| thread.join().map_err(|_| died())?)
                .collect()
        })
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("KUBECONFIG", &self.kubeconfig);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_parsed_as_kubernetes_writes_them() {
        assert_eq!(NodeName::parse("node2").unwrap(), NodeName::new(2).unwrap());
        assert_eq!(NodeName::parse("3").unwrap().to_string(), "node3");
        for wrong in ["node0", "node4", "node", "", "nodex", "300"] {
            assert!(NodeName::parse(wrong).is_err(), "{wrong}");
        }
    }
}
