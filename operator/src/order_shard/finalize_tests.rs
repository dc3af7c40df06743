use serde_json::{from_value, json};

use super::super::members::{Consensus, Member};
use super::super::shard::tests::resource;
use super::*;
use crate::order_cluster::fake_api::FakeApi;

const CLUSTER: &str = "/apis/ringwright.dev/v1alpha1/namespaces/market/orderclusters/shop";
const SHARD: &str = "/apis/ringwright.dev/v1alpha1/namespaces/market/ordershards/shop-0";
const CLAIM: &str = "/api/v1/namespaces/market/persistentvolumeclaims/data-shop-0-0";
const POD: &str = "/api/v1/namespaces/market/pods/shop-0-0";

/// A shard with a volume, under deletion like its cluster.
struct World {
    api: FakeApi,
    context: Context,
}

impl World {
    fn of(policy_of_cluster: &str, policy_of_shard: &str) -> Self {
        let api = FakeApi::default();
        let cluster = json!({
            "apiVersion": "ringwright.dev/v1alpha1",
            "kind": "OrderCluster",
            "metadata": {"name": "shop", "namespace": "market", "finalizers": [labels::CLUSTER_FINALIZER]},
            "spec": {"shards": 1, "deletionPolicy": policy_of_cluster, "postgres": {"storage": {"size": "1Gi"}}},
        });
        api.put(CLUSTER, cluster);
        let mut shard = json!(resource(json!({"storage": {"size": "1Gi"}})));
        shard["metadata"]["finalizers"] = json!([labels::SHARD_FINALIZER]);
        shard["spec"]["deletionPolicy"] = json!(policy_of_shard);
        api.put(SHARD, shard);
        api.put(
            CLAIM,
            json!({"metadata": {"name": "data-shop-0-0", "namespace": "market"}}),
        );
        api.delete(CLUSTER);
        api.delete(SHARD);
        let context = api.context();
        Self { api, context }
    }

    /// One look, at which these members run, without a StatefulSet.
    async fn look(&self, members: Vec<Member>) -> Deletion {
        let shard: OrderShard = from_value(self.api.get(SHARD).expect("a shard")).expect("a shard");
        let claims = self.api.get(CLAIM).into_iter();
        let observed = Observed {
            stateful_set: None,
            members,
            claims: claims.map(|claim| from_value(claim).expect("a claim")).collect(),
            consensus: Consensus::default(),
        };
        let done = finalize(&self.context, &shard, &observed, None).await;
        done.expect("the API server answers")
    }
}

#[tokio::test]
async fn with_its_cluster_a_shard_goes_by_the_policy_of_the_cluster() {
    for (of_cluster, of_shard, kept) in [
        ("Retain", "Delete", true),
        ("Delete", "Retain", false),
        ("Retain", "Retain", true),
    ] {
        let world = World::of(of_cluster, of_shard);
        assert!(matches!(world.look(Vec::new()).await, Deletion::Done));
        assert!(world.api.get(SHARD).is_none());
        let found = world.api.get(CLAIM).is_some();
        assert_eq!(found, kept, "cluster {of_cluster}, shard {of_shard}");
    }
}

#[tokio::test]
async fn members_that_a_lost_stateful_set_left_behind_are_stopped_too() {
    let world = World::of("Retain", "Retain");
    world
        .api
        .put(POD, json!({"metadata": {"name": "shop-0-0", "namespace": "market"}}));
    let member = Member::ready("shop-0-0");
    assert!(matches!(world.look(vec![member]).await, Deletion::Stopping));
    assert!(world.api.get(POD).is_none());
    assert!(matches!(world.look(Vec::new()).await, Deletion::Done));
}
