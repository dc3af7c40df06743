//! What the mover of a cluster is to bring about, and with whom.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU64,
    time::Duration,
};

use crds::{Durability, OrderShard};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::ResourceExt;
use moves::Wish;
use ring::{Ordinal, Weight};

use crate::{
    order_cluster::{
        masters::Keeper,
        plan::{Plan, shard_is_ready},
        publish,
        validate::Cluster,
    },
    order_shard::quantity,
};

/// `spec.rebalance`, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// How many moves copy at the same time.
    pub(crate) max_parallel: usize,
    /// The longest freeze of a batch.
    pub(crate) max_pause: Duration,
    /// Rows a move may hand over, and a shard delete, in a second; `None` is without limit.
    pub(crate) rows_per_second: Option<NonZeroU64>,
    pub(crate) paused: bool,
}

/// Whether the rebalance is to be given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Abort {
    /// No.
    #[default]
    No,
    /// A person asks for it by the annotation, and was first seen to under this generation of the specification. (An
    /// operator that starts in the middle takes the one it finds.)
    Requested { generation: i64 },
    /// It was, and the specification has not changed since.
    Held,
}

impl Abort {
    /// What is asked for after `before`: a request that still stands is about the specification it was made for, however
    /// that has changed since.
    pub(crate) fn after(self, before: Self) -> Self {
        match (self, before) {
            (Self::Requested { .. }, Self::Requested { .. }) => before,
            _ => self,
        }
    }
}

/// One look's worth of orders; the newest count.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Orders {
    pub(crate) namespace: String,
    pub(crate) cluster: String,
    /// For events.
    pub(crate) reference: ObjectReference,
    /// The generation of the specification they come from.
    pub(crate) generation: i64,
    /// Who shall own keys, and how much.
    pub(crate) owners: BTreeMap<Ordinal, Weight>,
    /// Who is to go when it holds nothing any more.
    pub(crate) leaving: BTreeSet<Ordinal>,
    /// Every shard of the cluster.
    pub(crate) shards: BTreeMap<Ordinal, Party>,
    /// The shards that the published ring lists.
    pub(crate) listed: BTreeSet<Ordinal>,
    pub(crate) settings: Settings,
    pub(crate) abort: Abort,
}

/// A shard, as far as moves are concerned.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Party {
    /// Its name.
    pub(crate) name: String,
    /// Its master, or why there is none to speak of.
    pub(crate) keeper: Result<Keeper, String>,
    /// Whether it is as its resource asks.
    pub(crate) ready: bool,
    pub(crate) schema_version: Option<i64>,
    /// Size of its volumes.
    pub(crate) volume_bytes: Option<u64>,
    /// Whether it accepts no write without a standby.
    pub(crate) strict: bool,
}

impl Orders {
    /// Puts the orders together.
    pub(crate) fn of(
        cluster: &Cluster,
        plan: &Plan,
        shards: &BTreeMap<u16, OrderShard>,
        listed: &BTreeSet<Ordinal>,
        aborted_generation: Option<i64>,
    ) -> Self {
        let abort = match cluster.abort {
            true => Abort::Requested {
                generation: cluster.generation,
            },
            false if aborted_generation == Some(cluster.generation) => Abort::Held,
            false => Abort::No,
        };
        Self {
            namespace: cluster.namespace.clone(),
            cluster: cluster.name.clone(),
            reference: cluster.reference.clone(),
            generation: cluster.generation,
            owners: plan.owners.clone(),
            leaving: plan.leaving(),
            shards: shards
                .iter()
                .map(|(ordinal, shard)| (Ordinal(*ordinal), Party::of(cluster, shard)))
                .collect(),
            listed: listed.clone(),
            settings: cluster.rebalance,
            abort,
        }
    }

    /// As the planner of moves wants it.
    pub(crate) fn wish(&self) -> Wish {
        // A move begins only between shards that the ring lists, so that no other can know of one.
        let known = self.shards.keys().filter(|ordinal| self.listed.contains(*ordinal));
        Wish {
            shards: known.copied().collect(),
            may_own: self.owners.clone(),
            max_parallel: self.settings.max_parallel,
            paused: self.settings.paused,
            abort: self.abort != Abort::No,
            strict: self.strict(),
        }
    }

    fn strict(&self) -> BTreeSet<Ordinal> {
        let strict = self.shards.iter().filter(|(_, party)| party.strict);
        strict.map(|(ordinal, _)| *ordinal).collect()
    }

    /// Whether these ask for something else than `other` does: other shards, or to go on or to hold.
    pub(crate) fn ask_else_than(&self, other: &Self) -> bool {
        (&self.owners, &self.leaving, self.settings.paused, self.abort)
            != (&other.owners, &other.leaving, other.settings.paused, other.abort)
    }
}

impl Party {
    fn of(cluster: &Cluster, shard: &OrderShard) -> Self {
        let name = shard.name_any();
        let postgres = &shard.spec.postgres;
        Self {
            keeper: publish::keeper(cluster, shard),
            ready: shard_is_ready(shard),
            schema_version: shard.status.as_ref().and_then(|status| status.schema_version),
            volume_bytes: quantity::bytes(&postgres.storage.size).ok(),
            strict: postgres.durability == Durability::Required,
            name,
        }
    }
}
