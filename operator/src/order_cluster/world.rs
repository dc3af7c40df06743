//! A Kubernetes in memory with one cluster, its databases and an operator: where the scenarios take place.

use ring::Ring;
use serde_json::json;
use tokio::{
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    time::{sleep, timeout},
};

use super::{
    fake_api::FakeApi,
    fake_databases::FakeDatabases,
    rebalance::{Pauses, Standing, Tempo},
    *,
};

pub(super) const CLUSTER: &str = "/apis/ringwright.dev/v1alpha1/namespaces/ns/orderclusters/shop";
pub(super) const RING: &str = "/api/v1/namespaces/ns/configmaps/shop-ring";
pub(super) const SYSTEM: &str = "/api/v1/namespaces/ns/secrets/shop-postgres";

pub(super) fn shard_path(ordinal: u16) -> String {
    format!("/apis/ringwright.dev/v1alpha1/namespaces/ns/ordershards/shop-{ordinal}")
}

/// A Kubernetes with one cluster, its databases, and an operator that can be killed and started again.
pub(super) struct World {
    pub(super) api: FakeApi,
    pub(super) databases: FakeDatabases,
    pub(super) operator: Arc<Operator>,
    /// Reconciles that movers ask for.
    asked: UnboundedReceiver<ObjectRef<OrderCluster>>,
    publish_period: Duration,
}

impl World {
    pub(super) fn new(shards: u16) -> Self {
        Self::publishing_every(shards, Duration::from_millis(20))
    }

    /// One with a least time between two rings.
    pub(super) fn publishing_every(shards: u16, publish_period: Duration) -> Self {
        let (api, databases) = (FakeApi::default(), FakeDatabases::default());
        let (operator, asked) = operator(&api, &databases, publish_period);
        let world = Self {
            api,
            databases,
            operator,
            asked,
            publish_period,
        };
        world.create_cluster(shards, "Retain");
        world
    }

    pub(super) fn create_cluster(&self, shards: u16, deletion_policy: &str) {
        let cluster = json!({
            "apiVersion": "ringwright.dev/v1alpha1",
            "kind": "OrderCluster",
            "metadata": {"name": "shop", "namespace": "ns"},
            "spec": {
                "shards": shards,
                "deletionPolicy": deletion_policy,
                "postgres": {"storage": {"size": "1Gi"}},
            },
        });
        self.api.put(CLUSTER, cluster);
    }

    pub(super) fn restart_operator(&mut self) {
        (self.operator, self.asked) = operator(&self.api, &self.databases, self.publish_period);
    }

