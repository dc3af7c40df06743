//! From the resource as it came to a cluster that can be planned.
//!
//! The API server has checked all of this by the resource's schema; it is checked again because a definition of an older
//! version may be installed.

use std::{collections::BTreeMap, num::NonZeroU64, time::Duration};

use crds::{DeletionPolicy, MAX_CLUSTER_NAME, MAX_SHARDS, OrderCluster, Postgres, ShardOverride, labels};
use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{Resource, ResourceExt};

use super::rebalance::Settings;

/// A cluster whose specification makes sense.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) uid: String,
    pub(crate) owner: OwnerReference,
    /// For events.
    pub(crate) reference: ObjectReference,
    /// How many shards are asked for.
    pub(crate) shards: u16,
    pub(crate) deletion_policy: DeletionPolicy,
    pub(crate) postgres: Postgres,
    pub(crate) overrides: BTreeMap<u16, ShardOverride>,
    pub(crate) max_unavailable: usize,
    pub(crate) rebalance: Settings,
    /// Whether a person asked to abort the rebalance.
    pub(crate) abort: bool,
    /// The generation of the specification.
    pub(crate) generation: i64,
}

/// Why a specification cannot be carried out.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum InvalidCluster {
    #[error("the resource has no {0}: it does not come from the API server")]
    Incomplete(&'static str),
    #[error(
        "the name {0} is not one: it begins with a letter, has at most {MAX_CLUSTER_NAME} characters of a-z, 0-9 and -, and does not end in -<number>"
    )]
    Name(String),
    #[error("spec.{field} is {value}, which is not between {low} and {high}")]
    OutOfRange {
        field: &'static str,
        value: i32,
        low: i32,
        high: i32,
    },
    #[error("spec.shardOverrides names ordinal {0} twice")]
    DuplicateOverride(u16),
    #[error("spec.rebalance.maxPause is `{0}`: write a time such as 100ms, between 10ms and 5s")]
    MaxPause(String),
}

impl Cluster {
    /// Checks the specification. `default_image` stands in for a missing one here and not in the shard's controller, so that
    /// an operator with another default changes the shards one after the other, as any change of the specification does.
    pub(crate) fn parse(resource: &OrderCluster, default_image: &str) -> Result<Self, InvalidCluster> {
        let spec = &resource.spec;
        let mut postgres = spec.postgres.clone();
        postgres.image.get_or_insert_with(|| default_image.to_owned());
        let name = resource.name_any();
        if !is_valid_name(&name) {
            return Err(InvalidCluster::Name(name));
        }
        let mut overrides = BTreeMap::new();
        for one in &spec.shard_overrides {
            let ordinal = number("shardOverrides[].ordinal", one.ordinal, 0, i32::from(u16::MAX))?;
            number("shardOverrides[].weight", one.weight, 1, 100)?;
            if overrides.insert(ordinal, one.clone()).is_some() {
                return Err(InvalidCluster::DuplicateOverride(ordinal));
            }
        }
        let max_unavailable = number(
            "rollout.maxUnavailableShards",
            spec.rollout.max_unavailable_shards,
            1,
            MAX_SHARDS,
        )?;
        Ok(Self {
            namespace: resource.namespace().ok_or(InvalidCluster::Incomplete("namespace"))?,
            uid: resource.uid().ok_or(InvalidCluster::Incomplete("uid"))?,
            owner: resource
                .controller_owner_ref(&())
                .ok_or(InvalidCluster::Incomplete("uid"))?,
            reference: resource.object_ref(&()),
            shards: number("shards", spec.shards, 1, MAX_SHARDS)?,
            deletion_policy: spec.deletion_policy,
            postgres,
            overrides,
            max_unavailable: max_unavailable.into(),
            rebalance: settings(&spec.rebalance)?,
            abort: resource.annotations().contains_key(labels::ABORT_REBALANCE),
            generation: resource.metadata.generation.unwrap_or_default(),
            name,
        })
    }
}

fn settings(spec: &crds::Rebalance) -> Result<Settings, InvalidCluster> {
    let max_parallel = number("rebalance.maxParallelMoves", spec.max_parallel_moves, 1, 64)?;
    Ok(Settings {
        max_parallel: max_parallel.into(),
        max_pause: pause(&spec.max_pause).ok_or_else(|| InvalidCluster::MaxPause(spec.max_pause.clone()))?,
        rows_per_second: u64::try_from(spec.copy_rows_per_second).ok().and_then(NonZeroU64::new),
        paused: spec.paused,
    })
}

/// A time of whole milliseconds or seconds, between 10 ms and 5 s.
fn pause(text: &str) -> Option<Duration> {
    let pause = match text.strip_suffix("ms") {
        Some(number) => Duration::from_millis(number.parse().ok()?),
        None => Duration::from_secs(text.strip_suffix('s')?.parse().ok()?),
    };
    let (least, most) = (Duration::from_millis(10), Duration::from_secs(5));
    // One that was accepted when more was allowed must not stop the moves that are under way.
    (least <= pause).then_some(pause.min(most))
}

fn number(field: &'static str, value: i32, low: i32, high: i32) -> Result<u16, InvalidCluster> {
    u16::try_from(value)
        .ok()
        .filter(|_| (low..=high).contains(&value))
        .ok_or(InvalidCluster::OutOfRange {
            field,
            value,
            low,
            high,
        })
}

fn is_valid_name(name: &str) -> bool {
    let plain = name
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let like_a_shard = name
        .rsplit_once('-')
        .is_some_and(|(_, last)| !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()));
    plain
        && name.len() <= MAX_CLUSTER_NAME
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && !like_a_shard
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_times_between_10_ms_and_5_s() {
        assert_eq!(pause("100ms"), Some(Duration::from_millis(100)));
        assert_eq!(pause("2s"), Some(Duration::from_secs(2)));
        assert_eq!(pause("10s"), Some(Duration::from_secs(5)), "as much as there can be");
        for text in ["", "ms", "5ms", "1m", "0.1s", "-1s", "100"] {
            assert_eq!(pause(text), None, "{text}");
        }
    }

    #[test]
    fn names_from_which_others_can_be_made_are_accepted() {
        for name in [
            "shop",
            "a",
            "shop-eu",
            "shop2",
            "shop-2a",
            "a2345678901234567890123456789012345678-0z",
        ] {
            assert_eq!(is_valid_name(name), name.len() <= 40, "{name}");
        }
        for name in ["", "2shop", "-shop", "shop-", "Shop", "shop_eu", "shop-2", "shop.eu"] {
            assert!(!is_valid_name(name), "{name}");
        }
    }
}
