//! What the tests of this controller begin with.

use crds::OrderCluster;
use serde_json::json;

use super::validate::Cluster;

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