    /// What the controller of shards would do: databases come up, and those to be deleted go.
    pub(super) fn shards_act(&self) {
        for path in self.api.paths().iter().filter(|path| path.contains("/ordershards/")) {
            let name = path.rsplit('/').next().unwrap().to_owned();
            self.api.edit(path, |shard| {
                let generation = &shard["metadata"]["generation"];
                let condition = json!({
                    "type": "Ready", "status": "True", "reason": "Healthy", "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                });
                shard["status"] = json!({
                    "observedGeneration": generation, "conditions": [condition], "master": format!("{name}-0"),
                    "replicas": 1, "readyInstances": 2, "durability": "synchronous", "initialised": true,
                });
            });
        }
    }

    pub(super) async fn reconcile(&self) -> Result<Action, Error> {
        match self.api.get(CLUSTER) {
            Some(cluster) => {
                let cluster = serde_json::from_value(cluster).unwrap();
                reconcile(Arc::new(cluster), Arc::clone(&self.operator)).await
            }
            None => Ok(Action::await_change()),
        }
    }

    /// Reconciles until nothing is written any more and the mover has nothing to do. The writes of all passes.
    pub(super) async fn settle(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        for _ in 0..2_000 {
            self.shards_act();
            self.api.take_writes();
            while self.asked.try_recv().is_ok() {}
            let again = self.reconcile().await.unwrap();
            let writes = self.api.take_writes();
            let quiet = writes.is_empty();
            all.extend(writes);
            if !self.mover_rests().await {
                drop(timeout(Duration::from_millis(50), self.asked.recv()).await);
            } else if is_soon(&again) {
                sleep(self.publish_period).await;
            } else if quiet && self.asked.is_empty() {
                return all;
            }
        }
        panic!("it never settles: {all:?}");
    }

    /// Whether the mover has gone, or holds still in a round that it began after this was called.
    async fn mover_rests(&self) -> bool {
        let cluster = self.api.get(CLUSTER).unwrap_or_default();
        let told = || {
            let uid = cluster["metadata"]["uid"].as_str()?;
            self.operator.movers.told(uid)
        };
        let before = told().map_or(0, |(rounds, _)| rounds);
        for _ in 0..1_000 {
            sleep(Duration::from_millis(1)).await;
            match told() {
                None => return true,
                // The first round that it tells of may have begun before.
                Some((rounds, standing)) if rounds >= before + 2 => {
                    return matches!(standing, Standing::Waiting { .. } | Standing::Paused);
                }
                Some(_) => {}
            }
        }
        false
    }

    /// Changes the specification, as a person would.
    pub(super) fn specify(&self, change: impl FnOnce(&mut serde_json::Value)) {
        self.api.edit(CLUSTER, |cluster| change(&mut cluster["spec"]));
    }

    /// What the status says of the rebalance.
    pub(super) fn account(&self) -> crds::RebalanceStatus {
        let cluster = self.api.get(CLUSTER).unwrap();
        serde_json::from_value(cluster["status"]["rebalance"].clone()).unwrap_or_default()
    }

    pub(super) fn message(&self) -> String {
        let cluster = self.api.get(CLUSTER).unwrap();
        cluster["status"]["conditions"][0]["message"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    pub(super) fn ring(&self) -> Ring {
        let map = serde_json::from_value(self.api.get(RING).expect("a ring")).unwrap();
        ring::decode(&build::encoded_ring(&map)).unwrap()
    }

    pub(super) fn ready(&self) -> (String, String) {
        let cluster = self.api.get(CLUSTER).unwrap();
        let ready = &cluster["status"]["conditions"][0];
        assert_eq!(ready["type"], "Ready");
        (
            ready["status"].as_str().unwrap().to_owned(),
            ready["reason"].as_str().unwrap().to_owned(),
        )
    }

    pub(super) fn assert_ready(&self) {
        let ready = ("True".to_owned(), "AllShardsReady".to_owned());
        assert_eq!(self.ready(), ready, "{}", self.message());
    }

    pub(super) fn password(&self, secret: &str, key: &str) -> String {
        let secret = self
            .api
            .get(&format!("/api/v1/namespaces/ns/secrets/{secret}"))
            .unwrap();
        secret["data"][key].as_str().unwrap().to_owned()
    }
}

/// Whether a reconcile asks for the next after a part of a second, as it does while a ring waits for its time. (An action
/// can only be compared; all others are of whole seconds.)
fn is_soon(again: &Action) -> bool {
    let mut others = (0..=600).map(|seconds| Action::requeue(Duration::from_secs(seconds)));
    *again != Action::await_change() && others.all(|other| other != *again)
}

fn operator(
    api: &FakeApi,
    databases: &FakeDatabases,
    publish_period: Duration,
) -> (Arc<Operator>, UnboundedReceiver<ObjectRef<OrderCluster>>) {
    let context = Arc::new(api.context());
    let (ask, asked) = unbounded_channel();
    let quick = Duration::from_millis(1);
    let tempo = Tempo {
        show: Duration::ZERO,
        pauses: Pauses {
            working: quick,
            awaiting: quick,
            blocked: quick,
        },
    };
    let databases = Arc::new(databases.clone());
    let operator = Operator {
        movers: Movers::new(Arc::clone(&context), Arc::clone(&databases) as _, ask, tempo),
        context,
        books: databases,
        memory: Memory::publishing_every(publish_period),
    };
    (Arc::new(operator), asked)
}
