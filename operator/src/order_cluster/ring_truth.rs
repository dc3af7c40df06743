//! Who owns which keys, from what the shards' own books say. Pure.
//!
//! The books are the truth: a ring over data is never planned anew. Only when every shard has been read and none ever
//! owned anything is there a first plan. It depends on the shards alone, so an operator that dies while giving the shards
//! their first ranges is finished by the next one, which finds the same plan.

use std::collections::BTreeMap;

use moves::{RangeRow, RangeState, ShardView};
use ring::{Generation, Ordinal, Range, Tokens, Weight};

/// What is known of one shard.
#[derive(Clone, Debug)]
pub(crate) struct ShardBook {
    pub(crate) weight: Weight,
    /// What its database says of ranges and moves, or why it could not be read.
    pub(crate) view: Result<ShardView, String>,
}

/// What the books come to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Truth {
    /// Every position has its owner.
    Owned {
        tokens: Tokens,
        /// Whether ranges are changing hands, or have done so and are not cleaned up yet.
        in_flight: bool,
    },
    /// Nobody owns anything yet, or the first ranges were given out in part: these are still to be given.
    Founding {
        tokens: Tokens,
        claims: BTreeMap<Ordinal, Vec<Range>>,
    },
    /// Those books that could be read do not account for every position: why, for each of the others.
    Unread(BTreeMap<Ordinal, String>),
    /// The books contradict each other or leave a gap that nobody may fill.
    Broken(String),
}

/// Reads the truth from the books of ALL shards of the cluster.
pub(crate) fn truth(books: &BTreeMap<Ordinal, ShardBook>) -> Truth {
    let mut world = BTreeMap::new();
    let mut unread = BTreeMap::new();
    for (ordinal, book) in books {
        match &book.view {
            Ok(view) => drop(world.insert(*ordinal, view.clone())),
            Err(why) => drop(unread.insert(*ordinal, why.clone())),
        }
    }
    match moves::truth(&world) {
        // Where those that answer own every position, the others own none. What they have to do with moves is not known.
        Ok(tokens) => Truth::Owned {
            tokens,
            in_flight: !unread.is_empty() || in_flight(&world),
        },
        Err(_) if !unread.is_empty() => Truth::Unread(unread),
        Err(gap) => found(books, &world).unwrap_or_else(|why| Truth::Broken(format!("{}; {why}", gap.0))),
    }
}

/// Whether any range is on its way, or any row of one that was is still in the wrong place.
pub(crate) fn in_flight(world: &BTreeMap<Ordinal, ShardView>) -> bool {
    let settled = |row: &RangeRow| matches!(row.state, RangeState::Owned | RangeState::Cleaned);
    world
        .values()
        .any(|view| !view.copies.is_empty() || !view.rows.iter().all(settled))
}

/// The first plan, if the books are those of a cluster that has been given none or only a part of it.
fn found(books: &BTreeMap<Ordinal, ShardBook>, world: &BTreeMap<Ordinal, ShardView>) -> Result<Truth, String> {
    let shards: Vec<(Ordinal, Weight)> = books.iter().map(|(ordinal, book)| (*ordinal, book.weight)).collect();
    let tokens = ring::plan(None, &shards).map_err(|error| format!("no first ring can be planned: {error}"))?;
    let mut claims: BTreeMap<Ordinal, Vec<Range>> = BTreeMap::new();
    for (range, ordinal) in tokens.ranges() {
        claims.entry(ordinal).or_default().push(range);
    }
    for (ordinal, view) in world.iter().filter(|(_, view)| !view.rows.is_empty()) {
        let first = claims.remove(ordinal).unwrap_or_default();
        if !is_exactly(&view.rows, &first) {
            return Err(format!(
                "shard {ordinal} has owned other ranges than those of the first ring, so this is not an \
                 unfinished beginning: bring back the shard or the volume that owned what is missing"
            ));
        }
    }
    Ok(Truth::Founding { tokens, claims })
}

/// Whether a book holds just these ranges as they were first given.
fn is_exactly(rows: &[RangeRow], ranges: &[Range]) -> bool {
    let mut have: Vec<Range> = rows
        .iter()
        .filter(|row| row.state == RangeState::Owned && row.generation == Generation(1))
        .map(|row| row.range)
        .collect();
    have.sort_unstable();
    let mut wanted = ranges.to_vec();
    wanted.sort_unstable();
    have.len() == rows.len() && have == wanted
}

#[cfg(test)]
#[path = "ring_truth_tests.rs"]
mod tests;
