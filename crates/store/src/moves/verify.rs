//! Comparing source and target: online before a freeze, and exactly in it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ring::Range;
use sqlx::query;
use tokio::time::Instant;
use uuid::Uuid;

use super::checkpoint::{Rule, is_skipped, reach};
use super::error::MoveError;
use super::session::{ShardSession, confirm};
use super::steps::{Batch, bound, mark_verified, next_cut};
use super::{Attempt, gate};

// As text: Rust has no number that takes every sum, and equality is all that is asked.
const DIGEST: &str = "SELECT relation, rows, hash::text FROM ringwright.range_digest($1, $2)";
const ROW_HASHES: &str = "SELECT relation, id, hash FROM ringwright.row_hashes($1, $2)";
const MARKED: &str = "SELECT max(attempt) FROM ringwright.moves WHERE move_id = $1 AND lo = $2 AND hi = $3";

const POLL: Duration = Duration::from_millis(1);
/// How long the target may take to apply what the source had before a look.
const CATCH_UP: Duration = Duration::from_secs(10);
/// In how many looks a row has to differ before the copy is called wrong: that undoes the move.
const LOOKS: usize = 3;

/// A batch whose rows were found equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// How many rows it has.
    pub rows: u64,
    /// How long it took to compare them.
    pub took: Duration,
}

/// What was found before any freeze.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PreVerified {
    /// Rows that were compared.
    pub rows: u64,
    /// Rows (table, id) that stayed different although they did not change: the copy is wrong.
    pub differing: Vec<(String, Uuid)>,
}

