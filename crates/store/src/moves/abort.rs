//! Undoing the import of a range: before the commit point only, and so that nothing that comes late can undo the undoing.

use super::checkpoint::reach;
use super::error::MoveError;
use super::hand_over::{HandOver, is_given_away, roll_forward};
use super::observe::{row_around, rows_within};
use super::session::{ShardSession, confirm};
use super::steps::{Batch, leave_import, thaw_now};
use super::{Attempt, RangeRow, RangeState};

/// What became of the range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Aborted {
    /// The source owns it, or another shard does: by this move it cannot come to the target any more. There it is `moved`:
    /// drop the replication, then clean it.
    Undone,
    /// It was behind its commit point, so the target owns it now.
    RolledForward,
    /// Not settled yet: call it again.
    Again {
        /// Why.
        why: String,
    },
}

/// Stops importing a range, which is exactly one row of the target's book (at the source it may be several).
///
/// The order is what makes it safe. What the target has verified is read first. Then the source owns the range, durably,
/// at an attempt not below that: so what was verified can never be committed any more. Only then the target stops, in one
/// commit that holds only if nothing was verified meanwhile.
///
/// # Errors
/// [`MoveError::Refused`] if the target does not import the range by this move and did not before.
pub async fn abort_range(
    source: &mut ShardSession,
    target: &mut ShardSession,
    batch: &Batch,
) -> Result<Aborted, MoveError> {
    match undo(source, target, batch).await {
        Err(MoveError::Busy { why, .. } | MoveError::NotDurable { why, .. }) => Ok(Aborted::Again { why }),
        other => other,
    }
}

async fn undo(source: &mut ShardSession, target: &mut ShardSession, batch: &Batch) -> Result<Aborted, MoveError> {
    let row = row_around(target, batch.range).await?;
    let verified = match &row {
        Some(row) if row.state.is_here() => return Ok(Aborted::RolledForward),
        Some(row) if row.range == batch.range && row.move_id == Some(batch.move_id) => match row.state {
            RangeState::Importing => row.verified_attempt,
            // Undone before: leave_import confirms it.
            _ => None,
        },
        _ => {
            return Err(MoveError::Refused {
                shard: target.shard,
                operation: batch.named("stop importing"),
                why: "it is not exactly one range that this move imports: look at its book again".to_owned(),
            });
        }
    };
    reach("abort: verified read").await;
    let Some(attempt) = make_owned(source, target, batch, verified).await? else {
        return Ok(Aborted::RolledForward);
    };
    reach("abort: source owns").await;
    if leave_import(target, batch, verified, attempt).await? {
        return Ok(Aborted::Undone);
    }
    Ok(Aborted::Again {
        why: format!("shard {} has verified it meanwhile", target.shard),
    })
}

/// Makes the source own all of the range, durably, and tells the lowest attempt of it; `None` if it was given away and
/// has been rolled forward. What the source has given away by another move is as good: this one cannot be given it.
async fn make_owned(
    source: &mut ShardSession,
    target: &mut ShardSession,
    batch: &Batch,
    verified: Option<Attempt>,
) -> Result<Option<Attempt>, MoveError> {
    for row in rows_within(source, batch.range).await? {
        let part = Batch {
            range: row.range,
            ..*batch
        };
        if row.state == RangeState::Frozen && row.move_id == Some(batch.move_id) {
            thaw_now(source, &part, row.attempt).await?;
        } else if is_given_away(&row, &part) {
            return match roll_forward(source, target, &part).await? {
                HandOver::Done { .. } => Ok(None),
                other => Err(MoveError::Busy {
                    shard: source.shard,
                    operation: batch.named("roll forward"),
                    why: format!("{other:?}"),
                }),
            };
        }
    }
    // Read again, and confirmed in this session: what was thawed above, and what never was frozen.
    let rows = rows_within(source, batch.range).await?;
    confirm(source).await?;
    let is_elsewhere = |row: &RangeRow| match row.move_id {
        Some(by) => by != batch.move_id,
        // Merged since. Of a move whose rows were never verified it can be no hand-over.
        None => verified.is_none(),
    };
    let is_out_of_reach = |row: &&RangeRow| match row.state {
        RangeState::Owned => true,
        RangeState::Frozen => false,
        RangeState::Moved | RangeState::Cleaned | RangeState::Importing => is_elsewhere(row),
    };
    let settled: u64 = rows
        .iter()
        .filter(is_out_of_reach)
        .map(|row| row.range.hi.min(batch.range.hi) - row.range.lo.max(batch.range.lo))
        .sum();
    let attempt = rows.iter().map(|row| row.attempt).min();
    match attempt {
        Some(attempt) if settled == batch.range.len() => Ok(Some(attempt)),
        _ => Err(MoveError::Busy {
            shard: source.shard,
            operation: batch.named("take back"),
            why: "it does not own all of the range: somebody froze it again, or has given it away".to_owned(),
        }),
    }
}
