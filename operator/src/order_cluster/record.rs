//! What the operator must never forget about a cluster, kept in several places so that losing one loses nothing.
//!
//! * the lasting id of its data: on the system Secret, the ring and each shard;
//! * the highest epoch a ring ever had: on the system Secret, in the ring and in the status;
//! * the ordinals that share the keys, or are about to: on the system Secret and in the ring;
//! * the highest ordinal a shard ever had: on the system Secret and the ring, and never below one that is in use.

use std::collections::BTreeMap;

use crds::{OrderCluster, OrderShard, labels};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::ResourceExt;
use ring::{Epoch, Ring};

use super::roster::Roster;

/// What is remembered of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Lasting id of the cluster's data.
    pub(crate) data_id: String,
    /// The highest epoch a ring may have been published with. `None`: there never was one.
    pub(crate) epoch: Option<Epoch>,
    /// The shards that own keys or are about to. `None`: nobody does yet.
    pub(crate) roster: Option<Roster>,
    /// The highest ordinal a shard may ever have had: none of them is given to another shard.
    pub(crate) highest: Option<u16>,
}

/// Where a record is read from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sources<'a> {
    pub(crate) cluster: &'a OrderCluster,
    pub(crate) system_secret: Option<&'a Secret>,
    pub(crate) ring_map: Option<&'a ConfigMap>,
    /// The ring in `ring_map`, if it is intact.
    pub(crate) ring: Option<&'a Ring>,
    pub(crate) shards: &'a [OrderShard],
}

impl Record {
    /// Puts the record together. A cluster without any past has its own uid as the id of its data.
    pub(crate) fn recall(from: Sources<'_>) -> Self {
        let on_secret = |key: &str| from.system_secret.and_then(|secret| secret.annotations().get(key));
        let on_ring = |key: &str| from.ring_map.and_then(|map| map.annotations().get(key));
        let uid = from.cluster.uid().unwrap_or_default();
        let data_id = on_secret(labels::DATA_ID)
            .or_else(|| on_ring(labels::DATA_ID))
            .or_else(|| from.shards.iter().map(|shard| &shard.spec.data_id).next())
            .unwrap_or(&uid);
        let reported = from.cluster.status.as_ref().and_then(|status| status.ring_epoch);
        let epochs = [
            on_secret(labels::RING_EPOCH)
                .and_then(|text| text.parse().ok())
                .map(Epoch),
            from.ring.map(Ring::epoch),
            reported.and_then(|epoch| u64::try_from(epoch).ok()).map(Epoch),
        ];
        let roster = on_secret(labels::ROSTER)
            .and_then(|text| text.parse().ok())
            .or_else(|| {
                from.ring
                    .map(|ring| ring.shards().iter().map(|shard| shard.ordinal.get()).collect())
            });
        let written = |text: Option<&String>| text.and_then(|text| text.parse::<u16>().ok());
        let own = |shard: &&OrderShard| shard.owner_references().iter().any(|owner| owner.uid == uid);
        let in_use = from.shards.iter().filter(own);
        let in_use = in_use.filter_map(|shard| u16::try_from(shard.spec.ordinal).ok());
        let highest = [
            written(on_secret(labels::HIGHEST_ORDINAL)),
            written(on_ring(labels::HIGHEST_ORDINAL)),
            roster.as_ref().and_then(Roster::highest),
            from.ring
                .and_then(|ring| ring.shards().iter().map(|shard| shard.ordinal.get()).max()),
        ];
        Self {
            data_id: data_id.clone(),
            epoch: epochs.into_iter().flatten().max(),
            highest: highest.into_iter().flatten().chain(in_use).max(),
            roster,
        }
    }

    /// As annotations of the ring.
    pub(crate) fn ring_annotations(&self) -> BTreeMap<String, String> {
        let mut annotations = BTreeMap::from([(labels::DATA_ID.to_owned(), self.data_id.clone())]);
        annotations.extend(self.highest_annotation());
        annotations
    }

    fn highest_annotation(&self) -> Option<(String, String)> {
        Some((labels::HIGHEST_ORDINAL.to_owned(), self.highest?.to_string()))
    }

    /// As annotations of the system Secret.
    pub(crate) fn annotations(&self) -> BTreeMap<String, String> {
        let mut annotations = BTreeMap::from([(labels::DATA_ID.to_owned(), self.data_id.clone())]);
        if let Some(epoch) = self.epoch {
            annotations.insert(labels::RING_EPOCH.to_owned(), epoch.to_string());
        }
        if let Some(roster) = &self.roster {
            annotations.insert(labels::ROSTER.to_owned(), roster.to_string());
        }
        annotations.extend(self.highest_annotation());
        annotations
    }
}
