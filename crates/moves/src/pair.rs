//! One move as both its ends see it.

use std::collections::{BTreeMap, BTreeSet};

use ring::{Ordinal, Range};

use crate::truth::overlap;
use crate::{
    CopyRow, CopyState, MAX_EXPIRED_FREEZES, MAX_RESUMES, MoveId, RangeRow, RangeState, ShardView, SlotRow,
    SubscriptionRow, WalStatus, Why, Wish,
};

/// A move that has been written down and is not at its end.
#[derive(Clone, Debug)]
pub(crate) struct Pair<'a> {
    pub(crate) move_id: MoveId,
    pub(crate) source: &'a ShardView,
    pub(crate) target: &'a ShardView,
    /// Absent only in a state that no step leads to.
    pub(crate) copy: Option<&'a CopyRow>,
    /// Rows of the target that it still imports.
    pub(crate) importing: Vec<&'a RangeRow>,
    slot: Option<&'a SlotRow>,
    subscription: Option<&'a SubscriptionRow>,
    published: bool,
}

/// What the source says of a part of what the target imports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Given away by this move: the target has to take it.
    Given(Range),
    /// Frozen for this move: a batch is under way.
    Frozen(Range),
    /// The source's, one row of its book. It may reach beyond what the move is about.
    Owned(Range),
    /// The source's, but frozen for another move: it cannot be had now.
    Held,
    /// Neither the source's nor given away by this move.
    Foreign,
}

impl<'a> Pair<'a> {
    /// Every move that `copies` or an importing range tells of, whose two shards were both read; and the shards that
    /// were not.
    pub(crate) fn all(world: &'a BTreeMap<Ordinal, ShardView>) -> (Vec<Self>, BTreeSet<Ordinal>) {
        let mut missing = BTreeSet::new();
        let mut pairs = Vec::new();
        for target in world.values() {
            let mut known: BTreeMap<MoveId, Ordinal> = BTreeMap::new();
            for row in target.rows.iter().filter(|row| row.state == RangeState::Importing) {
                if let (Some(move_id), Some(source)) = (row.move_id, row.target) {
                    known.insert(move_id, source);
                }
            }
            known.extend(target.copies.iter().map(|copy| (copy.move_id, copy.source)));
            for (move_id, source) in known {
                match world.get(&source) {
                    Some(source) => pairs.push(Self::new(move_id, source, target)),
                    None => drop(missing.insert(source)),
                }
            }
        }
        pairs.sort_by_key(|pair| (pair.source.ordinal, pair.target.ordinal, pair.move_id));
        (pairs, missing)
    }

    fn new(move_id: MoveId, source: &'a ShardView, target: &'a ShardView) -> Self {
        let importing = |row: &&RangeRow| row.state == RangeState::Importing && row.move_id == Some(move_id);
        Self {
            move_id,
            source,
            target,
            copy: target.copies.iter().find(|copy| copy.move_id == move_id),
            importing: target.rows.iter().filter(importing).collect(),
            slot: source.slots.iter().find(|slot| slot.move_id == move_id),
            subscription: target.subscriptions.iter().find(|one| one.move_id == move_id),
            published: source.publications.contains(&move_id),
        }
    }

    /// How far it is; without a record, it is to be undone.
    pub(crate) fn state(&self) -> CopyState {
        self.copy.map_or(CopyState::Aborting, |copy| copy.state)
    }

    /// Whether nobody has begun to set its replication up.
    pub(crate) fn is_untouched(&self) -> bool {
        !self.importing.is_empty()
            && self.state() == CopyState::Waiting
            && self.copy.is_some_and(|copy| copy.source_term.is_none())
            && self.slot.is_none()
            && self.subscription.is_none()
            && !self.published
    }

    /// Whether every table has been copied.
    pub(crate) fn is_copied(&self) -> bool {
        self.subscription.is_some_and(SubscriptionRow::is_ready)
    }

    /// The ranges that are still to change hands, as the target's book has them.
    pub(crate) fn ranges(&self) -> Vec<Range> {
        self.importing.iter().map(|row| row.range).collect()
    }

    /// Whether both want some of the same keys.
    pub(crate) fn competes_with(&self, other: &Self) -> bool {
        let wanted = |row: &&RangeRow| {
            other
                .importing
                .iter()
                .any(|theirs| overlap(row.range, theirs.range).is_some())
        };
        self.importing.iter().any(wanted)
    }

