//! What the tests of this controller begin with.

use std::collections::{BTreeMap, BTreeSet};

use crds::{OrderCluster, OrderShard};
use serde_json::json;

use super::{plan::Known, roster::Roster, validate::Cluster};

/// A cluster named `shop` in namespace `ns`, as the API server would give it.
pub(crate) fn resource(shards: u16) -> OrderCluster {
    serde_json::from_value(json!({
        "apiVersion": "ringwright.dev/v1alpha1",
        "kind": "OrderCluster",
        "metadata": {"name": "shop", "namespace": "ns", "uid": "uid-of-shop", "generation": 1},
        "spec": {"shards": shards, "postgres": {"storage": {"size": "1Gi"}}},
    }))
    .unwrap()
}

/// The same, checked.
pub(crate) fn cluster(shards: u16) -> Cluster {
    Cluster::parse(&resource(shards), "registry.test/postgres:1").unwrap()
}

static NONE: BTreeSet<u16> = BTreeSet::new();

/// What planning starts from; with a roster the keys have been spread and a ring was published.
pub(crate) fn known<'a>(shards: &'a BTreeMap<u16, OrderShard>, roster: Option<&'a Roster>) -> Known<'a> {
    Known {
        shards,
        foreign: &[],
        roster,
        published: roster.is_some(),
        highest: roster.and_then(Roster::highest),
        empty: &NONE,
        data_id: "data",
    }
}
