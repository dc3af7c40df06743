//! What a mover sees when it looks, and what follows from it. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crds::RebalancePhase;
use moves::{CopyState, MoveId, RebalancePlan, ShardView, Step, Steps};
use ring::{Ordinal, Tokens, Weight};

use super::{
    hands::{Job, Limits},
    orders::{Abort, Orders},
};
use crate::order_cluster::{masters::Keeper, ring_truth};

/// One look at all shards.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    /// What the shards that answered say.
    pub(crate) world: BTreeMap<Ordinal, ShardView>,
    /// Why the others could not be asked.
    pub(crate) silent: BTreeMap<Ordinal, String>,
    /// What is to be done.
    pub(crate) steps: Steps,
    /// Who owns what, if those that answered account for every position.
    pub(crate) tokens: Option<Tokens>,
    /// What would have to move for the ring that is wished.
    pub(crate) plan: Option<RebalancePlan>,
}

impl Look {
    /// Decides from what was seen.
    pub(crate) fn new(orders: &Orders, world: BTreeMap<Ordinal, ShardView>, silent: BTreeMap<Ordinal, String>) -> Self {
        let owners: Vec<(Ordinal, Weight)> = orders.owners.iter().map(|(o, weight)| (*o, *weight)).collect();
        let tokens = moves::truth(&world).ok();
        Self {
            steps: moves::next_steps(&world, &orders.wish()),
            plan: tokens.as_ref().and_then(|now| moves::plan(now, &owners).ok()),
            tokens,
            world,
            silent,
        }
    }

    /// Whether every key is where the specification wants it.
    pub(crate) fn is_balanced(&self) -> bool {
        self.plan.as_ref().is_some_and(|plan| plan.moves.is_empty())
    }

    /// Whether ranges are on their way, or have left rows behind.
    pub(crate) fn in_flight(&self) -> bool {
        ring_truth::in_flight(&self.world)
    }

    /// Whether all shards answered that may hold keys.
    pub(crate) fn is_complete(&self, orders: &Orders) -> bool {
        orders.listed.iter().all(|ordinal| self.world.contains_key(ordinal))
    }

    /// Whether anything is to be written down.
    pub(crate) fn begins(&self) -> bool {
        self.steps.steps.iter().any(|step| matches!(step, Step::Begin { .. }))
    }

    /// What stands in the way, in words.
    pub(crate) fn obstacle(&self) -> Option<String> {
        let blocked = self.steps.blocked.first().map(|blocked| {
            // A blocked step only names the shard; why it was not read is known here.
            match blocked {
                moves::Blocked::NotObserved { needed } => match self.silent.get(needed) {
                    Some(why) => format!("shard {needed}: {why}"),
                    None => blocked.to_string(),
                },
                other => telemetry::chain(other),
            }
        });
        let silent = || {
            self.silent
                .iter()
                .next()
                .map(|(shard, why)| format!("shard {shard}: {why}"))
        };
        blocked.or_else(silent)
    }

    /// What is being done.
    pub(crate) fn phase(&self, orders: &Orders) -> RebalancePhase {
        let any = |of: fn(&Step) -> bool| self.steps.steps.iter().any(of);
        if any(|step| matches!(step, Step::Abort { .. })) || (orders.abort != Abort::No && self.in_flight()) {
            RebalancePhase::Aborting
        } else if any(|s| matches!(s, Step::HandOver { .. } | Step::RollForward { .. } | Step::Split { .. })) {
            RebalancePhase::HandingOver
        } else if any(|step| matches!(step, Step::Copy { .. } | Step::AwaitCopy { .. } | Step::Resume { .. })) {
            RebalancePhase::Copying
        } else if self.begins() {
            RebalancePhase::Planning
        } else if !self.steps.steps.is_empty() {
            RebalancePhase::CleaningUp
        } else if !self.steps.blocked.is_empty() {
            RebalancePhase::Blocked
        } else if orders.settings.paused {
            RebalancePhase::Paused
        } else {
            RebalancePhase::CleaningUp
        }
    }

    /// Moves whose rows are being copied or handed over.
    pub(crate) fn copies(&self) -> usize {
        let copies = self.world.values().flat_map(|view| &view.copies);
        copies.filter(|copy| copy.state == CopyState::Copying).count()
    }

    /// Whether a move is being undone.
    pub(crate) fn is_aborting(&self, move_id: MoveId) -> bool {
        let mut copies = self.world.values().flat_map(|view| &view.copies);
        copies.any(|copy| copy.move_id == move_id && copy.state == CopyState::Aborting)
    }

    /// The jobs that can be done now, in lanes: those of one lane are done one after the other, the lanes at the same
    /// time. What involves a shard that did not answer is left out.
    pub(crate) fn lanes(&self, orders: &Orders, budget: Duration) -> Vec<Vec<Job>> {
        let mut lanes: BTreeMap<(Ordinal, Ordinal), Vec<Job>> = BTreeMap::new();
        for step in &self.steps.steps {
            let (source, target) = ends(step);
            let (Some(from), Some(to)) = (self.end(orders, source), self.end(orders, target)) else {
                continue;
            };
            lanes.entry((source, target)).or_default().push(Job {
                limits: Limits {
                    max_pause: orders.settings.max_pause,
                    budget,
                    rows_per_second: orders.settings.rows_per_second,
                    expired_freezes: self.expired_freezes(target, step),
                },
                step: step.clone(),
                source: from,
                target: to,
            });
        }
        lanes.into_values().collect()
    }

    fn end(&self, orders: &Orders, ordinal: Ordinal) -> Option<Keeper> {
        let keeper = orders.shards.get(&ordinal)?.keeper.as_ref().ok()?;
        self.world.contains_key(&ordinal).then(|| keeper.clone())
    }

    fn expired_freezes(&self, target: Ordinal, step: &Step) -> u32 {
        let Step::HandOver { move_id, .. } = step else {
            return 0;
        };
        let copies = self.world.get(&target).map(|view| view.copies.as_slice());
        let copy = copies.unwrap_or_default().iter().find(|copy| copy.move_id == *move_id);
        copy.map_or(0, |copy| copy.expired_freezes)
    }
}

/// The shards a step is about: who gives and who takes, or twice the one.
pub(crate) fn ends(step: &Step) -> (Ordinal, Ordinal) {
    match step {
        Step::Begin { source, target, .. }
        | Step::Copy { source, target, .. }
        | Step::AwaitCopy { source, target, .. }
        | Step::Resume { source, target, .. }
        | Step::HandOver { source, target, .. }
        | Step::RollForward { source, target, .. }
        | Step::Abort { source, target, .. }
        | Step::DropReplication { source, target, .. } => (*source, *target),
        Step::Split { shard, .. }
        | Step::Thaw { shard, .. }
        | Step::Clean { shard, .. }
        | Step::Sweep { shard, .. }
        | Step::Merge { shard } => (*shard, *shard),
    }
}

/// Leaving shards that may be asked whether they hold nothing any more: their books are done with.
pub(crate) fn leavers(orders: &Orders, look: &Look) -> BTreeSet<Ordinal> {
    let done = |ordinal: &&Ordinal| {
        let view = look.world.get(*ordinal);
        view.is_some_and(|view| view.rows.iter().all(|row| row.state == moves::RangeState::Cleaned))
    };
    orders.leaving.iter().filter(done).copied().collect()
}
