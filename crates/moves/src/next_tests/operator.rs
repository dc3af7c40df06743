//! An operator that does what it is told, and may be stopped between any two commits.

use ring::Range;

use super::databases::Databases;
use crate::{CopyState, RangeState, Step};

/// How many more commits it makes before it dies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life(pub(crate) usize);

impl Life {
    pub(crate) const LONG: Self = Self(usize::MAX);

    /// One more commit.
    fn spend(&mut self) -> Option<()> {
        self.0 = self.0.checked_sub(1)?;
        Some(())
    }
}

/// Does a step, all of it and in one batch.
pub(crate) fn carry_out(databases: &mut Databases, step: &Step) {
    let mut life = Life::LONG;
    execute(databases, step, 0, &mut life);
}

/// Does a step, as far as its life reaches. `cut` says where a range is cut for a batch: at so many of 256 parts of it,
/// 0 being no cut.
pub(crate) fn execute(databases: &mut Databases, step: &Step, cut: u8, life: &mut Life) -> Option<()> {
    match step {
        Step::Begin { source, target, ranges } => {
            life.spend()?;
            databases.begin_import(*source, *target, ranges);
        }
        Step::Copy {
            move_id,
            source,
            target,
            source_term,
            failover,
            ..
        } => {
            life.spend()?;
            databases.ensure_publication(*source, *move_id);
            life.spend()?;
            if databases.set_source_term(*target, *move_id, *source_term) {
                life.spend()?;
                databases.ensure_slot(*source, *move_id, *source_term, *failover);
                life.spend()?;
                databases.ensure_subscription(*target, *move_id);
                life.spend()?;
                databases.set_copy_state(*target, *move_id, CopyState::Copying);
            }
        }
        Step::AwaitCopy {
            move_id,
            source,
            target,
        } => {
            life.spend()?;
            databases.finish_copy(*source, *target, *move_id);
        }
        Step::Resume {
            move_id,
            source,
            target,
            source_term,
        } => {
            life.spend()?;
            if databases.shards[source].term == *source_term {
                databases.resume_copy(*source, *target, *move_id);
            }
        }
        Step::Split { shard, cuts, .. } => {
            for at in cuts {
                life.spend()?;
                databases.split_range(*shard, *at);
            }
        }
        Step::HandOver { .. } => hand_over(databases, step, cut, life)?,
        Step::RollForward {
            move_id,
            source,
            target,
            range,
        } => {
            life.spend()?;
            databases.activate(*source, *target, *move_id, *range);
        }
        Step::Abort { .. } => abort(databases, step, life)?,
        Step::Thaw {
            shard,
            move_id,
            range,
            attempt,
        } => {
            life.spend()?;
            databases.thaw(*shard, *move_id, *range, *attempt);
        }
        Step::DropReplication {
            move_id,
            source,
            target,
        } => {
            life.spend()?;
            databases.drop_subscription(*target, *move_id);
            life.spend()?;
            databases.drop_slot(*source, *move_id);
            life.spend()?;
            databases.drop_publication(*source, *move_id);
            life.spend()?;
            databases.forget_copy(*target, *move_id);
        }
        Step::Clean { shard, move_id, range } => {
            life.spend()?;
            databases.clean_rows(*shard, *move_id, *range);
            life.spend()?;
            databases.mark_cleaned(*shard, *move_id, *range);
        }
        Step::Sweep {
            shard,
            subscriptions,
            slots,
            publications,
        } => {
            let mut known = databases.shards.values().flat_map(|view| &view.copies);
            let swept = known.find(|copy| {
                [subscriptions, slots, publications]
                    .iter()
                    .any(|all| all.contains(&copy.move_id))
            });
            assert!(swept.is_none(), "{swept:?} is swept up");
            for one in subscriptions {
                life.spend()?;
                databases.drop_subscription(*shard, *one);
            }
            for one in slots {
                life.spend()?;
                databases.drop_slot(*shard, *one);
            }
            for one in publications {
                life.spend()?;
                databases.drop_publication(*shard, *one);
            }
        }
        Step::Merge { shard } => {
            life.spend()?;
            databases.merge_ranges(*shard);
        }
    }
    Some(())
}

fn hand_over(databases: &mut Databases, step: &Step, cut: u8, life: &mut Life) -> Option<()> {
    let Step::HandOver {
        move_id,
        source,
        target,
        range,
        frozen,
    } = step
    else {
        unreachable!()
    };
    let mut batch = *range;
    let at = range.lo + range.len() * u64::from(cut) / 256;
    if !frozen && at > range.lo {
        life.spend()?;
        databases.split_range(*source, at);
        batch = Range { lo: range.lo, hi: at };
    }
    life.spend()?;
    let attempt = databases.freeze(*source, *target, *move_id, batch)?;
    life.spend()?;
    databases.verify(*source, *target, *move_id, batch, attempt);
    let verified = databases.shards[target]
        .rows
        .iter()
        .any(|row| row.range == batch && row.move_id == Some(*move_id) && row.verified_attempt == Some(attempt));
    life.spend()?;
    if !verified {
        databases.thaw(*source, *move_id, batch, attempt);
        return Some(());
    }
    databases.commit_move(*source, *move_id, batch, attempt);
    life.spend()?;
    databases.activate(*source, *target, *move_id, batch);
    Some(())
}

fn abort(databases: &mut Databases, step: &Step, life: &mut Life) -> Option<()> {
    let Step::Abort {
        move_id,
        source,
        target,
        ranges,
        ..
    } = step
    else {
        unreachable!()
    };
    life.spend()?;
    databases.set_copy_state(*target, *move_id, CopyState::Aborting);
    for range in ranges {
        let frozen: Vec<_> = databases.shards[source]
            .rows
            .iter()
            .filter(|row| row.state == RangeState::Frozen && row.move_id == Some(*move_id))
            .filter(|row| row.range.lo < range.hi && range.lo < row.range.hi)
            .map(|row| (row.range, row.attempt))
            .collect();
        for (part, attempt) in frozen {
            life.spend()?;
            databases.thaw(*source, *move_id, part, attempt);
        }
        life.spend()?;
        databases.leave_import(*source, *target, *move_id, *range);
    }
    Some(())
}
