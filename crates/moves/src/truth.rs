//! Who owns what while moves are under way.

use std::collections::BTreeMap;

use ring::{Ordinal, Range, Tokens, TokensError};

use crate::{RangeRow, RangeState, ShardView};

/// The databases do not say exactly once who owns each position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the shards' books contradict each other")]
pub struct Gap(#[from] pub TokensError);

/// Which shard owns which positions, by the books of ALL shards.
///
/// A shard owns what its book calls `owned` or `frozen`. What a source has given away (`moved`, or `cleaned` already) and
/// its target still calls `importing` by the same move is the target's: the commit point has passed, and nothing but
/// rolling forward is left.
///
/// # Errors
/// If a position has no owner, or two.
pub fn truth(world: &BTreeMap<Ordinal, ShardView>) -> Result<Tokens, Gap> {
    let here = world.values().flat_map(|view| {
        let owned = view.rows.iter().filter(|row| row.state.is_here());
        owned.map(|row| (row.range, view.ordinal))
    });
    let handed_over = world.values().flat_map(|target| {
        let importing = target.rows.iter().filter(|row| row.state == RangeState::Importing);
        importing.flat_map(move |row| {
            let parts = given_away(world, target.ordinal, row);
            parts.into_iter().map(move |range| (range, target.ordinal))
        })
    });
    Ok(Tokens::from_ranges(here.chain(handed_over))?)
}

/// The parts of an importing range that its source has given away by the same move.
pub(crate) fn given_away(world: &BTreeMap<Ordinal, ShardView>, target: Ordinal, importing: &RangeRow) -> Vec<Range> {
    let Some(source) = importing.target.and_then(|source| world.get(&source)) else {
        return Vec::new();
    };
    let parts = source.rows.iter().filter_map(|row| {
        let gone = matches!(row.state, RangeState::Moved | RangeState::Cleaned);
        let to_here = row.target == Some(target) && row.move_id.is_some() && row.move_id == importing.move_id;
        (gone && to_here).then(|| overlap(row.range, importing.range)).flatten()
    });
    parts.collect()
}

/// What two ranges have in common.
pub(crate) fn overlap(one: Range, other: Range) -> Option<Range> {
    let both = Range {
        lo: one.lo.max(other.lo),
        hi: one.hi.min(other.hi),
    };
    both.is_valid().then_some(both)
}
