//! The ConfigMaps in whose annotations Patroni keeps its state.
//!
//! They are made beforehand and empty, so that a pod's Role needs no `create`. Server-side apply owns only what is
//! listed here: labels, owner, and of the annotations `config` alone (and `initialize`, once known). Whatever Patroni
//! writes beside them (leader, optime, sync_standby, history, failover) is never part of an apply, so it is never
//! taken over or wiped.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::labels::{self, component, names};
use super::patroni;
use crate::order_shard::shard::Shard;

/// Dynamic configuration, `initialize` (the system identifier) and the timeline's history.
pub(crate) const CONFIG: &str = "config";
/// Who is master, since when, and the failsafe list.
pub(crate) const LEADER: &str = "leader";
/// A switchover under way.
pub(crate) const FAILOVER: &str = "failover";
/// Which members have every acknowledged commit.
pub(crate) const SYNC: &str = "sync";

/// All of them; a pod's Role names them.
pub(super) const ALL: [&str; 4] = [CONFIG, LEADER, FAILOVER, SYNC];

/// Annotation with the dynamic configuration.
pub(crate) const CONFIG_ANNOTATION: &str = "config";
/// Annotation with the system identifier. Present, it forbids a member with an empty volume to start a new database.
pub(crate) const INITIALIZE_ANNOTATION: &str = "initialize";
/// Annotation in which the master tells which timelines were left, and where.
pub(crate) const HISTORY_ANNOTATION: &str = "history";

pub(super) fn config_maps(shard: &Shard) -> Vec<ConfigMap> {
    ALL.map(|key| ConfigMap {
        metadata: metadata(shard, key),
        ..ConfigMap::default()
    })
    .into()
}

fn metadata(shard: &Shard, key: &str) -> ObjectMeta {
    let name = names::dcs(&shard.name, key);
    // Kept volumes need both when they are adopted: `config` knows the system identifier, so no empty volume starts a
    // new database beside the old one; `sync` knows which of the volumes has every acknowledged commit.
    let outlives = shard.keep_data && matches!(key, CONFIG | SYNC);
    let mut metadata = if outlives {
        labels::kept(shard, name, component::SHARD)
    } else {
        labels::owned(shard, name, component::SHARD)
    };
    if key == CONFIG {
        let mut annotations = BTreeMap::from([(CONFIG_ANNOTATION.to_owned(), patroni::dynamic(shard))]);
        if let Some(identifier) = &shard.system_identifier {
            annotations.insert(INITIALIZE_ANNOTATION.to_owned(), identifier.clone());
        }
        metadata.annotations = Some(annotations);
    }
    metadata
}
