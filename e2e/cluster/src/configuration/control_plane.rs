//! etcd, API server, controller manager, scheduler, name service and volumes, all in the host's network.

use super::{Setting, component, with_flags, write};
use crate::machine::{Component, Specification};
use crate::{Result, files};

/// A machine's specification, and whether any of its configuration files is new.
#[derive(Debug)]
pub(crate) struct Rendered {
    pub(crate) specification: Specification,
    pub(crate) changed: bool,
}

/// Writes the control plane's configuration files and says what it runs.
pub(crate) fn control_plane(setting: &Setting) -> Result<Rendered> {
    let directory = setting.state.control_plane();
    files::make_directory(&directory.join("logs"))?;
    let mut changed = write(&directory, "Corefile", &corefile(setting))?;
    changed |= write(&directory, "audit-policy.yaml", AUDIT_POLICY)?;
    let ready = setting.api_ready();
    let make = |name, command, wait_for: &str| component(&directory, name, command, wait_for.to_owned());
    let components: Vec<Component> = vec![
        make("etcd", etcd(setting), ""),
        make("kube-apiserver", api_server(setting), ""),
        make("kube-controller-manager", controller_manager(setting), &ready),
        make("kube-scheduler", scheduler(setting), &ready),
        make("coredns", name_service(setting), &ready),
        make("provisioner", provisioner(setting), &ready),
    ];
    let specification = Specification {
        hostname: String::new(),
        private_mounts: false,
        binds: Vec::new(),
        lock: directory.join("machine.lock"),
        components,
    };
    Ok(Rendered { specification, changed })
}

fn etcd(setting: &Setting) -> Vec<String> {
    let host = setting.plan.loopback();
    let (client, peer) = (format!("http://{host}:2379"), format!("http://{host}:2380"));
    let mut command = with_flags(
        setting.hermetickube("etcd"),
        [
            ("name", "etcd".into()),
            (
                "data-dir",
                setting.state.control_plane().join("etcd").display().to_string(),
            ),
            ("listen-client-urls", client.clone()),
            ("advertise-client-urls", client),
            ("listen-peer-urls", peer.clone()),
            ("initial-advertise-peer-urls", peer.clone()),
            ("initial-cluster", format!("etcd={peer}")),
            ("log-level", "warn".into()),
        ],
    );
    // A killed etcd loses nothing by this, a machine that loses its power may: it would be started anew.
    command.push("--unsafe-no-fsync".into());
    command
}

fn api_server(setting: &Setting) -> Vec<String> {
    let plan = setting.plan;
    let directory = setting.state.control_plane();
    let authority = setting.credential("ca.crt");
    with_flags(
        setting.hermetickube("kube-apiserver"),
        [
            ("etcd-servers", format!("http://{}:2379", plan.loopback())),
            // Not loopback: pods reach this address through the Service `kubernetes`.
            ("advertise-address", plan.gateway().to_string()),
            ("bind-address", plan.gateway().to_string()),
            ("secure-port", "6443".into()),
            ("service-cluster-ip-range", plan.services()),
            ("endpoint-reconciler-type", "lease".into()),
            ("client-ca-file", authority.clone()),
            ("tls-cert-file", setting.credential("kube-apiserver.crt")),
            ("tls-private-key-file", setting.credential("kube-apiserver.key")),
            ("service-account-key-file", setting.credential("service-account.pub")),
            (
                "service-account-signing-key-file",
                setting.credential("service-account.key"),
            ),
            (
                "service-account-issuer",
                "https://kubernetes.default.svc.cluster.local".into(),
            ),
            ("authorization-mode", "Node,RBAC".into()),
            ("enable-admission-plugins", "NodeRestriction".into()),
            ("allow-privileged", "true".into()),
            ("kubelet-client-certificate", setting.credential("kubelet-client.crt")),
            ("kubelet-client-key", setting.credential("kubelet-client.key")),
            // Names of nodes would be looked up outside the machine.
            ("kubelet-preferred-address-types", "InternalIP".into()),
            ("requestheader-client-ca-file", authority),
            ("requestheader-allowed-names", "front-proxy".into()),
            ("requestheader-extra-headers-prefix", "X-Remote-Extra-".into()),
            ("requestheader-group-headers", "X-Remote-Group".into()),
            ("requestheader-username-headers", "X-Remote-User".into()),
            ("proxy-client-cert-file", setting.credential("front-proxy.crt")),
            ("proxy-client-key-file", setting.credential("front-proxy.key")),
            // Service addresses are a black hole on the host: webhooks and aggregated APIs are called at their pods.
            ("enable-aggregator-routing", "true".into()),
            (
                "audit-policy-file",
                directory.join("audit-policy.yaml").display().to_string(),
            ),
            ("audit-log-path", directory.join("logs/audit.log").display().to_string()),
            ("audit-log-maxsize", "100".into()),
            ("audit-log-maxbackup", "1".into()),
            ("profiling", "false".into()),
        ],
    )
}

