//! Names, labels and metadata of a shard's objects.

use std::collections::BTreeMap;

use crds::labels;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use crate::order_shard::shard::Shard;

/// Label values of [`labels::COMPONENT`].
pub(crate) mod component {
    /// Pods, Services and Patroni's own ConfigMaps: Patroni lists the ConfigMaps and pods that carry it.
    pub(crate) const SHARD: &str = "shard";
    /// Files mounted into the pods; not `shard`, so that Patroni does not take the ConfigMap for one of its own.
    pub(crate) const CONFIGURATION: &str = "shard-configuration";
}

/// Names derived from a shard's.
pub(crate) mod names {
    /// Service of the master.
    pub(crate) fn read_write(shard: &str) -> String {
        format!("{shard}-rw")
    }
    /// Service of the replicas.
    pub(crate) fn read_only(shard: &str) -> String {
        format!("{shard}-ro")
    }
    /// ConfigMap and Secret with the files mounted at `/etc/patroni`.
    pub(crate) fn files(shard: &str) -> String {
        format!("{shard}-patroni")
    }
    /// One of the ConfigMaps in whose annotations Patroni keeps its state.
    pub(crate) fn dcs(shard: &str, key: &str) -> String {
        format!("{shard}-{key}")
    }
    /// A member's volume, as the StatefulSet's controller names it.
    pub(crate) fn volume_claim(member: &str) -> String {
        format!("data-{member}")
    }
    /// A physical replication slot, as Patroni names it after a member.
    pub(crate) fn slot(member: &str) -> String {
        member.replace('-', "_")
    }
}

/// Labels of an object of `shard` that plays the part `component`.
pub(crate) fn of(shard: &Shard, component: &str) -> BTreeMap<String, String> {
    BTreeMap::from(
        [
            (labels::NAME, "postgres"),
            (labels::INSTANCE, &shard.name),
            (labels::COMPONENT, component),
            (labels::PART_OF, labels::PART_OF_RINGWRIGHT),
            (labels::MANAGED_BY, labels::MANAGED_BY_OPERATOR),
            (labels::CLUSTER, &shard.cluster),
            (labels::SHARD, &shard.name),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned())),
    )
}

/// Labels that select the shard's pods; they never change over its life.
pub(crate) fn selector(shard: &Shard) -> BTreeMap<String, String> {
    BTreeMap::from(
        [
            (labels::COMPONENT, component::SHARD),
            (labels::CLUSTER, &shard.cluster),
            (labels::SHARD, &shard.name),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned())),
    )
}

/// [`selector`] as the API wants it in most places.
pub(crate) fn label_selector(labels: BTreeMap<String, String>) -> LabelSelector {
    LabelSelector {
        match_labels: Some(labels),
        ..LabelSelector::default()
    }
}

/// Metadata of a child that goes with the shard.
pub(crate) fn owned(shard: &Shard, name: String, component: &str) -> ObjectMeta {
    ObjectMeta {
        owner_references: Some(vec![shard.owner.clone()]),
        ..kept(shard, name, component)
    }
}

/// Metadata of a child that outlives the shard.
pub(crate) fn kept(shard: &Shard, name: String, component: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(shard.namespace.clone()),
        labels: Some(of(shard, component)),
        ..ObjectMeta::default()
    }
}
