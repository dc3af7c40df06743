//! Which shards there shall be, and which of them may change now. Pure: a plan can be printed, compared and tested.

use std::collections::{BTreeMap, BTreeSet};

use crds::{OrderShard, OrderShardSpec, ShardState};
use kube::ResourceExt;
use ring::{Ordinal, Weight};

use super::{members, names, roster::Roster, validate::Cluster};
use crate::{
    conditions::is_ready,
    order_shard::{serves, template_revision},
};

/// What to do about the shards.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    /// By ordinal, every shard the cluster consists of.
    pub(crate) shards: BTreeMap<u16, PlannedShard>,
    /// Shards that have given up everything and are no part of the cluster any more: to be deleted.
    pub(crate) departing: BTreeSet<u16>,
    /// The shards that shall own keys in the end, and how much.
    pub(crate) owners: BTreeMap<Ordinal, Weight>,
    /// The highest ordinal a shard may have had, those of this plan included.
    pub(crate) highest: Option<u16>,
    /// What the specification asks for and cannot be had.
    pub(crate) refusals: Vec<Refusal>,
}

/// One shard of a [`Plan`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PlannedShard {
    pub(crate) step: Step,
    /// What its resource shall say now: at [`Step::Hold`] its Postgres part and the revision are what it says already.
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

/// Something asked for that cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(
        "every shard is drained, so none is left to own the keys: set drain to false for one, or raise spec.shards"
    )]
    NobodyOwns,
    #[error(
        "spec.shards is {wanted}, and no ordinals are left for new shards: one is never used twice, and {highest} was used"
    )]
    OrdinalsUsedUp { wanted: u16, highest: u16 },
}

/// What planning starts from, besides the specification.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known<'a> {
    /// The shards there are, by ordinal.
    pub(crate) shards: &'a BTreeMap<u16, OrderShard>,
    /// Resources that are not this cluster's shards, though they say so.
    pub(crate) foreign: &'a [OrderShard],
    /// The ordinals that own keys or are about to, once any do.
    pub(crate) roster: Option<&'a Roster>,
    /// Whether a ring was ever published: from then on shards may come and go.
    pub(crate) published: bool,
    /// The highest ordinal a shard may ever have had.
    pub(crate) highest: Option<u16>,
    /// Leaving shards that were found to hold nothing any more.
    pub(crate) empty: &'a BTreeSet<u16>,
    /// The lasting id of the cluster's data.
    pub(crate) data_id: &'a str,
}

impl Known<'_> {
    /// The roster, once it may change. Before the first ring is published the set of shards, their weights and states
    /// stand: the first ring is planned from them, perhaps by two operators in a row.
    pub(crate) fn settled_roster(&self) -> Option<&Roster> {
        self.roster.filter(|_| self.published)
    }
}

impl Plan {
    /// Ordinals of the shards with this step.
    pub(crate) fn with_step(&self, step: Step) -> impl Iterator<Item = u16> + '_ {
        self.shards
            .iter()
            .filter(move |(_, shard)| shard.step == step)
            .map(|(ordinal, _)| *ordinal)
    }

    /// Ordinals of the shards that give up their keys in order to go.
    pub(crate) fn leaving(&self) -> BTreeSet<Ordinal> {
        let leaving = |shard: &PlannedShard| shard.spec.state == ShardState::Leaving;
        self.shards
            .iter()
            .filter(|(_, shard)| leaving(shard))
            .map(|(ordinal, _)| Ordinal(*ordinal))
            .collect()
    }

    /// Every ordinal of the cluster.
    pub(crate) fn roster(&self) -> Roster {
        self.shards.keys().copied().collect()
    }
}

