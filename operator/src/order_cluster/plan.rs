//! Which shards there shall be, and which of them may change now. Pure: a plan can be printed, compared and tested.

use std::collections::BTreeMap;

use crds::{OrderShard, OrderShardSpec, ShardState};
use kube::ResourceExt;

use super::{names, roster::Roster, validate::Cluster};
use crate::{conditions::is_ready, order_shard::template_revision};

/// What to do about the shards.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    /// By ordinal, every shard the cluster consists of.
    pub(crate) shards: BTreeMap<u16, PlannedShard>,
    /// What the specification asks for and is not done.
    pub(crate) refusals: Vec<Refusal>,
}

/// One shard of a [`Plan`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PlannedShard {
    pub(crate) step: Step,
    /// What its resource shall say now: at [`Step::Hold`] what it says already.
    pub(crate) spec: OrderShardSpec,
}

/// What happens to a shard's resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It is not there.
    Create,
    /// It says something else.
    Update,
    /// It says something else, and others have to become ready first.
    Hold,
    /// It is as wanted.
    Keep,
    /// It is being deleted; when it is gone it is made anew.
    AwaitDeletion,
    /// Somebody else has a resource of this name.
    Taken,
}

/// Something asked for that cannot be had yet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(
        "spec.shards is {wanted}, but the keys are spread over {have} shards ({roster}), and moving keys between shards is not supported yet: set spec.shards back to {have}"
    )]
    Shards { wanted: u16, have: usize, roster: Roster },
    #[error(
        "spec.shardOverrides asks for weight {wanted} on shard {ordinal}, which has {have}, and moving keys between shards is not supported yet: set it back to {have}"
    )]
    Weight { ordinal: u16, wanted: i32, have: i32 },
    #[error(
        "spec.shardOverrides asks to drain shard {ordinal}, and moving keys between shards is not supported yet: set drain back to false"
    )]
    Drain { ordinal: u16 },
}

/// What planning starts from, besides the specification.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known<'a> {
    /// The shards there are, by ordinal.
    pub(crate) shards: &'a BTreeMap<u16, OrderShard>,
    /// Resources that are not this cluster's shards, though they say so.
    pub(crate) foreign: &'a [OrderShard],
    /// The ordinals that own keys, once any do.
    pub(crate) roster: Option<&'a Roster>,
    /// The lasting id of the cluster's data.
    pub(crate) data_id: &'a str,
}

impl Plan {
    /// Ordinals of the shards with this step.
    pub(crate) fn with_step(&self, step: Step) -> impl Iterator<Item = u16> + '_ {
        self.shards
            .iter()
            .filter(move |(_, shard)| shard.step == step)
            .map(|(ordinal, _)| *ordinal)
    }
}

/// Plans the shards.
pub(crate) fn plan(cluster: &Cluster, known: Known<'_>) -> Plan {
    let (roster, refusal) = members(cluster, known);
    let mut refusals: Vec<Refusal> = refusal.into_iter().collect();
    let mut shards: BTreeMap<u16, PlannedShard> = roster
        .iter()
        .map(|ordinal| {
            let found = known.shards.get(&ordinal);
            let (spec, refused) = wanted(cluster, known, ordinal, found);
            refusals.extend(refused);
            (
                ordinal,
                PlannedShard {
                    step: first_step(cluster, known, ordinal, &spec),
                    spec,
                },
            )
        })
        .collect();
    stagger(&mut shards, known.shards, cluster.max_unavailable);
    Plan { shards, refusals }
}

/// Which ordinals the cluster consists of. Once keys are spread over them the set stands; before, it may still grow.
fn members(cluster: &Cluster, known: Known<'_>) -> (Roster, Option<Refusal>) {
    let roster = match known.roster {
        Some(roster) => roster.clone(),
        // Shards that exist stay, so that lowering the number cannot orphan a volume unseen.
        None => (0..cluster.shards).chain(known.shards.keys().copied()).collect(),
    };
    let refusal = (roster.len() != usize::from(cluster.shards)).then(|| Refusal::Shards {
        wanted: cluster.shards,
        have: roster.len(),
        roster: roster.clone(),
    });
    (roster, refusal)
}

/// What a shard's resource shall say in the end, and what of the override is not done.
fn wanted(
    cluster: &Cluster,
    known: Known<'_>,
    ordinal: u16,
    found: Option<&OrderShard>,
) -> (OrderShardSpec, Vec<Refusal>) {
    let over = cluster.overrides.get(&ordinal);
    let asked = over.map_or(1, |over| over.weight);
    // The weight stands once the shard exists: the first ring is planned from it, perhaps by two operators in a row.
    let weight = found.map_or(asked, |found| found.spec.weight);
    let mut postgres = cluster.postgres.clone();
    if let Some(image) = over.and_then(|over| over.image.clone()) {
        postgres.image = Some(image);
    }
    let spec = OrderShardSpec {
        cluster: cluster.name.clone(),
        ordinal: ordinal.into(),
        data_id: found.map_or_else(|| known.data_id.to_owned(), |found| found.spec.data_id.clone()),
        weight,
        state: ShardState::Active,
        deletion_policy: cluster.deletion_policy,
        postgres,
        template_revision: Some(template_revision().to_owned()),
    };
    let mut refusals = Vec::new();
    if weight != asked {
        refusals.push(Refusal::Weight {
            ordinal,
            wanted: asked,
            have: weight,
        });
    }
    if over.is_some_and(|over| over.drain) {
        refusals.push(Refusal::Drain { ordinal });
    }
    (spec, refusals)
}

fn first_step(cluster: &Cluster, known: Known<'_>, ordinal: u16, spec: &OrderShardSpec) -> Step {
    let name = names::shard(&cluster.name, ordinal);
    match known.shards.get(&ordinal) {
        None if known.foreign.iter().any(|shard| shard.name_any() == name) => Step::Taken,
        None => Step::Create,
        Some(found) if found.metadata.deletion_timestamp.is_some() => Step::AwaitDeletion,
        Some(found) if found.spec == *spec => Step::Keep,
        Some(_) => Step::Update,
    }
}

/// Holds back updates so that no more than `max_unavailable` shards are unready at once because of them.
///
/// A shard that is unready already loses nothing by an update, and the update may be what mends it: it goes first, and
/// counts. A change that restarts nothing is not counted.
fn stagger(shards: &mut BTreeMap<u16, PlannedShard>, found: &BTreeMap<u16, OrderShard>, max_unavailable: usize) {
    let ready = |ordinal: &u16| found.get(ordinal).is_some_and(shard_is_ready);
    let mut free = max_unavailable.saturating_sub(shards.keys().filter(|ordinal| !ready(ordinal)).count());
    for (ordinal, shard) in shards.iter_mut() {
        let Some(found) = found.get(ordinal) else { continue };
        let restarts_nothing =
            found.spec.postgres == shard.spec.postgres && found.spec.template_revision == shard.spec.template_revision;
        if shard.step != Step::Update || !ready(ordinal) || restarts_nothing {
            continue;
        }
        if free > 0 {
            free -= 1;
        } else {
            let deletion_policy = shard.spec.deletion_policy;
            *shard = PlannedShard {
                step: Step::Hold,
                spec: found.spec.clone(),
            };
            shard.spec.deletion_policy = deletion_policy;
        }
    }
}

/// Whether a shard is as its own resource asks.
pub(crate) fn shard_is_ready(shard: &OrderShard) -> bool {
    shard.status.as_ref().is_some_and(|status| {
        is_ready(
            &status.conditions,
            status.observed_generation,
            shard.metadata.generation,
        ) && shard.metadata.deletion_timestamp.is_none()
    })
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
