//! From the ring there is to the moves that lead to the ring that is wanted.

use std::collections::BTreeMap;

use ring::{Ordinal, PlanError, Range, Tokens, Weight};
use serde::{Deserialize, Serialize};

/// Everything one shard gives to one other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairMove {
    /// Whose it is.
    pub source: Ordinal,
    /// Whose it will be.
    pub target: Ordinal,
    /// What moves, in the order of positions; no two ranges touch.
    pub ranges: Vec<Range>,
}

impl PairMove {
    /// How many positions move.
    pub fn positions(&self) -> u64 {
        self.ranges.iter().map(|range| range.len()).sum()
    }
}

/// What has to move to reach a ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RebalancePlan {
    /// The moves, in the order of sources and targets; at most one for each pair.
    pub moves: Vec<PairMove>,
    /// Who owns what when all of them are done.
    pub wanted: Tokens,
}

/// Plans the moves by which `owners` come to hold what their weights ask for, and nobody else anything.
///
/// Deterministic: whoever plans from the same ring for the same owners gets the same moves.
///
/// # Errors
/// Those of [`ring::plan`]: no owner, too many, or one twice.
pub fn plan(now: &Tokens, owners: &[(Ordinal, Weight)]) -> Result<RebalancePlan, PlanError> {
    let wanted = ring::plan(Some(now), owners)?;
    let mut pairs: BTreeMap<(Ordinal, Ordinal), Vec<Range>> = BTreeMap::new();
    for change in now.moves_to(&wanted) {
        pairs.entry((change.from, change.to)).or_default().push(change.range);
    }
    let moves = pairs
        .into_iter()
        .map(|((source, target), ranges)| PairMove { source, target, ranges })
        .collect();
    Ok(RebalancePlan { moves, wanted })
}
