//! Container runtime, kubelet and kube-proxy of one node.

use std::path::Path;

use serde_json::{Value, json};

use super::control_plane::Rendered;
use super::{CONTAINERD_SOCKET, PAUSE_IMAGE, Setting, component, with_flags, write};
use crate::machine::{Bind, Specification};
use crate::prerequisites::{CNI_DIRECTORIES, find_program};
use crate::{Error, NodeName, Result, files, host};

/// Writes the node's configuration files and says what it runs.
pub(crate) fn node(setting: &Setting, node: NodeName) -> Result<Rendered> {
    let directory = setting.state.node(node);
    for name in ["logs", "cni"] {
        files::make_directory(&directory.join(name))?;
    }
    let mut changed = write(&directory, "containerd.toml", &containerd(&directory))?;
    changed |= write(&directory, "cni/10-cluster.conflist", &pretty(&network(setting, node))?)?;
    changed |= write(&directory, "kubelet.json", &pretty(&kubelet(setting, node))?)?;
    changed |= write(&directory, "kube-proxy.json", &pretty(&kube_proxy(setting, node))?)?;
    let file = |name: &str| directory.join(name).display().to_string();
    let ready = setting.api_ready();
    let kubelet = with_flags(
        setting.hermetickube("kubelet"),
        [
            ("config", file("kubelet.json")),
            ("kubeconfig", setting.kubeconfig_of_node(node)),
            ("hostname-override", node.to_string()),
            ("node-ip", setting.plan.node(node).to_string()),
            (
                "node-labels",
                format!("topology.kubernetes.io/zone=zone{}", node.number()),
            ),
        ],
    );
    let kube_proxy = with_flags(
        setting.hermetickube("kube-proxy"),
        [("config", file("kube-proxy.json"))],
    );
    let containerd = vec!["containerd".to_owned(), "--config".to_owned(), file("containerd.toml")];
    let mut binds = Vec::new();
    for target in host::NODE_DIRECTORIES {
        let source = directory.join(target.trim_start_matches('/').replace('/', "-"));
        files::make_directory(&source)?;
        binds.push(Bind {
            source,
            target: target.into(),
        });
    }
    let specification = Specification {
        hostname: node.to_string(),
        private_mounts: true,
        binds,
        lock: directory.join("machine.lock"),
        components: vec![
            component(&directory, "containerd", containerd, String::new()),
            // Both give up, and wait ever longer, when there is no API server: better not started before there is.
            component(&directory, "kubelet", kubelet, ready.clone()),
            component(&directory, "kube-proxy", kube_proxy, ready),
        ],
    };
    Ok(Rendered { specification, changed })
}

fn containerd(directory: &Path) -> String {
    let cni = CNI_DIRECTORIES
        .iter()
        .find(|path| Path::new(path).join("bridge").exists())
        .unwrap_or(&CNI_DIRECTORIES[0]);
    let runc = find_program("runc").map_or_else(|| "runc".into(), |path| path.display().to_string());
    format!(
        r#"version = 2
root = "{root}/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]

[grpc]
  address = "{CONTAINERD_SOCKET}"

[plugins."io.containerd.internal.v1.opt"]
  path = "{root}/containerd/opt"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  # Without CAP_SYS_RESOURCE no score below one's own can be set, and no sandbox would start.
  restrict_oom_score_adj = true

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni}"
    conf_dir = "{root}/cni"

  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      # Named, since crun refuses machines that mount both versions of cgroups.
      BinaryName = "{runc}"
"#,
        root = directory.display(),
    )
}

fn network(setting: &Setting, node: NodeName) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "cluster",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "ipMasq": false,
                // A pod may reach itself through its own Service.
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": setting.plan.node_pods(node)}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                    // Forgotten at each boot, as the pods' namespaces are.
                    "dataDir": "/run/cni/ipam",
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

fn kubelet(setting: &Setting, node: NodeName) -> Value {
    let directory = setting.state.node(node);
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": setting.credential("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", setting.plan.node_scope(node)),
        "failCgroupV1": false,
        "containerRuntimeEndpoint": format!("unix://{CONTAINERD_SOCKET}"),
        "clusterDomain": "cluster.local",
        "clusterDNS": [setting.plan.gateway()],
        // Nothing of the host's name service: it would be asked for the cluster's names.
        "resolvConf": "/dev/null",
        "failSwapOn": false,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        // Images cannot be pulled again.
        "imageGCHighThresholdPercent": 100,
        "nodeStatusUpdateFrequency": "4s",
        "nodeLeaseDurationSeconds": 16,
        "volumePluginDir": directory.join("no-plugins"),
        "serializeImagePulls": false,
        "maxPods": 200,
    })
}

fn kube_proxy(setting: &Setting, node: NodeName) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": setting.credential("proxy.kubeconfig")},
        "mode": "nftables",
        "clusterCIDR": setting.plan.pods(),
        "hostnameOverride": node.to_string(),
        // The host's limits, which a network namespace may not change.
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    })
}

fn pretty(value: &Value) -> Result<String> {
    serde_json::to_string_pretty(value).map_err(|error| Error::Invalid(error.to_string()))
}
