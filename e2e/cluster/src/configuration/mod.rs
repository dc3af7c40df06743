//! What each program is told: command lines and configuration files, from the address plan and the directories.

mod control_plane;
mod credentials;
mod node;

pub(crate) use control_plane::control_plane;
pub(crate) use credentials::credentials;
pub(crate) use node::node;

use std::path::{Path, PathBuf};

use crate::address_plan::AddressPlan;
use crate::machine::Component;
use crate::state::State;
use crate::{NodeName, Result, files};

/// Everything configuration depends on.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    pub(crate) plan: AddressPlan,
    pub(crate) state: State,
    pub(crate) tools: PathBuf,
}

/// Objects every cluster has from the start.
pub(crate) const BOOTSTRAP: &str = include_str!("bootstrap.yaml");

/// The image every pod's first container has.
pub(crate) const PAUSE_IMAGE: &str = "localhost/hermetic-pause:1";

/// Where a node's container runtime listens; each node has a /run of its own.
pub(crate) const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";

impl Setting {
    fn hermetickube(&self, component: &str) -> Vec<String> {
        vec![
            self.tools.join("hermetickube").display().to_string(),
            component.to_owned(),
        ]
    }

    fn api_ready(&self) -> String {
        format!("{}/readyz", self.plan.api_server())
    }

    fn credential(&self, file: &str) -> String {
        self.state.credentials().join(file).display().to_string()
    }

    fn kubeconfig_of_node(&self, node: NodeName) -> String {
        self.credential(&format!("{node}.kubeconfig"))
    }
}

/// A component of the machine in `directory`; its log lies there under its name.
fn component(directory: &Path, name: &'static str, command: Vec<String>, wait_for: String) -> Component {
    Component {
        name,
        command,
        log: directory.join("logs").join(name).with_extension("log"),
        wait_for,
    }
}

/// Writes a configuration file of the machine in `directory`. Says whether it changed.
fn write(directory: &Path, name: &str, content: &str) -> Result<bool> {
    files::write_whole(&directory.join(name), content)
}

/// `--name=value` flags after the command.
fn with_flags<const N: usize>(mut command: Vec<String>, flags: [(&str, String); N]) -> Vec<String> {
    command.extend(flags.into_iter().map(|(name, value)| format!("--{name}={value}")));
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn setting(root: &Path) -> Setting {
        Setting {
            plan: AddressPlan::new(2),
            state: State::at(root),
            tools: "/tools".into(),
        }
    }

    #[test]
    fn a_second_rendering_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let setting = setting(directory.path());
        assert!(control_plane(&setting).unwrap().changed);
        assert!(!control_plane(&setting).unwrap().changed);
        let node1 = NodeName::new(1).unwrap();
        assert!(node(&setting, node1).unwrap().changed);
        assert!(!node(&setting, node1).unwrap().changed);
    }

    #[test]
    fn kubelets_differ_in_name_address_and_cgroup_only() {
        let directory = tempfile::tempdir().unwrap();
        let setting = setting(directory.path());
        let kubelet = |number| {
            let name = NodeName::new(number).unwrap();
            node(&setting, name).unwrap();
            let text = std::fs::read_to_string(setting.state.node(name).join("kubelet.json")).unwrap();
            text.replace(&name.to_string(), "NODE")
        };
        assert_eq!(kubelet(1), kubelet(2));
        let config: Value = serde_json::from_str(&kubelet(3)).unwrap();
        assert_eq!(config["cgroupRoot"], "/rw2-NODE");
        assert_eq!(config["clusterDNS"][0], "10.200.2.1");
    }

    #[test]
    fn the_api_server_is_certified_for_every_name_it_is_called_by() {
        let directory = tempfile::tempdir().unwrap();
        let text = credentials(&setting(directory.path())).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        let certificates = value["certificates"].as_array().unwrap();
        let server = certificates.iter().find(|c| c["name"] == "kube-apiserver").unwrap();
        assert_eq!(server["addresses"], serde_json::json!(["10.200.2.1", "10.226.0.1"]));
        assert!(
            server["dns_names"]
                .as_array()
                .unwrap()
                .contains(&"kubernetes.default.svc".into())
        );
        assert_eq!(
            certificates
                .iter()
                .filter(|c| c["groups"] == serde_json::json!(["system:nodes"]))
                .count(),
            3
        );
    }
}