/// Waits at the target until it has applied the freeze of `attempt` and so all that was written before; false when that
/// did not happen until `deadline`, or a later attempt has been marked.
///
/// # Errors
/// If the database does not answer.
pub async fn await_marker(
    target: &mut ShardSession,
    batch: &Batch,
    attempt: Attempt,
    deadline: Instant,
) -> Result<bool, MoveError> {
    if is_skipped(Rule::Marker) {
        return Ok(true);
    }
    let operation = batch.named("wait for the marker of");
    loop {
        let row = target.fetch(&operation, batch.bind(MARKED)).await?;
        match target.get::<Option<i64>>(&operation, &row, 0)? {
            Some(marked) if marked == attempt.0 => return Ok(true),
            // Frozen anew by another operator: the marker of this attempt has gone by.
            Some(marked) if marked > attempt.0 => return Ok(false),
            Some(_) | None => {}
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Compares both sides of a batch that is frozen (or given away) and whose marker the target's session has seen, and
/// records it there; `None` if the target does not import it by this move any more.
///
/// # Errors
/// [`MoveError::Differs`] if the rows are not the same.
pub async fn verify(
    source: &mut ShardSession,
    target: &mut ShardSession,
    batch: &Batch,
    attempt: Attempt,
) -> Result<Option<Verified>, MoveError> {
    let began = Instant::now();
    let (here, there) = tokio::join!(digest(source, batch.range), digest(target, batch.range));
    let (here, there) = (here?, there?);
    let took = began.elapsed();
    for (relation, held) in &here {
        let copied = there.get(relation);
        if copied != Some(held) && !is_skipped(Rule::Comparison) {
            return Err(MoveError::Differs {
                relation: relation.clone(),
                range: batch.range,
                source_shard: source.shard,
                source_rows: held.rows,
                target_shard: target.shard,
                target_rows: copied.map_or(0, |copied| copied.rows),
            });
        }
    }
    let rows = here.values().map(|held| held.rows.max(0).cast_unsigned()).sum();
    Ok(mark_verified(target, batch, attempt)
        .await?
        .then_some(Verified { rows, took }))
}

#[derive(Debug, PartialEq, Eq)]
struct Held {
    rows: i64,
    hash: String,
}

async fn digest(session: &mut ShardSession, range: Range) -> Result<BTreeMap<String, Held>, MoveError> {
    let operation = format!("compute the digest of {range}");
    let statement = query(DIGEST).bind(bound(range.lo)).bind(bound(range.hi));
    let rows = session.fetch_all(&operation, statement).await?;
    rows.iter()
        .map(|row| {
            let held = Held {
                rows: session.get(&operation, row, 1)?,
                hash: session.get(&operation, row, 2)?,
            };
            Ok((session.get(&operation, row, 0)?, held))
        })
        .collect()
}

/// Compares both sides while the source is written to, chunk by chunk: a row that differs counts only if it did not change
/// at the source from before the target had caught up until after it was asked, and only if that is seen [`LOOKS`] times.
///
/// # Errors
/// [`MoveError::Busy`] if the target does not catch up, [`MoveError::NotDurable`] if the source's standbys do not.
pub async fn pre_verify(
    source: &mut ShardSession,
    target: &mut ShardSession,
    batch: &Batch,
    chunk_rows: u32,
) -> Result<PreVerified, MoveError> {
    let mut found = PreVerified::default();
    let mut rest = Some(batch.range);
    while let Some(range) = rest {
        let cut = next_cut(source, range, chunk_rows).await?;
        let chunk = Range {
            lo: range.lo,
            hi: cut.unwrap_or(range.hi),
        };
        rest = cut.map(|lo| Range { lo, hi: range.hi });
        let (here, there) = tokio::join!(digest(source, chunk), digest(target, chunk));
        let (here, there) = (here?, there?);
        found.rows += here.values().map(|held| held.rows.max(0).cast_unsigned()).sum::<u64>();
        if here != there {
            let chunk = Batch { range: chunk, ..*batch };
            found.differing.extend(differing(source, target, &chunk).await?);
        }
    }
    Ok(found)
}

/// A row's place and content.
type Hashes = BTreeMap<(String, Uuid), i64>;

/// Looks until nothing differs, or what differs did so in every look.
///
/// The log is decoded when it is flushed here; a commit is visible when the standby has flushed it too. So while that one
/// stalls, the target may have a row in a version that nobody sees at the source yet. What the target was seen to have is
/// therefore confirmed at the source before that is asked again: commits come out of that wait in their order.
async fn differing(
    source: &mut ShardSession,
    target: &mut ShardSession,
    chunk: &Batch,
) -> Result<Vec<(String, Uuid)>, MoveError> {
    let mut suspects: Option<BTreeSet<(String, Uuid)>> = None;
    for _ in 0..LOOKS {
        let before = hashes(source, chunk.range).await?;
        gate::catch_up(source, target, chunk.move_id, CATCH_UP).await?;
        let there = hashes(target, chunk.range).await?;
        confirm(source).await?;
        let after = hashes(source, chunk.range).await?;
        let mut found = unchanged_and_different(&before, &there, &after);
        if let Some(before) = &suspects {
            found.retain(|key| before.contains(key));
        }
        if found.is_empty() {
            return Ok(Vec::new());
        }
        suspects = Some(found);
        reach("looked").await;
    }
    Ok(suspects.into_iter().flatten().collect())
}

/// Rows that are different on the target, and stayed as they were at the source around the look at it.
fn unchanged_and_different(before: &Hashes, there: &Hashes, after: &Hashes) -> BTreeSet<(String, Uuid)> {
    let differs = |key: &&(String, Uuid)| {
        let (before, there, after) = (before.get(*key), there.get(*key), after.get(*key));
        before == after && before != there
    };
    before.keys().chain(there.keys()).filter(differs).cloned().collect()
}

async fn hashes(session: &mut ShardSession, range: Range) -> Result<Hashes, MoveError> {
    let operation = format!("hash the rows of {range}");
    let statement = query(ROW_HASHES).bind(bound(range.lo)).bind(bound(range.hi));
    let rows = session.fetch_all(&operation, statement).await?;
    rows.iter()
        .map(|row| {
            let key = (session.get(&operation, row, 0)?, session.get(&operation, row, 1)?);
            Ok((key, session.get(&operation, row, 2)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(rows: &[(u128, i64)]) -> Hashes {
        let row = |(id, hash): &(u128, i64)| (("shop.users".to_owned(), Uuid::from_u128(*id)), *hash);
        rows.iter().map(row).collect()
    }

    #[test]
    fn only_a_row_that_stayed_as_it_was_at_the_source_can_differ() {
        let found = |before: &[_], there: &[_], after: &[_]| -> Vec<u128> {
            let found = unchanged_and_different(&hashes(before), &hashes(there), &hashes(after));
            found.into_iter().map(|(_, id)| id.as_u128()).collect()
        };
        assert_eq!(found(&[(1, 7)], &[(1, 7)], &[(1, 7)]), []);
        assert_eq!(found(&[(1, 7)], &[(1, 8)], &[(1, 7)]), [1], "another version");
        assert_eq!(found(&[(1, 7)], &[], &[(1, 7)]), [1], "not copied");
        assert_eq!(found(&[], &[(1, 7)], &[]), [1], "not deleted");
        assert_eq!(found(&[(1, 7)], &[(1, 8)], &[(1, 8)]), [], "ahead of what was visible");
        assert_eq!(found(&[(1, 7)], &[], &[]), [], "deleted meanwhile");
        assert_eq!(found(&[], &[(1, 7)], &[(1, 7)]), [], "written meanwhile");
    }
}
