//! A plan in figures, for people.

use std::collections::BTreeMap;
use std::fmt;

use ring::{Ordinal, POSITIONS, Tokens, Weight};
use serde::Serialize;

use crate::RebalancePlan;

/// What a plan comes to. Positions stand for keys: keys are spread evenly over positions by their hash.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Each shard that owns something before or after.
    pub shards: Vec<Share>,
    /// Pairs of shards that exchange keys.
    pub moves: usize,
    /// Ranges that change hands.
    pub ranges: usize,
    /// The part of all keys that moves, from 0 to 1.
    pub moved: f64,
    /// The part of all keys that must move at least for everybody to have exactly its fair share: K/n for one shard that
    /// joins or leaves. A plan may move a little less, for it leaves alone who is near enough to his share.
    pub ideal: f64,
}

/// One shard's part of all keys, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Share {
    /// The shard.
    pub ordinal: Ordinal,
    /// What it has.
    pub before: f64,
    /// What it will have.
    pub after: f64,
}

/// What executing `plan` means, from the ring there is now, for the owners it was made for.
pub fn summary(plan: &RebalancePlan, now: &Tokens, owners: &[(Ordinal, Weight)]) -> Summary {
    let part = |positions: u64| positions as f64 / POSITIONS as f64;
    let (before, after) = (now.shares(), plan.wanted.shares());
    let held = |shares: &BTreeMap<Ordinal, u64>, ordinal| part(shares.get(&ordinal).copied().unwrap_or(0));
    let total: u64 = owners.iter().map(|(_, weight)| u64::from(weight.get())).sum();
    // All gains together are all losses: what the ring has is fixed.
    let gain = |&(ordinal, weight): &(Ordinal, Weight)| {
        (f64::from(weight.get()) / total.max(1) as f64 - held(&before, ordinal)).max(0.0)
    };
    let mut ordinals: Vec<Ordinal> = before.keys().chain(after.keys()).copied().collect();
    ordinals.sort_unstable();
    ordinals.dedup();
    Summary {
        shards: ordinals
            .into_iter()
            .map(|ordinal| Share {
                ordinal,
                before: held(&before, ordinal),
                after: held(&after, ordinal),
            })
            .collect(),
        moves: plan.moves.len(),
        ranges: plan.moves.iter().map(|one| one.ranges.len()).sum(),
        moved: part(plan.moves.iter().map(|one| one.positions()).sum()),
        ideal: owners.iter().map(gain).sum(),
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.moves == 0 {
            writeln!(f, "Nothing moves.")?;
        } else {
            writeln!(
                f,
                "{:.2} % of the keys move (ideal {:.2} %), in {} and {}.",
                100.0 * self.moved,
                100.0 * self.ideal,
                counted(self.moves, "move"),
                counted(self.ranges, "range"),
            )?;
        }
        writeln!(f, "\n{:>5}  {:>8}  {:>8}  {:>8}", "SHARD", "BEFORE", "AFTER", "CHANGE")?;
        for share in &self.shards {
            let [before, after, change] =
                [share.before, share.after, share.after - share.before].map(|part| 100.0 * part);
            writeln!(
                f,
                "{:>5}  {before:>6.2} %  {after:>6.2} %  {change:>+6.2} %",
                share.ordinal.get()
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for RebalancePlan {
    /// One line a move; every range of it with `{:#}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.moves.is_empty() {
            return Ok(());
        }
        writeln!(f, "{:>5}  {:>5}  {:>7}  {:>8}", "FROM", "TO", "RANGES", "KEYS")?;
        for one in &self.moves {
            let keys = 100.0 * one.positions() as f64 / POSITIONS as f64;
            let (source, target, ranges) = (one.source.get(), one.target.get(), one.ranges.len());
            writeln!(f, "{source:>5}  {target:>5}  {ranges:>7}  {keys:>6.2} %")?;
            if f.alternate() {
                for range in &one.ranges {
                    writeln!(f, "       {range}")?;
                }
            }
        }
        Ok(())
    }
}

fn counted(number: usize, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}