    /// What the source says of one importing row, in the order of positions.
    pub(crate) fn parts(&self, importing: &RangeRow) -> Vec<Part> {
        let mut covered = 0;
        let mut parts = Vec::new();
        let rows = &self.source.rows;
        let first = rows.partition_point(|row| row.range.hi <= importing.range.lo);
        for row in &rows[first..] {
            let Some(both) = overlap(row.range, importing.range) else {
                break;
            };
            covered += both.len();
            let mine = row.move_id == Some(self.move_id);
            parts.push(match row.state {
                RangeState::Moved | RangeState::Cleaned if mine && row.target == Some(self.target.ordinal) => {
                    Part::Given(both)
                }
                RangeState::Frozen if mine => Part::Frozen(row.range),
                RangeState::Frozen => Part::Held,
                RangeState::Owned => Part::Owned(row.range),
                RangeState::Moved | RangeState::Cleaned | RangeState::Importing => Part::Foreign,
            });
        }
        if covered < importing.range.len() {
            parts.push(Part::Foreign);
        }
        parts
    }

    /// Why it has to be undone, if it has to.
    pub(crate) fn why_void(&self, wish: &Wish) -> Option<Why> {
        let Some(copy) = self.copy else {
            return Some(Why::Missing { what: "record" });
        };
        if copy.state == CopyState::Aborting {
            let last_error = copy.last_error.clone();
            return Some(Why::Decided { last_error });
        }
        if wish.abort {
            return Some(Why::Requested);
        }
        let target = self.target.ordinal;
        if !wish.may_own.contains_key(&target) {
            return Some(Why::TargetLeaves { target });
        }
        if copy.expired_freezes >= MAX_EXPIRED_FREEZES {
            let freezes = copy.expired_freezes;
            return Some(Why::FreezesExpire { freezes });
        }
        let source_shard = self.source.ordinal;
        let foreign = |row: &&RangeRow| self.parts(row).contains(&Part::Foreign);
        if self.importing.iter().any(foreign) {
            return Some(Why::NotTheOwner { source_shard });
        }
        // All that follows says whether the copy is whole; of what has its owner nobody needs to know.
        if self.importing.is_empty() {
            return None;
        }
        match copy.source_term {
            Some(was) if was != self.source.term => Some(Why::SourceFailedOver {
                source_shard,
                was,
                now: self.source.term,
            }),
            Some(_) => self.why_not_whole(copy, wish),
            None if self.slot.is_some() || self.subscription.is_some() || copy.state == CopyState::Copying => {
                Some(Why::Missing {
                    what: "timeline of the source",
                })
            }
            None => None,
        }
    }

    /// What is wrong with the replication. While it is being set up, things that are not there yet are in order; but a
    /// subscription never outlives its slot.
    fn why_not_whole(&self, copy: &CopyRow, wish: &Wish) -> Option<Why> {
        let complete = copy.state == CopyState::Copying;
        let what = if self.slot.is_none() && (complete || self.subscription.is_some()) {
            Some("slot")
        } else if complete && self.subscription.is_none() {
            Some("subscription")
        } else if complete && !self.published {
            Some("publication")
        } else {
            None
        };
        if let Some(what) = what {
            return Some(Why::Missing { what });
        }
        let lost =
            |slot: &SlotRow| slot.invalidated || matches!(slot.wal_status, WalStatus::Unreserved | WalStatus::Lost);
        if self.slot.is_some_and(lost) {
            return Some(Why::LogLost);
        }
        let source_shard = self.source.ordinal;
        if wish.strict.contains(&source_shard) && self.slot.is_some_and(|slot| !slot.failover) {
            return Some(Why::HandsOutEarly { source_shard });
        }
        if self.is_stopped() && copy.resumes >= MAX_RESUMES {
            return Some(Why::SubscriptionFailed {
                resumes: copy.resumes,
                last_error: copy.last_error.clone(),
            });
        }
        None
    }

    /// Whether its copy was set up, and its subscription has met an error since and switched itself off. As long as the slot
    /// is there, that may be no more than a connection that was lost.
    pub(crate) fn is_stopped(&self) -> bool {
        self.state() == CopyState::Copying && self.subscription.is_some_and(|one| !one.enabled)
    }
}
