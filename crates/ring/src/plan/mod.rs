//! Who shall own what.
//!
//! A ring with exactly fair shares would cut every shard's ranges at every change: at 1,000 shards, a quarter of a
//! million tokens. So each shard is kept within a band around its fair share instead, and only what leaves the band
//! moves. Let `f` and `f'` be a shard's fair share before and after a change, and `h` what it holds:
//!
//! - whoever holds more than `HIGH * f'` gives the excess away. As `h <= HIGH * f` before, all excess together is at most
//!   `HIGH` times the sum of `f - f'` over the shards that shrink, which is what an ideal planner moves;
//! - whoever holds less than `LOW * f'` is filled up to it: likewise at most `LOW` times the ideal;
//! - a shard that holds nothing is filled up to its fair share: just the ideal.
//!
//! One transfer serves both ends, so the moves stay within `HIGH` times the ideal without the planner knowing the weights
//! of before, which no range of a database tells. And when shards join, everybody else's fair share shrinks, so nobody
//! else can fall under the band and receive; when shards leave, nobody else can rise above it and give.

mod circle;
mod fresh;
mod rebalance;

use std::collections::BTreeMap;

use row_id::POSITIONS;

use crate::{Ordinal, Tokens, TokensError};

/// How many shards a ring may have.
pub const MAX_SHARDS: usize = 1_000;

/// How many tokens a shard has to begin with.
const TOKENS_PER_SHARD: u64 = 64;

/// How much a shard shall hold, relative to the others: one of weight 2 holds twice what one of weight 1 does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(u64);

impl Weight {
    /// What a shard weighs unless it is said otherwise.
    pub const ONE: Self = Self(1);
    /// The largest weight.
    pub const MAX: u32 = 1_000;

    /// A weight from 1 to [`Weight::MAX`].
    ///
    /// # Errors
    /// [`PlanError::Weight`] for any other number. A shard that shall own nothing is left out of the plan.
    pub fn new(weight: u32) -> Result<Self, PlanError> {
        if (1..=Self::MAX).contains(&weight) {
            Ok(Self(weight.into()))
        } else {
            Err(PlanError::Weight(weight))
        }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0 as u32
    }
}

/// Why there is no plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Nobody is left to own anything.
    #[error("no shard is left that may own keys; keep at least one that is not leaving")]
    NoShards,
    /// More shards than a ring may have.
    #[error("{0} shards are wanted, a ring has at most {MAX_SHARDS}")]
    TooManyShards(usize),
    /// A shard was listed twice.
    #[error("shard {0} is listed twice")]
    DuplicateOrdinal(Ordinal),
    /// A weight outside the allowed ones.
    #[error("the weight {0} is not between 1 and {max}", max = Weight::MAX)]
    Weight(u32),
    /// The plan came out as no ring. Only reached if the ring to start from is far more fragmented than plans get.
    #[error("the plan is no ring")]
    Tokens(#[from] TokensError),
}

/// Plans the tokens for `shards`, starting from `previous` and moving as little as can be.
///
/// Shards that own something in `previous` and are not listed lose all of it. Deterministic; the order of `shards` does
/// not matter. For every change that starts from a plan:
///
/// - no shard gets more than 1.05 times its fair share, which is its part of all weights;
/// - at most 1.02 times as many keys move as must, and when shards only join or only leave, none between the others;
/// - neighbouring tokens of one shard are one; a fresh ring has 64 a shard.
///
/// # Errors
/// If there are no shards, too many, or one twice.
pub fn plan(previous: Option<&Tokens>, shards: &[(Ordinal, Weight)]) -> Result<Tokens, PlanError> {
    if shards.is_empty() {
        return Err(PlanError::NoShards);
    }
    if shards.len() > MAX_SHARDS {
        return Err(PlanError::TooManyShards(shards.len()));
    }
    let mut wanted = BTreeMap::new();
    for &(ordinal, weight) in shards {
        if wanted.insert(ordinal, weight).is_some() {
            return Err(PlanError::DuplicateOrdinal(ordinal));
        }
    }
    let shares = fair_shares(&wanted);
    let ranges = match previous {
        None => fresh::lay_out(&shares),
        Some(previous) => rebalance::rebalance(previous, &shares),
    };
    Ok(Tokens::from_ranges(ranges)?)
}

/// What each shard shall hold: whole positions that add up to the ring, none more than one away from its exact part.
fn fair_shares(wanted: &BTreeMap<Ordinal, Weight>) -> Vec<(Ordinal, u64)> {
    let total: u64 = wanted.values().map(|weight| weight.0).sum();
    let mut before = 0;
    let ends = wanted.iter().map(|(ordinal, weight)| {
        let lo = before * POSITIONS / total;
        before += weight.0;
        (*ordinal, before * POSITIONS / total - lo)
    });
    ends.collect()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
