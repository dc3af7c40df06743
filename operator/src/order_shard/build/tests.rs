//! Snapshots of every object, and the rules that no snapshot should be trusted for.

use k8s_openapi::api::core::v1::PodSpec;
use serde_json::{Value, json};

use super::{Children, Files, SystemPasswords, children, dcs};
use crate::order_shard::shard::{Shard, tests::shard};

fn passwords() -> SystemPasswords {
    SystemPasswords {
        superuser: "super-secret-1".into(),
        replication: "super-secret-2".into(),
        rewind: "super-secret-3".into(),
        patroni_username: "patroni".to_owned(),
        patroni_password: "super-secret-4".into(),
    }
}

fn everything() -> Shard {
    shard(json!({
        "instances": 3,
        "durability": "required",
        "imagePullSecrets": ["registry"],
        "storage": {"size": "72Gi", "storageClassName": "fast"},
        "resources": {"requests": {"cpu": "2", "memory": "8Gi"}, "limits": {"memory": "8Gi"}},
        "parameters": {"work_mem": "16MB"},
        "scheduling": {
            "nodeSelector": {"disk": "nvme"},
            "tolerations": [{"key": "database", "operator": "Exists"}],
            "topologyKey": "topology.kubernetes.io/zone",
        },
    }))
}

fn built(shard: &Shard) -> Children {
    children(
        shard,
        &Files::render(shard, &passwords(), shard.instances),
        shard.instances,
        "ringwright",
    )
}

/// All objects as the API server would receive them.
fn objects(children: &Children) -> Vec<Value> {
    let value = |object: serde_json::Result<Value>| object.expect("serialisable");
    let mut all = vec![
        value(serde_json::to_value(&children.service_account)),
        value(serde_json::to_value(&children.role)),
        value(serde_json::to_value(&children.role_binding)),
        value(serde_json::to_value(&children.configuration)),
        value(serde_json::to_value(&children.credentials)),
        value(serde_json::to_value(&children.network_policy)),
        value(serde_json::to_value(&children.disruption_budget)),
        value(serde_json::to_value(&children.stateful_set)),
    ];
    all.extend(children.dcs.iter().map(|c| value(serde_json::to_value(c))));
    all.extend(children.services.iter().map(|s| value(serde_json::to_value(s))));
    all
}

#[test]
fn the_objects_of_a_shard_that_asks_for_everything() {
    for object in objects(&built(&everything())) {
        let name = format!("{}-{}", object["kind"], object["metadata"]["name"]).replace('"', "");
        insta::assert_yaml_snapshot!(name, object);
    }
}

#[test]
fn the_dynamic_configuration_of_a_small_shard() {
    let shard = shard(json!({"storage": {"size": "1Gi"}}));
    let config = &built(&shard).dcs[0];
    let text = &config.metadata.annotations.as_ref().expect("annotations")[dcs::CONFIG_ANNOTATION];
    let parsed: Value = serde_json::from_str(text).expect("JSON, as Patroni reads it");
    insta::assert_yaml_snapshot!(parsed);
}

#[test]
fn passwords_are_in_the_secret_and_nowhere_else() {
    let children = built(&everything());
    for object in objects(&children) {
        let text = object.to_string();
        if object["kind"] == "Secret" {
            let content = &children.credentials.data.as_ref().expect("data")["credentials.yml"].0;
            let content = String::from_utf8(content.clone()).expect("UTF-8");
            for index in 1..=4 {
                assert!(content.contains(&format!("super-secret-{index}")));
            }
        } else {
            assert!(!text.contains("super-secret"), "{} shows a password", object["kind"]);
        }
    }
}

#[test]
fn what_patroni_writes_is_never_part_of_an_apply() {
    for config_map in built(&everything()).dcs {
        assert!(config_map.data.is_none() && config_map.binary_data.is_none());
        let annotations = config_map.metadata.annotations.unwrap_or_default();
        for key in [
            "leader",
            "optime",
            "renewTime",
            "sync_standby",
            "history",
            "failsafe",
            "member",
        ] {
            assert!(!annotations.contains_key(key), "{key}");
        }
    }
}

