//! The pod of a member.

use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, ConfigMapProjection, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, EnvVarSource,
    HTTPGetAction, KeyToPath, LocalObjectReference, ObjectFieldSelector, PodAffinityTerm, PodAntiAffinity,
    PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ProjectedVolumeSource, SeccompProfile, SecretProjection,
    SecurityContext, TopologySpreadConstraint, Volume, VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::labels::{self, component, names};
use super::patroni;
use super::services::{PATRONI_PORT, POSTGRES_PORT};
use crate::order_shard::shard::Shard;

/// The container with PostgreSQL and Patroni.
pub(crate) const CONTAINER: &str = "postgres";
/// Debian's user and group `postgres`, as the image makes them.
const UID: i64 = 100;
const GID: i64 = 102;
/// Time for the checkpoint of a clean stop and for handing the lock over.
const GRACE_SECONDS: i64 = 120;

pub(super) fn template(shard: &Shard) -> PodTemplateSpec {
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels::of(shard, component::SHARD)),
            annotations: Some(
                [(
                    "kubectl.kubernetes.io/default-container".to_owned(),
                    CONTAINER.to_owned(),
                )]
                .into(),
            ),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            service_account_name: Some(shard.name.clone()),
            automount_service_account_token: Some(true),
            enable_service_links: Some(false),
            termination_grace_period_seconds: Some(GRACE_SECONDS),
            security_context: Some(pod_security()),
            affinity: Some(apart(shard)),
            topology_spread_constraints: Some(vec![spread(shard)]),
            node_selector: (!shard.node_selector.is_empty()).then(|| shard.node_selector.clone()),
            tolerations: (!shard.tolerations.is_empty()).then(|| shard.tolerations.clone()),
            image_pull_secrets: pull_secrets(shard),
            containers: vec![container(shard)],
            volumes: Some(volumes(shard)),
            ..PodSpec::default()
        }),
    }
}

fn pull_secrets(shard: &Shard) -> Option<Vec<LocalObjectReference>> {
    let reference = |name: &String| LocalObjectReference { name: name.clone() };
    let secrets: Vec<_> = shard.image_pull_secrets.iter().map(reference).collect();
    (!secrets.is_empty()).then_some(secrets)
}

fn container(shard: &Shard) -> Container {
    let mount = |name: &str, path: &str| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        ..VolumeMount::default()
    };
    let port = |name: &str, number: i32| ContainerPort {
        name: Some(name.to_owned()),
        container_port: number,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    Container {
        name: CONTAINER.to_owned(),
        image: Some(shard.image.clone()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        env: Some(environment()),
        ports: Some(vec![port("postgres", POSTGRES_PORT), port("patroni", PATRONI_PORT)]),
        resources: Some(shard.resources.clone()),
        // Up to a minute until Patroni answers; copying a volume comes after that and may take its time.
        startup_probe: Some(probe("/liveness", 1, 60)),
        // Patroni's loop stands still: a restart is all that helps. It does not fail while the API server is away.
        liveness_probe: Some(probe("/liveness", 10, 3)),
        readiness_probe: Some(probe("/readiness", 2, 2)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".to_owned()]),
                add: None,
            }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(vec![
            mount("data", patroni::VOLUME),
            VolumeMount {
                read_only: Some(true),
                ..mount("configuration", "/etc/patroni")
            },
            mount("run", "/run/postgresql"),
            mount("shared-memory", "/dev/shm"),
            mount("tmp", "/tmp"),
        ]),
        ..Container::default()
    }
}

/// What differs between pods without the operator's doing; Patroni reads these over its files.
fn environment() -> Vec<EnvVar> {
    let field = |name: &str, path: &str| EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: path.to_owned(),
                api_version: Some("v1".to_owned()),
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    };
    let value = |name: &str, value: String| EnvVar {
        name: name.to_owned(),
        value: Some(value),
        ..EnvVar::default()
    };
    vec![
        field("PATRONI_NAME", "metadata.name"),
        field("PATRONI_KUBERNETES_NAMESPACE", "metadata.namespace"),
        field("PATRONI_KUBERNETES_POD_IP", "status.podIP"),
        value(
            "PATRONI_POSTGRESQL_CONNECT_ADDRESS",
            format!("$(PATRONI_KUBERNETES_POD_IP):{POSTGRES_PORT}"),
        ),
        value(
            "PATRONI_RESTAPI_CONNECT_ADDRESS",
            format!("$(PATRONI_KUBERNETES_POD_IP):{PATRONI_PORT}"),
        ),
    ]
}

fn probe(path: &str, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("patroni".to_owned()),
            scheme: Some("HTTP".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(5),
        failure_threshold: Some(failures),
        success_threshold: Some(1),
        ..Probe::default()
    }
}

fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(UID),
        run_as_group: Some(GID),
        fs_group: Some(GID),
        // A full volume is not walked through at every start.
        fs_group_change_policy: Some("OnRootMismatch".to_owned()),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            localhost_profile: None,
        }),
        ..PodSecurityContext::default()
    }
}

/// Two members in one failure domain would be lost together, so they are never put there.
fn apart(shard: &Shard) -> Affinity {
    Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            required_during_scheduling_ignored_during_execution: Some(vec![PodAffinityTerm {
                topology_key: shard.topology_key.clone(),
                label_selector: Some(labels::label_selector(labels::selector(shard))),
                ..PodAffinityTerm::default()
            }]),
            ..PodAntiAffinity::default()
        }),
        ..Affinity::default()
    }
}

/// The cluster's members are spread over the nodes as evenly as can be, so that a node's loss hits few shards.
fn spread(shard: &Shard) -> TopologySpreadConstraint {
    let mut cluster = labels::selector(shard);
    cluster.remove(crds::labels::SHARD);
    TopologySpreadConstraint {
        max_skew: 1,
        topology_key: "kubernetes.io/hostname".to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(labels::label_selector(cluster)),
        ..TopologySpreadConstraint::default()
    }
}

fn volumes(shard: &Shard) -> Vec<Volume> {
    let empty = |name: &str, medium: Option<&str>| Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: medium.map(str::to_owned),
            size_limit: None,
        }),
        ..Volume::default()
    };
    vec![
        Volume {
            name: "configuration".to_owned(),
            projected: Some(ProjectedVolumeSource {
                // Readable by the group, which is the database's; by nobody else.
                default_mode: Some(0o440),
                sources: Some(vec![public_files(shard), credentials(shard)]),
            }),
            ..Volume::default()
        },
        // Passwords that Patroni hands to libpq lie here: in memory, not on the node's disk.
        empty("tmp", Some("Memory")),
        empty("run", Some("Memory")),
        // A container gets 64 MiB by default; parallel queries and sorts want more. It counts as the pod's memory.
        empty("shared-memory", Some("Memory")),
    ]
}

fn public_files(shard: &Shard) -> VolumeProjection {
    VolumeProjection {
        config_map: Some(ConfigMapProjection {
            name: names::files(&shard.name),
            ..ConfigMapProjection::default()
        }),
        ..VolumeProjection::default()
    }
}

fn credentials(shard: &Shard) -> VolumeProjection {
    let key = super::files::CREDENTIALS_FILE.to_owned();
    VolumeProjection {
        secret: Some(SecretProjection {
            name: names::files(&shard.name),
            items: Some(vec![KeyToPath {
                path: key.clone(),
                key,
                mode: None,
            }]),
            optional: None,
        }),
        ..VolumeProjection::default()
    }
}
