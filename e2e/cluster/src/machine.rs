//! A machine of the cluster is one supervisor with a pid namespace of its own: when it dies, everything on it dies.
//! The host's supervisor runs the control plane in the host's network, a node's runs in the node's namespaces.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;

use crate::command::{SYSTEM_PATH, run, system};
use crate::{Error, Result, files};

/// How long processes may take to appear or to die.
const PATIENCE: Duration = Duration::from_secs(15);

/// What the supervisor is told, as it reads it.
#[derive(Debug, Serialize)]
pub(crate) struct Specification {
    pub(crate) hostname: String,
    pub(crate) private_mounts: bool,
    pub(crate) binds: Vec<Bind>,
    pub(crate) lock: PathBuf,
    pub(crate) components: Vec<Component>,
}

/// A directory of the machine's own under a path its programs know.
#[derive(Debug, Serialize)]
pub(crate) struct Bind {
    pub(crate) source: PathBuf,
    pub(crate) target: PathBuf,
}

/// A program that the supervisor keeps running.
#[derive(Debug, Serialize)]
pub(crate) struct Component {
    pub(crate) name: &'static str,
    pub(crate) command: Vec<String>,
    pub(crate) log: PathBuf,
    /// A path or an https URL that must be there first.
    pub(crate) wait_for: String,
}

/// One machine, known by where its specification lies.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    specification: PathBuf,
    /// The network namespace it runs in; the host's if there is none.
    network: Option<PathBuf>,
}

impl Machine {
    /// The machine whose files are in `directory`.
    pub(crate) fn new(directory: &Path, network: Option<PathBuf>) -> Self {
        Self {
            specification: directory.join("machine.json"),
            network,
        }
    }

    /// Writes what it is to run. Says whether that differs from before.
    pub(crate) fn specify(&self, specification: &Specification) -> Result<bool> {
        let text = serde_json::to_string_pretty(specification).map_err(|error| Error::Invalid(error.to_string()))?;
        files::write_whole(&self.specification, &text)
    }

    /// Whether its supervisor runs.
    pub(crate) fn runs(&self) -> Result<bool> {
        Ok(self.init()?.is_some())
    }

    /// The supervisor's process id, as the host counts.
    pub(crate) fn init(&self) -> Result<Option<Pid>> {
        Ok(self.processes()?.into_iter().find(|pid| is_init_of_a_namespace(*pid)))
    }

    /// Starts it if it does not run, with whatever is left of an earlier life ended first.
    pub(crate) fn start(&self, hermetickube: &Path) -> Result<()> {
        if self.runs()? {
            return Ok(());
        }
        self.kill()?;
        let log = self.specification.with_file_name("supervisor.log");
        let output = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(Error::io("opening", &log))?;
        let errors = output.try_clone().map_err(Error::io("opening", &log))?;
        let mut command = system("setsid", ["--fork"]);
        if let Some(network) = &self.network {
            command.arg("nsenter").arg(format!("--net={}", network.display()));
            // Slave: what the host unmounts must go here too, or volumes would stay busy; nothing goes back.
            command.args(["unshare", "--mount", "--propagation", "slave", "--uts"]);
        } else {
            command.arg("unshare");
        }
        command
            .args(["--pid", "--fork", "--kill-child"])
            .arg(hermetickube)
            .arg("supervise")
            .arg(&self.specification);
        command
            .env_clear()
            .env("PATH", SYSTEM_PATH)
            .env("HOME", "/nonexistent")
            // A quarter of the API server's time went into collecting garbage; memory there is, processors are two.
            .env("GOGC", "400")
            .current_dir("/");
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let status = command
            .status()
            .map_err(Error::io("starting the supervisor of", &self.specification))?;
        let deadline = Instant::now() + PATIENCE;
        while !self.runs()? {
            if !status.success() || Instant::now() > deadline {
                return Err(Error::Timeout {
                    what: format!("the start of {}", self.specification.display()),
                    seconds: PATIENCE.as_secs(),
                    hint: format!("see {}", log.display()),
                });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Ends it as a loss of power would. Idempotent.
    pub(crate) fn kill(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let processes = self.processes()?;
            if processes.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Error::Timeout {
                    what: format!("the end of processes {processes:?}"),
                    seconds: PATIENCE.as_secs(),
                    hint: "they do not die of SIGKILL: see /proc/PID/stack".into(),
                });
            }
            for pid in processes {
                // It may have ended by itself in between.
                let _ = kill(pid, Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs a program inside the machine's mount and network namespaces, where its container runtime is.
    pub(crate) fn run_inside(&self, attempt: &str, program: &[&str]) -> Result<String> {
        let Some(init) = self.init()? else {
            return Err(Error::Invalid(format!(
                "{attempt}: the machine of {} is off",
                self.specification.display()
            )));
        };
        let target = init.to_string();
        run(
            attempt,
            system("nsenter", ["--target", &target, "--mount", "--net"]).args(program),
        )
    }

    /// The supervisor and the process that holds its namespace, found by the specification in their command lines.
    fn processes(&self) -> Result<Vec<Pid>> {
        let entries = fs::read_dir("/proc").map_err(Error::io("listing", "/proc"))?;
        let mut found = Vec::new();
        for entry in entries.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let Ok(command_line) = fs::read(entry.path().join("cmdline")) else {
                continue;
            };
            if supervises(&command_line, &self.specification) {
                found.push(Pid::from_raw(pid));
            }
        }
        Ok(found)
    }
}

/// Whether the command line ends in `supervise SPECIFICATION`.
fn supervises(command_line: &[u8], specification: &Path) -> bool {
    let mut words = command_line
        .strip_suffix(&[0])
        .unwrap_or(command_line)
        .rsplit(|byte| *byte == 0);
    words.next() == Some(specification.as_os_str().as_encoded_bytes()) && words.next() == Some(b"supervise")
}

fn is_init_of_a_namespace(pid: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    is_init(&status)
}

/// `NSpid:` lists the process id in each namespace from here inwards.
fn is_init(status: &str) -> bool {
    let Some(ids) = status.lines().find_map(|line| line.strip_prefix("NSpid:")) else {
        return false;
    };
    let ids: Vec<_> = ids.split_whitespace().collect();
    ids.len() > 1 && ids.last() == Some(&"1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_supervisor_is_known_by_its_last_two_words() {
        let path = Path::new("/state/up/node1/machine.json");
        assert!(supervises(
            b"/tools/hermetickube\0supervise\0/state/up/node1/machine.json\0",
            path
        ));
        assert!(supervises(
            b"unshare\0--pid\0--\0/x\0supervise\0/state/up/node1/machine.json\0",
            path
        ));
        assert!(!supervises(b"vi\0/state/up/node1/machine.json\0", path));
        assert!(!supervises(
            b"/tools/hermetickube\0supervise\0/state/up/node2/machine.json\0",
            path
        ));
        assert!(!supervises(b"", path));
    }

    #[test]
    fn the_supervisor_is_the_first_process_of_an_inner_namespace() {
        assert!(is_init("Name:\thermetickube\nNSpid:\t4711\t1\n"));
        assert!(!is_init("Name:\tunshare\nNSpid:\t4710\n"));
        assert!(!is_init("Name:\tkubelet\nNSpid:\t4712\t7\n"));
        assert!(!is_init("Name:\tsystemd\nNSpid:\t1\n"));
    }
}