fn controller_manager(setting: &Setting) -> Vec<String> {
    with_flags(
        setting.hermetickube("kube-controller-manager"),
        [
            ("bind-address", setting.plan.loopback().to_string()),
            ("kubeconfig", setting.credential("controller-manager.kubeconfig")),
            ("use-service-account-credentials", "true".into()),
            ("service-account-private-key-file", setting.credential("service-account.key")),
            ("root-ca-file", setting.credential("ca.crt")),
            ("cluster-signing-cert-file", setting.credential("ca.crt")),
            ("cluster-signing-key-file", setting.credential("ca.key")),
            ("leader-elect", "false".into()),
            ("controllers", "*,-node-ipam-controller,-node-route-controller,-service-lb-controller,-cloud-node-lifecycle-controller".into()),
            ("flex-volume-plugin-dir", setting.state.control_plane().join("no-plugins").display().to_string()),
            // A lost node is noticed in a third of the usual time, so that tests of it stay short.
            ("node-monitor-grace-period", "16s".into()),
            ("node-monitor-period", "2s".into()),
        ],
    )
}

fn scheduler(setting: &Setting) -> Vec<String> {
    with_flags(
        setting.hermetickube("kube-scheduler"),
        [
            ("bind-address", setting.plan.loopback().to_string()),
            ("kubeconfig", setting.credential("scheduler.kubeconfig")),
            ("leader-elect", "false".into()),
        ],
    )
}

fn name_service(setting: &Setting) -> Vec<String> {
    let corefile = setting.state.control_plane().join("Corefile");
    vec![
        setting.tools.join("coredns").display().to_string(),
        "-conf".into(),
        corefile.display().to_string(),
    ]
}

/// Names of the cluster are answered from the API; every other name does not exist, at once, instead of being asked
/// for outside.
fn corefile(setting: &Setting) -> String {
    format!(
        ".:53 {{
    bind {gateway}
    ready {loopback}:8181
    errors
    cache 2
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
        ttl 1
    }}
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
",
        gateway = setting.plan.gateway(),
        loopback = setting.plan.loopback(),
        kubeconfig = setting.credential("name-service.kubeconfig"),
    )
}

fn provisioner(setting: &Setting) -> Vec<String> {
    with_flags(
        vec![setting.tools.join("provisioner").display().to_string()],
        [
            ("root", setting.state.volumes().display().to_string()),
            ("kubeconfig", setting.credential("provisioner.kubeconfig")),
        ],
    )
}

/// Who wrote what: for tests that count writes, and for finding out who fights over an object.
const AUDIT_POLICY: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  verbs: [get, list, watch]
- level: None
  resources: [{group: coordination.k8s.io}, {group: \"\", resources: [events]}, {group: events.k8s.io}]
- level: None
  users: [\"system:kube-controller-manager\", \"system:kube-scheduler\"]
- level: None
  userGroups: [\"system:nodes\"]
- level: Metadata
";
