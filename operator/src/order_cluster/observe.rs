//! What there is of a cluster.

use std::collections::{BTreeMap, BTreeSet};

use crds::{OrderCluster, OrderShard};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Resource, ResourceExt, api::ListParams};
use ring::{DecodeError, Ordinal, Ring};

use super::{
    build, names,
    plan::{self, Known},
    record::{Record, Sources},
    validate::Cluster,
};
use crate::context::Context;

/// Everything a reconcile decides from, read at its start.
#[derive(Debug)]
pub(crate) struct Observed {
    /// The cluster's shards, by ordinal.
    pub(crate) shards: BTreeMap<u16, OrderShard>,
    /// Resources that say they are shards of this cluster and that the operator did not make.
    pub(crate) foreign: Vec<OrderShard>,
    /// The cluster's Secrets that exist, by name.
    pub(crate) secrets: BTreeMap<String, Secret>,
    pub(crate) ring: PublishedRing,
    pub(crate) record: Record,
}

/// The ring's ConfigMap as it is.
#[derive(Debug)]
pub(crate) struct PublishedRing {
    pub(crate) map: Option<ConfigMap>,
    /// `None` where there is no ConfigMap.
    pub(crate) ring: Option<Result<Ring, DecodeError>>,
}

impl Observed {
    /// Whether a shard's database has never been set up and the newest ring does not know it either. It holds nothing then,
    /// for keys come to a shard only after a ring has listed it.
    pub(crate) fn is_newcomer(&self, ordinal: u16, shard: &OrderShard) -> bool {
        if plan::shard_is_initialised(shard) {
            return false;
        }
        self.newest_ring()
            .is_some_and(|ring| ring.shards().iter().all(|one| one.ordinal != Ordinal(ordinal)))
    }

    /// The published ring, if it can be read and is not an older one that somebody put back.
    pub(crate) fn newest_ring(&self) -> Option<&Ring> {
        let is_newest = |ring: &&Ring| self.record.epoch.is_some_and(|known| ring.epoch() >= known);
        self.ring.intact().filter(is_newest)
    }

    /// What planning starts from. `empty` are leaving shards that were found to hold nothing any more.
    pub(crate) fn known<'a>(&'a self, empty: &'a BTreeSet<u16>) -> Known<'a> {
        Known {
            shards: &self.shards,
            foreign: &self.foreign,
            roster: self.record.roster.as_ref(),
            published: self.record.epoch.is_some(),
            highest: self.record.highest,
            empty,
            data_id: &self.record.data_id,
        }
    }
}

impl PublishedRing {
    pub(crate) fn of(map: Option<ConfigMap>) -> Self {
        let ring = map.as_ref().map(|map| ring::decode(&build::encoded_ring(map)));
        Self { map, ring }
    }

    /// The ring, if the ConfigMap is there and undamaged.
    pub(crate) fn intact(&self) -> Option<&Ring> {
        self.ring.as_ref()?.as_ref().ok()
    }

    /// What is wrong with the ConfigMap that is there.
    pub(crate) fn damage(&self) -> Option<&DecodeError> {
        self.ring.as_ref()?.as_ref().err()
    }
}

/// Reads everything.
pub(crate) async fn observe(
    context: &Context,
    resource: &OrderCluster,
    cluster: &Cluster,
) -> Result<Observed, kube::Error> {
    let maps = context.api::<ConfigMap>(&cluster.namespace);
    let (found, secrets, map) = tokio::try_join!(shards_of(context, cluster), secrets_of(context, cluster), async {
        maps.get_opt(&names::ring(&cluster.name)).await
    })?;
    let ring = PublishedRing::of(map);
    let record = Record::recall(Sources {
        cluster: resource,
        system_secret: secrets.get(&names::system_secret(&cluster.name)),
        ring_map: ring.map.as_ref(),
        ring: ring.intact(),
        shards: &found,
    });
    let (mine, foreign): (Vec<_>, Vec<_>) = found.into_iter().partition(|shard| belongs(shard, cluster, &record));
    let shards = mine
        .into_iter()
        .filter_map(|shard| Some((ordinal_of(&shard)?, shard)))
        .collect();
    Ok(Observed {
        shards,
        foreign,
        secrets,
        ring,
        record,
    })
}

/// Every resource that says it is a shard of the cluster, labelled or not.
pub(crate) async fn shards_of(context: &Context, cluster: &Cluster) -> Result<Vec<OrderShard>, kube::Error> {
    let selected = ListParams::default().fields(&format!("spec.cluster={}", cluster.name));
    Ok(context
        .api::<OrderShard>(&cluster.namespace)
        .list(&selected)
        .await?
        .items)
}

async fn secrets_of(context: &Context, cluster: &Cluster) -> Result<BTreeMap<String, Secret>, kube::Error> {
    let api = context.api::<Secret>(&cluster.namespace);
    let mut secrets = BTreeMap::new();
    for name in build::secret_names(&cluster.name) {
        // By name: one whose labels were taken off by hand is still the cluster's.
        if let Some(secret) = api.get_opt(&name).await? {
            secrets.insert(name, secret);
        }
    }
    Ok(secrets)
}

pub(crate) fn ordinal_of(shard: &OrderShard) -> Option<u16> {
    u16::try_from(shard.spec.ordinal).ok()
}

/// Whether the shard is this cluster's: made for it, or without an owner and in a place it needs.
fn belongs(shard: &OrderShard, cluster: &Cluster, record: &Record) -> bool {
    let Some(ordinal) = ordinal_of(shard) else { return false };
    if shard.name_any() != names::shard(&cluster.name, ordinal) {
        return false;
    }
    let owners = shard.meta().owner_references.iter().flatten();
    match owners.into_iter().find(|owner| owner.controller == Some(true)) {
        Some(owner) => owner.uid == cluster.uid,
        None => match &record.roster {
            Some(roster) => roster.contains(ordinal),
            None => ordinal < cluster.shards,
        },
    }
}
