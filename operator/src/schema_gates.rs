//! Migrations and moves keep out of each other's way.
//!
//! A subscription needs the same columns on both sides, so no migration is begun on a shard that takes part in a move, and
//! no copy between shards whose schemas differ. Both look first and act then; so that nothing comes in between, each does it
//! under the gate of the shards concerned. Both are done by the one process that leads, so a gate is a lock in it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::OwnedMutexGuard;

/// One gate a shard, by namespace and name.
#[derive(Debug, Default)]
pub(crate) struct SchemaGates(Mutex<HashMap<(String, String), Gate>>);

type Gate = Arc<tokio::sync::Mutex<()>>;

/// Holds a gate shut for others until it is dropped.
pub(crate) type Passage = OwnedMutexGuard<()>;

impl SchemaGates {
    /// Passes one shard's gate alone.
    pub(crate) async fn pass(&self, namespace: &str, shard: &str) -> Passage {
        self.gate(namespace, shard).lock_owned().await
    }

    /// Passes the gates of two shards, always in the same order, so that nobody waits in a circle.
    pub(crate) async fn pass_both(&self, namespace: &str, shards: [&str; 2]) -> Vec<Passage> {
        let mut shards = shards.to_vec();
        shards.sort_unstable();
        shards.dedup();
        let mut passages = Vec::with_capacity(shards.len());
        for shard in shards {
            passages.push(self.pass(namespace, shard).await);
        }
        passages
    }

    fn gate(&self, namespace: &str, shard: &str) -> Gate {
        let mut gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Gates nobody holds are forgotten, so that shards that have gone take no place.
        gates.retain(|_, gate| Arc::strong_count(gate) > 1);
        Arc::clone(gates.entry((namespace.to_owned(), shard.to_owned())).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_gate_is_passed_by_one_at_a_time_and_others_do_not_matter() {
        let gates = SchemaGates::default();
        let both = gates.pass_both("ns", ["shop-1", "shop-0"]).await;
        assert_eq!(both.len(), 2);
        drop(gates.pass("ns", "shop-2").await);
        assert!(gates.gate("ns", "shop-0").try_lock().is_err());
        drop(both);
        drop(gates.pass("ns", "shop-0").await);
    }

    #[tokio::test]
    async fn passing_one_gate_twice_at_once_is_passing_it_once() {
        let gates = SchemaGates::default();
        assert_eq!(gates.pass_both("ns", ["shop-0", "shop-0"]).await.len(), 1);
    }
}
