//! From a plan to Kubernetes objects. Pure, but for the passwords that a caller hands in.

use std::collections::BTreeMap;

use crds::{OrderShard, OrderShardSpec, labels};
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
};
use kube::api::ObjectMeta;
use ring::{EncodedRing, Ring};

use super::{names, record::Record, validate::Cluster};

/// Label value of the cluster's Secrets.
pub(crate) const CREDENTIALS: &str = "credentials";
/// Label value of the ring's ConfigMap.
pub(crate) const RING: &str = "ring";

/// Keys of the ring's ConfigMap, which are the names of the files when it is mounted.
const RING_JSON: &str = "ring.json";
const DIGEST: &str = "digest";
const TOKENS: &str = "tokens";

/// Secrets that programs log in with, and the database role of each.
const LOGINS: [(&str, &str); 4] = [
    ("app", "ringwright_app"),
    ("notifier", "ringwright_notifier"),
    ("monitor", "ringwright_monitor"),
    ("mover", "ringwright_mover"),
];

/// Passwords of the system Secret.
const SYSTEM_PASSWORDS: [&str; 4] = [
    "superuser-password",
    "replication-password",
    "rewind-password",
    "patroni-password",
];

/// A shard's resource.
pub(crate) fn shard(cluster: &Cluster, ordinal: u16, spec: &OrderShardSpec) -> OrderShard {
    let name = names::shard(&cluster.name, ordinal);
    let mut shard_labels = common_labels(cluster, "postgres", "shard");
    shard_labels.insert(labels::INSTANCE.to_owned(), name.clone());
    shard_labels.insert(labels::SHARD.to_owned(), name.clone());
    OrderShard {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(cluster.namespace.clone()),
            labels: Some(shard_labels),
            owner_references: Some(vec![cluster.owner.clone()]),
            ..ObjectMeta::default()
        },
        spec: spec.clone(),
        status: None,
    }
}

/// Names of the cluster's Secrets.
pub(crate) fn secret_names(cluster: &str) -> Vec<String> {
    let mut names: Vec<String> = LOGINS.iter().map(|(login, _)| format!("{cluster}-{login}")).collect();
    names.push(names::system_secret(cluster));
    names
}

/// The cluster's Secrets: with the passwords they have, and new ones where there is none.
///
/// They have no owner: under deletion policy Retain they outlive the cluster.
pub(crate) fn secrets(
    cluster: &Cluster,
    found: &BTreeMap<String, Secret>,
    record: &Record,
    mut new_password: impl FnMut() -> String,
) -> Vec<Secret> {
    let mut secrets: Vec<Secret> = LOGINS
        .iter()
        .map(|(login, role)| {
            let name = format!("{}-{login}", cluster.name);
            let password = kept(found.get(&name), "password").unwrap_or_else(|| text(new_password()));
            let data = [("username", text(*role)), ("password", password)];
            secret(cluster, name, "kubernetes.io/basic-auth", data)
        })
        .collect();
    secrets.push(system_secret(
        cluster,
        found.get(&names::system_secret(&cluster.name)),
        record,
        new_password,
    ));
    secrets
}

/// The Secret with the superuser's and Patroni's passwords. It also carries what has to outlive ring and cluster.
pub(crate) fn system_secret(
    cluster: &Cluster,
    found: Option<&Secret>,
    record: &Record,
    mut new_password: impl FnMut() -> String,
) -> Secret {
    let patroni = ("patroni-username", text("patroni"));
    let passwords = SYSTEM_PASSWORDS.map(|key| {
        let password = kept(found, key).unwrap_or_else(|| text(new_password()));
        (key, password)
    });
    let mut secret = secret(
        cluster,
        names::system_secret(&cluster.name),
        "Opaque",
        passwords.into_iter().chain([patroni]),
    );
    secret.metadata.annotations = Some(record.annotations());
    secret
}

fn secret<'a>(
    cluster: &Cluster,
    name: String,
    type_: &str,
    data: impl IntoIterator<Item = (&'a str, ByteString)>,
) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(cluster.namespace.clone()),
            labels: Some(common_labels(cluster, "postgres", CREDENTIALS)),
            ..ObjectMeta::default()
        },
        type_: Some(type_.to_owned()),
        data: Some(data.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ..Secret::default()
    }
}

/// What a Secret has under a key, if it is not empty.
fn kept(secret: Option<&Secret>, key: &str) -> Option<ByteString> {
    secret?
        .data
        .as_ref()?
        .get(key)
        .filter(|value| !value.0.is_empty())
        .cloned()
}

fn text(value: impl Into<String>) -> ByteString {
    ByteString(value.into().into_bytes())
}

/// Labels and annotations of the ring's ConfigMap. It has no owner, as the Secrets have none.
pub(crate) fn ring_metadata(cluster: &Cluster, record: &Record) -> ObjectMeta {
    ObjectMeta {
        name: Some(names::ring(&cluster.name)),
        namespace: Some(cluster.namespace.clone()),
        labels: Some(common_labels(cluster, "ring", RING)),
        annotations: Some(record.ring_annotations()),
        ..ObjectMeta::default()
    }
}

/// The ring's ConfigMap in place of `live`, with the labels and annotations others gave it.
pub(crate) fn ring_config_map(metadata: ObjectMeta, live: Option<&ConfigMap>, ring: &Ring) -> ConfigMap {
    let EncodedRing {
        ring_json,
        tokens,
        digest,
    } = ring::encode(ring);
    let mut merged = live.map(|live| live.metadata.clone()).unwrap_or_default();
    merged.name = metadata.name;
    merged.namespace = metadata.namespace;
    merged.managed_fields = None;
    merged
        .labels
        .get_or_insert_default()
        .extend(metadata.labels.unwrap_or_default());
    merged
        .annotations
        .get_or_insert_default()
        .extend(metadata.annotations.unwrap_or_default());
    ConfigMap {
        metadata: merged,
        data: Some(BTreeMap::from([
            (RING_JSON.to_owned(), ring_json),
            (DIGEST.to_owned(), digest),
        ])),
        binary_data: Some(BTreeMap::from([(TOKENS.to_owned(), ByteString(tokens))])),
        immutable: None,
    }
}

/// The ring as a ConfigMap carries it; what is missing is empty, and does not decode.
pub(crate) fn encoded_ring(map: &ConfigMap) -> EncodedRing {
    let text = |key: &str| {
        map.data
            .as_ref()
            .and_then(|data| data.get(key))
            .cloned()
            .unwrap_or_default()
    };
    EncodedRing {
        ring_json: text(RING_JSON),
        digest: text(DIGEST),
        tokens: map
            .binary_data
            .as_ref()
            .and_then(|data| data.get(TOKENS))
            .map(|bytes| bytes.0.clone())
            .unwrap_or_default(),
    }
}

fn common_labels(cluster: &Cluster, name: &str, component: &str) -> BTreeMap<String, String> {
    BTreeMap::from(
        [
            (labels::NAME, name),
            (labels::INSTANCE, &cluster.name),
            (labels::COMPONENT, component),
            (labels::PART_OF, labels::PART_OF_RINGWRIGHT),
            (labels::MANAGED_BY, labels::MANAGED_BY_OPERATOR),
            (labels::CLUSTER, &cluster.name),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned())),
    )
}

#[cfg(test)]
#[path = "build_tests.rs"]
mod tests;
