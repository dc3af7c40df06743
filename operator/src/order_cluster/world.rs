//! A Kubernetes in memory with one cluster, its databases and an operator: where the scenarios take place.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
};

use async_trait::async_trait;
use clap::Parser;
use prometheus_client::registry::Registry;
use ring::{Generation, Range, Ring};
use serde_json::json;
use store::admin::{AdminError, OwnedRange, RangeState};

use super::{books::Keeper, fake_api::FakeApi, *};
use crate::{config::Config, metrics::Metrics};

pub(super) const CLUSTER: &str = "/apis/ringwright.dev/v1alpha1/namespaces/ns/orderclusters/shop";
pub(super) const RING: &str = "/api/v1/namespaces/ns/configmaps/shop-ring";
pub(super) const SYSTEM: &str = "/api/v1/namespaces/ns/secrets/shop-postgres";

pub(super) fn shard_path(ordinal: u16) -> String {
    format!("/apis/ringwright.dev/v1alpha1/namespaces/ns/ordershards/shop-{ordinal}")
}

/// The databases: each shard's book, by the shard's name.
#[derive(Clone, Debug, Default)]
pub(super) struct FakeBooks(pub(super) Arc<Mutex<BTreeMap<String, Vec<OwnedRange>>>>);

#[async_trait]
impl Books for FakeBooks {
    async fn read(&self, keeper: &Keeper) -> Result<Vec<OwnedRange>, BookError> {
        Ok(self.0.lock().unwrap().get(&keeper.shard).cloned().unwrap_or_default())
    }

    async fn claim(&self, keeper: &Keeper, ranges: &[Range]) -> Result<(), BookError> {
        let mut books = self.0.lock().unwrap();
        let book = books.entry(keeper.shard.clone()).or_default();
        let have: BTreeSet<Range> = book.iter().map(|row| row.range).collect();
        let wanted: BTreeSet<Range> = ranges.iter().copied().collect();
        if !have.is_empty() && have != wanted {
            let source = AdminError::AlreadyOwns {
                existing: have.len(),
                wanted: wanted.len(),
            };
            return Err(BookError::Database {
                shard: keeper.shard.clone(),
                source,
            });
        }
        *book = wanted
            .into_iter()
            .enumerate()
            .map(|(id, range)| owned(id, range))
            .collect();
        Ok(())
    }
}

fn owned(id: usize, range: Range) -> OwnedRange {
    let range_id = i64::try_from(id).unwrap();
    OwnedRange {
        range_id,
        range,
        generation: Generation(1),
        state: RangeState::Owned,
        target: None,
    }
}

/// A Kubernetes with one cluster, its databases, and an operator that can be killed and started again.
pub(super) struct World {
    pub(super) api: FakeApi,
    pub(super) books: FakeBooks,
    pub(super) operator: Arc<Operator>,
}

impl World {
    pub(super) fn new(shards: u16) -> Self {
        let (api, books) = (FakeApi::default(), FakeBooks::default());
        let operator = operator(&api, &books);
        let world = Self { api, books, operator };
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
        self.operator = operator(&self.api, &self.books);
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

    /// Reconciles until nothing is written any more. The writes of all passes.
    pub(super) async fn settle(&self) -> Vec<String> {
        let mut all = Vec::new();
        for _ in 0..10 {
            self.shards_act();
            self.api.take_writes();
            self.reconcile().await.unwrap();
            let writes = self.api.take_writes();
            if writes.is_empty() {
                return all;
            }
            all.extend(writes);
        }
        panic!("it never settles: {all:?}");
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
        assert_eq!(self.ready(), ("True".to_owned(), "AllShardsReady".to_owned()));
    }

    pub(super) fn password(&self, secret: &str, key: &str) -> String {
        let secret = self
            .api
            .get(&format!("/api/v1/namespaces/ns/secrets/{secret}"))
            .unwrap();
        secret["data"][key].as_str().unwrap().to_owned()
    }
}

fn operator(api: &FakeApi, books: &FakeBooks) -> Arc<Operator> {
    let metrics = Metrics::register(&mut Registry::default());
    let context = Context::new(api.client(), Config::parse_from(["operator"]), metrics);
    Arc::new(Operator {
        context: Arc::new(context),
        books: Box::new(books.clone()),
        memory: Memory::default(),
    })
}
