//! From the resource as it came to a cluster that can be planned.
//!
//! The API server has checked all of this by the resource's schema; it is checked again because a definition of an older
//! version may be installed.

use std::collections::BTreeMap;

use crds::{DeletionPolicy, MAX_CLUSTER_NAME, MAX_SHARDS, OrderCluster, Postgres, ShardOverride};
use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{Resource, ResourceExt};

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
            name,
        })
    }
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