/// Plans the shards.
pub(crate) fn plan(cluster: &Cluster, known: Known<'_>) -> Plan {
    let members = members::members(cluster, known);
    let mut shards: BTreeMap<u16, PlannedShard> = members
        .stay
        .iter()
        .chain(&members.leave)
        .map(|&ordinal| {
            let spec = wanted(cluster, known, ordinal, members.leave.contains(&ordinal));
            let step = first_step(cluster, known, ordinal, &spec);
            (ordinal, PlannedShard { step, spec })
        })
        .collect();
    let owners: BTreeMap<Ordinal, Weight> = members
        .stay
        .iter()
        .filter(|ordinal| known.settled_roster().is_none() || !members::is_drained(cluster, **ordinal))
        .map(|ordinal| (Ordinal(*ordinal), weight(shards[ordinal].spec.weight)))
        .collect();
    let mut refusals: Vec<Refusal> = members.refusal.into_iter().collect();
    refusals.extend(owners.is_empty().then_some(Refusal::NobodyOwns));
    stagger(&mut shards, known.shards, cluster.max_unavailable);
    Plan {
        highest: known.highest.max(shards.keys().max().copied()),
        departing: members.departing,
        shards,
        owners,
        refusals,
    }
}

/// A weight as the ring knows it; what the schema lets through always is one.
pub(crate) fn weight(weight: i32) -> Weight {
    let weight = u32::try_from(weight).ok();
    weight
        .and_then(|weight| Weight::new(weight).ok())
        .unwrap_or(Weight::ONE)
}

/// What a shard's resource shall say in the end.
fn wanted(cluster: &Cluster, known: Known<'_>, ordinal: u16, leaves: bool) -> OrderShardSpec {
    let over = cluster.overrides.get(&ordinal);
    let found = known.shards.get(&ordinal);
    let asked = over.map_or(1, |over| over.weight);
    let standing = found.filter(|_| known.settled_roster().is_none());
    let mut postgres = cluster.postgres.clone();
    if let Some(image) = over.and_then(|over| over.image.clone()) {
        postgres.image = Some(image);
    }
    OrderShardSpec {
        cluster: cluster.name.clone(),
        ordinal: ordinal.into(),
        data_id: found.map_or_else(|| known.data_id.to_owned(), |found| found.spec.data_id.clone()),
        weight: standing.map_or(asked, |found| found.spec.weight),
        state: if leaves {
            ShardState::Leaving
        } else {
            ShardState::Active
        },
        deletion_policy: cluster.deletion_policy,
        postgres,
        template_revision: Some(template_revision().to_owned()),
    }
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
/// A shard whose members are not well loses nothing by an update, and the update may be what mends it: it goes first, and
/// counts. One that serves, and is unready because its schema or its settings are on their way, waits for its turn: an
/// operator that brings a new schema makes all shards unready so at once. A change that restarts nothing is not counted,
/// and is never held back.
fn stagger(shards: &mut BTreeMap<u16, PlannedShard>, found: &BTreeMap<u16, OrderShard>, max_unavailable: usize) {
    let ready = |ordinal: &u16| found.get(ordinal).is_some_and(shard_is_ready);
    let unready = shards.keys().filter(|ordinal| !ready(ordinal)).count();
    let mut given = 0;
    for (ordinal, shard) in shards.iter_mut() {
        let Some(found) = found.get(ordinal) else { continue };
        let restarts_nothing =
            found.spec.postgres == shard.spec.postgres && found.spec.template_revision == shard.spec.template_revision;
        if shard.step != Step::Update || restarts_nothing || !(ready(ordinal) || serves(found)) {
            continue;
        }
        let others = unready + given - usize::from(!ready(ordinal));
        if others < max_unavailable {
            given += usize::from(ready(ordinal));
        } else {
            shard.step = Step::Hold;
            shard.spec.postgres = found.spec.postgres.clone();
            shard.spec.template_revision = found.spec.template_revision.clone();
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

/// Whether a shard's database was ever set up.
pub(crate) fn shard_is_initialised(shard: &OrderShard) -> bool {
    shard.status.as_ref().is_some_and(|status| status.initialised)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
