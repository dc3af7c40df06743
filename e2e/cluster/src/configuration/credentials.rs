//! Which keys, certificates and kubeconfigs a cluster has.

use serde_json::{Value, json};

use super::Setting;
use crate::{Error, NodeName, Result};

/// The list that `hermetickube credentials` works off.
pub(crate) fn credentials(setting: &Setting) -> Result<String> {
    let plan = setting.plan;
    let server_names = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    let mut certificates = vec![
        json!({
            "name": "kube-apiserver",
            "common_name": "kube-apiserver",
            "addresses": [plan.gateway(), plan.api_service()],
            "dns_names": server_names,
        }),
        json!({"name": "kubelet-client", "common_name": "kubelet-client", "groups": ["system:masters"]}),
        json!({"name": "front-proxy", "common_name": "front-proxy"}),
        user("admin", "admin", &["system:masters"]),
        user("controller-manager", "system:kube-controller-manager", &[]),
        user("scheduler", "system:kube-scheduler", &[]),
        user("proxy", "system:kube-proxy", &[]),
        user("name-service", "hermetic:name-service", &[]),
        user("provisioner", "hermetic:provisioner", &[]),
    ];
    certificates
        .extend(NodeName::all().map(|node| user(&node.to_string(), &format!("system:node:{node}"), &["system:nodes"])));
    let name = setting.state.root().file_name().unwrap_or_default().to_string_lossy();
    let list = json!({
        "directory": setting.state.credentials(),
        "server": plan.api_server(),
        "cluster": format!("hermetic-{name}"),
        "certificates": certificates,
        "signing_keys": ["service-account"],
    });
    serde_json::to_string_pretty(&list).map_err(|error| Error::Invalid(error.to_string()))
}

fn user(name: &str, common_name: &str, groups: &[&str]) -> Value {
    json!({"name": name, "common_name": common_name, "groups": groups, "kubeconfig": true})
}