#[test]
fn kept_data_keeps_what_patroni_knows_of_it() {
    let owners = |shard: &Shard| -> Vec<bool> {
        let dcs = built(shard).dcs;
        dcs.iter().map(|c| c.metadata.owner_references.is_some()).collect()
    };
    let mut shard = everything();
    assert_eq!(
        owners(&shard),
        [false, true, true, false],
        "config and sync outlive the shard"
    );
    shard.keep_data = false;
    assert_eq!(owners(&shard), [true; 4]);
}

#[test]
fn a_known_system_identifier_forbids_a_new_database() {
    let mut shard = everything();
    shard.system_identifier = Some("7575".to_owned());
    let annotations = built(&shard).dcs[0].metadata.annotations.clone().expect("annotations");
    assert_eq!(annotations[dcs::INITIALIZE_ANNOTATION], "7575");
}

#[test]
fn deleting_the_set_by_hand_never_deletes_volumes() {
    for keep_data in [true, false] {
        let shard = Shard {
            keep_data,
            ..everything()
        };
        let spec = built(&shard).stateful_set.spec.expect("a spec");
        let policy = spec.persistent_volume_claim_retention_policy.expect("a policy");
        assert_eq!(policy.when_deleted.as_deref(), Some("Retain"));
    }
}

#[test]
fn a_pod_may_create_nothing_and_writes_only_named_objects() {
    for rule in built(&everything()).role.rules.expect("rules") {
        assert!(
            !rule
                .verbs
                .iter()
                .any(|v| matches!(v.as_str(), "create" | "delete" | "*"))
        );
        if rule.verbs.iter().any(|v| v == "patch") {
            assert!(rule.resource_names.is_some_and(|names| !names.is_empty()));
        }
    }
}

#[test]
fn the_pod_passes_the_restricted_pod_security_standard() {
    let template = built(&everything()).stateful_set.spec.expect("a spec").template;
    let PodSpec {
        security_context: Some(pod),
        containers,
        host_network: None,
        host_pid: None,
        ..
    } = template.spec.expect("a pod")
    else {
        panic!("no security context, or a host namespace");
    };
    assert_eq!(pod.run_as_non_root, Some(true));
    assert_eq!(pod.seccomp_profile.map(|p| p.type_).as_deref(), Some("RuntimeDefault"));
    for container in containers {
        let security = container.security_context.expect("a security context");
        assert_eq!(security.allow_privilege_escalation, Some(false));
        assert_eq!(security.read_only_root_filesystem, Some(true));
        assert_eq!(security.capabilities.and_then(|c| c.drop), Some(vec!["ALL".to_owned()]));
    }
}

#[test]
fn a_member_waits_for_the_slots_of_the_others_and_never_its_own() {
    let children = built(&everything());
    let files = children.configuration.data.expect("data");
    for own in 0..3 {
        let file = &files[&format!("member-shop-0-{own}.yml")];
        for other in 0..3 {
            assert_eq!(file.contains(&format!("shop_0_{other}")), own != other, "{file}");
        }
    }
}

#[test]
fn the_digest_follows_every_file_a_member_reads() {
    let shard = everything();
    let digest = |shard: &Shard, passwords: &SystemPasswords| {
        Files::render(shard, passwords, shard.instances).digest("shop-0-0")
    };
    let first = digest(&shard, &passwords());
    assert_eq!(first, digest(&shard, &passwords()));
    let changed = SystemPasswords {
        rewind: "another".into(),
        ..passwords()
    };
    assert_ne!(first, digest(&shard, &changed));
    let fewer = Shard {
        instances: 2,
        ..everything()
    };
    assert_ne!(first, digest(&fewer, &passwords()));
    assert_eq!(
        Files::render(&fewer, &passwords(), fewer.instances).digest("shop-0-2"),
        None
    );
}
