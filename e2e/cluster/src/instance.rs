//! One cluster among several that may run side by side on the machine.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::unistd::Uid;
use serde::Serialize;

use crate::address_plan::AddressPlan;
use crate::command::run;
use crate::configuration::{self, Setting};
use crate::lock::Lock;
use crate::machine::Machine;
use crate::readiness::{NodeReport, wait_until};
use crate::state::{Record, State};
use crate::tools::Tools;
use crate::{
    Cluster, Error, NodeName, Progress, Result, cgroups, files, host, images, mounts, network, prerequisites, tools,
};

/// How long the parts of a starting cluster may take on a busy machine.
const START: Duration = Duration::from_secs(180);

/// Names a cluster of this user. Nothing is started or created until [`Instance::start`].
#[derive(Debug, Clone)]
pub struct Instance {
    name: String,
    state: State,
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
        let fit = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > 20 || name.starts_with('-') || !name.bytes().all(fit) {
            return Err(Error::Invalid(format!(
                "{name:?} is no name for a cluster: up to 20 of a-z, 0-9 and -"
            )));
        }
        Ok(Self {
            name: name.to_owned(),
            state: State::of(name)?,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory that holds all of its state.
    pub fn state_directory(&self) -> &Path {
        self.state.root()
    }

    /// Brings the cluster up from whatever is there, and waits for three Ready nodes. Builds the tools if needed.
    /// The returned cluster holds the instance's lock until it is dropped; the cluster itself runs on.
    ///
    /// # Errors
    /// [`Error::Held`] when another process holds the instance, otherwise what failed.
    pub fn start(&self, progress: &Progress) -> Result<Cluster> {
        prerequisites::check()?;
        let lock = self.lock()?;
        let tools = tools::build(progress)?;
        let setting = self.enter(&tools, progress)?;
        make_credentials(&setting)?;
        files::make_directory(&setting.state.volumes())?;
        mounts::make_shared(&setting.state.volumes())?;
        network::make(setting.plan)?;
        let cluster = Cluster::new(setting, Some(lock));
        let started = self.start_machines(&cluster, &tools)?;
        if started.is_empty() {
            progress.say("every machine of the cluster runs already");
        }
        self.wait_for_api(&cluster, progress)?;
        // What the API server knows of nodes that were started just now is what it heard of their former life.
        let mut before = NodeReport::fetch(&cluster)
            .map(|report| report.signs)
            .unwrap_or_default();
        before.retain(|node, _| started.contains(node));
        self.prepare(&cluster, &tools, progress)?;
        cluster.wait_nodes_ready_since(&before, START)?;
        progress.say(format_args!(
            "three nodes are Ready; KUBECONFIG={}",
            cluster.kubeconfig_path().display()
        ));
        Ok(cluster)
    }

    /// The running cluster, without taking the lock: for tests and for people beside a starter that holds it.
    ///
    /// # Errors
    /// [`Error::NotRunning`] when there is none.
    pub fn attach(&self) -> Result<Cluster> {
        let record = self
            .state
            .record()?
            .ok_or_else(|| Error::NotRunning(self.name.clone()))?;
        if !self.control_plane().runs()? {
            return Err(Error::NotRunning(self.name.clone()));
        }
        Ok(Cluster::new(self.setting(record), None))
    }

    /// Removes everything: processes, mounts, namespaces, links, routes, cgroups, loop devices and state. Idempotent.
    ///
    /// # Errors
    /// [`Error::Held`], or what could not be removed.
    pub fn stop(&self, progress: &Progress) -> Result<()> {
        let traces = [self.state.root(), &self.state.lock()].iter().any(|path| path.exists());
        if !traces && host::slot_of(self.state.root(), None)?.is_none() {
            progress.say(format_args!("nothing is there of {:?}", self.name));
            return Ok(());
        }
        if !Uid::effective().is_root() {
            return Err(Error::Prerequisites("  - root, as for starting it".into()));
        }
        let lock = self.lock()?;
        self.sweep(progress)?;
        host::leave(self.state.root())?;
        lock.remove()?;
        // Only if no other cluster of this user is there.
        let _ = self.state.root().parent().map(std::fs::remove_dir);
        progress.say(format_args!("removed {:?}", self.name));
        Ok(())
    }

    /// What is there of it.
    ///
    /// # Errors
    /// When its state cannot be read.
    pub fn status(&self) -> Result<Status> {
        let holder = Lock::holder(&self.state.lock())?;
        let mut status = Status {
            name: self.name.clone(),
            exists: self.state.root().exists(),
            ready: false,
            holder,
            components: Vec::new(),
        };
        let on_or_off = |on: bool| if on { "running" } else { "off" };
        let runs = self.control_plane().runs()?;
        status.components.push(("control-plane".into(), on_or_off(runs).into()));
        if let Some(record) = self.state.record()? {
            let cluster = Cluster::new(self.setting(record), None);
            status.ready = runs && api_ready(&cluster);
            for node in cluster.nodes()? {
                let link = if node.connected { "" } else { ", cut off" };
                status
                    .components
                    .push((node.name.to_string(), format!("{}{link}", on_or_off(node.running))));
            }
        }
        Ok(status)
    }

    fn lock(&self) -> Result<Lock> {
        let path = self.state.lock();
        files::make_directory(path.parent().unwrap_or(Path::new("/")))?;
        Lock::take(&path, &format!("the cluster {:?}", self.name))
    }

    fn control_plane(&self) -> Machine {
        Machine::new(&self.state.control_plane(), None)
    }

    fn setting(&self, record: Record) -> Setting {
        Setting {
            plan: AddressPlan::new(record.slot),
            state: self.state.clone(),
            tools: record.tools,
        }
    }

    /// Takes a slot, and notes it before anything is made in it.
    fn enter(&self, tools: &Tools, progress: &Progress) -> Result<Setting> {
        let mut record = self.state.record()?;
        if record.is_none() {
            self.sweep(progress)?;
        }
        let plan = host::enter(self.state.root(), record.as_ref().map(|record| record.slot))?;
        let slot = plan.slot();
        if record.as_ref().is_some_and(|record| record.slot != slot) {
            return Err(Error::Invalid(format!(
                "the state in {} was made for other addresses than this machine has noted for it; stop {:?} and start it again",
                self.state.root().display(),
                self.name
            )));
        }
        files::make_directory(self.state.root())?;
        if record.as_ref().is_none_or(|record| record.tools != tools.directory()) {
            tools::check_location(tools.directory())?;
            let new = Record {
                slot,
                tools: tools.directory().to_owned(),
            };
            self.state.write_record(&new)?;
            record = Some(new);
        }
        record
            .map(|record| self.setting(record))
            .ok_or_else(|| Error::NotRunning(self.name.clone()))
    }

    /// Starts the machines that do not run, and starts those anew whose configuration changed. Says which nodes it
    /// started.
    fn start_machines(&self, cluster: &Cluster, tools: &Tools) -> Result<Vec<String>> {
        let setting = cluster.setting();
        let control_plane = self.control_plane();
        let rendered = configuration::control_plane(setting)?;
        if control_plane.specify(&rendered.specification)? | rendered.changed {
            control_plane.kill()?;
        }
        control_plane.start(&tools.hermetickube())?;
        let mut started = Vec::new();
        for node in NodeName::all() {
            let rendered = configuration::node(setting, node)?;
            let machine = cluster.machine(node);
            if machine.specify(&rendered.specification)? | rendered.changed {
                machine.kill()?;
            }
            if !machine.runs()? {
                started.push(node.to_string());
            }
            cluster.start_node(node)?;
        }
        Ok(started)
    }

    fn wait_for_api(&self, cluster: &Cluster, progress: &Progress) -> Result<()> {
        let started = Instant::now();
        let hint = || format!("logs are in {}", self.state.control_plane().join("logs").display());
        wait_until("a ready API server", START, hint, || Ok(api_ready(cluster)))?;
        progress.say(format_args!(
            "the API server is ready after {:.1} s",
            started.elapsed().as_secs_f64()
        ));
        Ok(())
    }

    /// What a cluster needs before pods can run on it.
    fn prepare(&self, cluster: &Cluster, tools: &Tools, progress: &Progress) -> Result<()> {
        let args = [
            "apply",
            "--server-side",
            "--force-conflicts",
            "--field-manager=hermetic-cluster",
            "--filename",
            "-",
        ];
        cluster.kubectl_with_input(args, configuration::BOOTSTRAP)?;
        let pause = images::Archive::open(&tools.pause_image())?;
        cluster.on_running_nodes(progress, |machine, directory| {
            let hint = || format!("see {}", directory.join("logs/containerd.log").display());
            wait_until("an answer of the container runtime", START, hint, || {
                images::runtime_answers(machine)
            })?;
            pause.import(machine, directory)
        })?;
        let address = cluster.setting().plan.loopback();
        let hint = || format!("see {}", self.state.control_plane().join("logs/coredns.log").display());
        wait_until("a ready name service", START, hint, || {
            Ok(answers(address, 8181, "/ready"))
        })
    }

    /// Removes whatever is there of this instance, in the reverse order of its making.
    fn sweep(&self, progress: &Progress) -> Result<()> {
        let noted = self.state.record().ok().flatten().map(|record| record.slot);
        let slot = host::slot_of(self.state.root(), noted)?;
        for node in NodeName::all() {
            Machine::new(&self.state.node(node), None).kill()?;
        }
        self.control_plane().kill()?;
        if let Some(plan) = slot.map(AddressPlan::new) {
            network::remove(plan)?;
            for node in NodeName::all() {
                cgroups::remove(&plan.node_scope(node))?;
            }
        }
        mounts::clear(self.state.root())?;
        if !self.state.root().exists() {
            return Ok(());
        }
        progress.say(format_args!(
            "nothing of {:?} runs any more; removing its files",
            self.name
        ));
        // The nodes' images are by far the most of it.
        std::thread::scope(|scope| {
            let removals: Vec<_> = NodeName::all()
                .map(|node| scope.spawn(move || files::remove_tree(&self.state.node(node))))
                .collect();
            let died = || Error::Invalid("a thread that removed files died".into());
            removals
                .into_iter()
                .try_for_each(|removal| removal.join().map_err(|_| died())?)
        })?;
        files::remove_tree(self.state.root())
    }
}

fn make_credentials(setting: &Setting) -> Result<()> {
    files::make_directory(&setting.state.credentials())?;
    let list = setting.state.credentials().join("credentials.json");
    files::write_whole(&list, &configuration::credentials(setting)?)?;
    let mut command = Command::new(Tools::at(setting.tools.clone()).hermetickube());
    run(
        "making the cluster's certificates",
        command.arg("credentials").arg(&list),
    )
    .map(drop)
}

fn api_ready(cluster: &Cluster) -> bool {
    cluster
        .kubectl(["get", "--raw", "/readyz", "--request-timeout", "2s"])
        .is_ok_and(|answer| answer.trim() == "ok")
}

/// Whether an HTTP server there answers 200.
fn answers(address: Ipv4Addr, port: u16, path: &str) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect((address, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        Ok::<_, std::io::Error>(answer.ends_with(b" 200"))
    };
    ask().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_leave_the_state_directory_are_refused() {
        for wrong in ["", "..", "a/b", "-x", "Up", "a_b", "a-name-that-is-far-too-long"] {
            assert!(Instance::new(wrong).is_err(), "{wrong}");
        }
        assert!(
            Instance::new("up")
                .unwrap()
                .state_directory()
                .ends_with("ringwright/up")
        );
    }
}
