//! Invariant 6: no key moves that need not.

use std::collections::{BTreeMap, BTreeSet};

use super::ownership::BookRow;
use super::verdict::{Kind, Violation};

/// One past the highest position.
const POSITIONS: u64 = 1 << 32;
/// How many times as many keys as ideal may move.
const ALLOWANCE: f64 = 1.02;

/// Who owns what, whole: (lo, hi, shard) in the order of the positions, without gap or overlap.
pub type Owners = Vec<(u64, u64, u16)>;

/// The owners that books name, in order. Whether they are whole is for [`super::ownership::check_whole`] to say.
pub fn owners<'a>(books: impl IntoIterator<Item = (u16, &'a [BookRow])>) -> Owners {
    let mut owners: Owners = Vec::new();
    for (shard, rows) in books {
        let owned = rows.iter().filter(|row| row.state.may_write());
        owners.extend(owned.map(|row| (row.lo, row.hi, shard)));
    }
    owners.sort_unstable();
    owners
}

/// How much a change moved.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moved {
    /// Positions that changed shards, as a part of all.
    pub moved: f64,
    /// The part that any planner has to move from fair shares to fair shares of shards of equal weight.
    pub ideal: f64,
}

/// Compares the owners before and after a change of the number of shards, all of equal weight.
pub fn check(before: &Owners, after: &Owners) -> (Moved, Vec<Violation>) {
    let shards = |owners: &Owners| -> BTreeSet<u16> { owners.iter().map(|owner| owner.2).collect() };
    let (old, new) = (shards(before), shards(after));
    let flows = flows(before, after);
    let moved: u64 = flows.values().sum();
    let share = |shards: &BTreeSet<u16>, shard: &u16| {
        let holds = shards.contains(shard);
        if holds { 1.0 / shards.len() as f64 } else { 0.0 }
    };
    let ideal: f64 = new
        .iter()
        .map(|shard| (share(&new, shard) - share(&old, shard)).max(0.0))
        .sum();
    let moved = Moved {
        moved: moved as f64 / POSITIONS as f64,
        ideal,
    };
    let mut found = Vec::new();
    for ((from, to), positions) in flows {
        let stay = |shard| old.contains(&shard) && new.contains(&shard);
        if stay(from) && stay(to) {
            let what = format!("{positions} positions moved from shard {from} to shard {to}, and both stay");
            found.push(Violation::new(Kind::MovedInVain, what, Vec::new()));
        }
    }
    // Shares are whole positions: rounding may take a few of each shard.
    let slack = 3.0 * (old.len() + new.len()) as f64 / POSITIONS as f64;
    if moved.moved > ALLOWANCE * ideal + slack {
        let what = format!(
            "{:.4} of all keys moved from {} to {} shards, {:.4} would do",
            moved.moved,
            old.len(),
            new.len(),
            ideal
        );
        found.push(Violation::new(Kind::MovedInVain, what, Vec::new()));
    }
    (moved, found)
}

/// Positions by (owner before, owner after), where these differ.
fn flows(before: &Owners, after: &Owners) -> BTreeMap<(u16, u16), u64> {
    let mut flows = BTreeMap::new();
    let (mut i, mut j) = (0, 0);
    while let (Some(&(lo, hi, from)), Some(&(new_lo, new_hi, to))) = (before.get(i), after.get(j)) {
        let (start, end) = (lo.max(new_lo), hi.min(new_hi));
        if start < end && from != to {
            *flows.entry((from, to)).or_default() += end - start;
        }
        if hi <= new_hi {
            i += 1;
        }
        if new_hi <= hi {
            j += 1;
        }
    }
    flows
}
