//! A local port that leads to a Service, for as long as the value lives.

use std::io::{self, BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};

use crate::place::Place;
use crate::platform::NAMESPACE;

/// A running `kubectl port-forward`.
#[derive(Debug)]
pub(crate) struct PortForward {
    child: Child,
    port: u16,
}

impl PortForward {
    /// Opens a port of kubectl's choice to the Service's port of that name.
    pub(crate) fn open(place: &Place, service: &str, service_port: &str) -> Result<Self> {
        let target = format!("service/{service}");
        let ports = format!(":{service_port}");
        let forward = place.kubectl(&["port-forward", "--namespace", NAMESPACE, &target, &ports]);
        let mut child = dying_with_us(&forward)
            .stdout(Stdio::piped())
            .spawn()
            .context("starting kubectl port-forward")?;
        let output = child.stdout.take().context("kubectl port-forward has no output")?;
        let mut output = BufReader::new(output);
        let mut line = String::new();
        output
            .read_line(&mut line)
            .context("reading from kubectl port-forward")?;
        // It tells of each connection, and would die of writing to a closed pipe.
        thread::spawn(move || io::copy(&mut output, &mut io::sink()));
        // "Forwarding from 127.0.0.1:40123 -> 8080"
        let port = line
            .split("127.0.0.1:")
            .nth(1)
            .and_then(|rest| rest.split_whitespace().next());
        let Some(port) = port.and_then(|port| port.parse().ok()) else {
            let _ = child.kill();
            let _ = child.wait();
            bail!("kubectl port-forward to {target} did not name a port but said: {line:?}");
        };
        Ok(Self { child, port })
    }

    /// Where an HTTP client reaches the Service.
    pub(crate) fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for PortForward {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The command, made to be killed by the kernel when this thread ends, however it ends.
pub(crate) fn dying_with_us(command: &Command) -> Command {
    let mut tied = Command::new("setpriv");
    tied.args(["--pdeathsig", "KILL", "--"])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => tied.env(name, value),
            None => tied.env_remove(name),
        };
    }
    tied.stdin(Stdio::null());
    tied
}
