//! The steps over single ranges, one database function each.

use std::time::Duration;

use ring::{Generation, Ordinal, Range};
use sqlx::postgres::PgRow;
use sqlx::query;

use super::error::MoveError;
use super::session::{ShardSession, Statement};
use super::{Attempt, MoveId};

const SPLIT: &str = "SELECT ringwright.split_range($1, $2, $3)";
const MERGE: &str = "SELECT ringwright.merge_ranges()";
const NEXT_CUT: &str = "SELECT ringwright.next_cut($1, $2, $3)";
const FREEZE: &str = "SELECT attempt, generation FROM ringwright.freeze($1, $2, $3, $4, $5, $6)";
const THAW_NOW: &str = "SELECT ringwright.thaw_now($2, $3, $1, $4)";
const MARK_VERIFIED: &str = "SELECT ringwright.mark_verified($1, $2, $3, $4)";
const COMMIT_MOVE: &str = "SELECT ringwright.commit_move($1, $2, $3, $4)";
const ACTIVATE: &str = "SELECT ringwright.activate($1, $2, $3, $4, $5)";
const LEAVE_IMPORT: &str = "SELECT ringwright.leave_import($1, $2, $3, $4, $5)";

/// A part of a move that changes hands as one: exactly one row of the source's book when it is frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// The move.
    pub move_id: MoveId,
    /// The positions.
    pub range: Range,
}

/// What a freeze gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frozen {
    /// Its attempt.
    pub attempt: Attempt,
    /// The generation of the range at the source.
    pub generation: Generation,
}

/// A bound as the databases store it.
pub(super) fn bound(position: u64) -> i64 {
    position.cast_signed()
}

impl Batch {
    /// A statement that begins with the move and the range.
    pub(super) fn bind(&self, sql: &'static str) -> Statement {
        query(sql)
            .bind(self.move_id.0)
            .bind(bound(self.range.lo))
            .bind(bound(self.range.hi))
    }

    pub(super) fn named(&self, step: &str) -> String {
        format!("{step} {} of move {}", self.range, self.move_id)
    }
}

/// Cuts a range of this shard's book in two; false if it is frozen, or no range of the book.
///
/// # Errors
/// [`MoveError::Busy`] if a writer holds the range for longer than 30 ms.
pub async fn split_range(session: &mut ShardSession, range: Range, cut: u64) -> Result<bool, MoveError> {
    let statement = query(SPLIT)
        .bind(bound(range.lo))
        .bind(bound(range.hi))
        .bind(bound(cut));
    session.decide(&format!("split {range} at {cut:08x}"), statement).await
}

/// Makes one row of up to 64 neighbours that say the same; by how many rows the book is shorter. Call it until it is 0.
///
/// # Errors
/// [`MoveError::Busy`] if a writer holds one of them for longer than 30 ms.
pub async fn merge_ranges(session: &mut ShardSession) -> Result<u32, MoveError> {
    let operation = "merge neighbouring ranges";
    let row = session.step(operation, query(MERGE)).await?;
    let fewer: i32 = session.get(operation, &row, 0)?;
    Ok(fewer.unsigned_abs())
}

/// Where to cut a range so that its first part holds at most `max_rows` rows; `None` when it need not be cut, or is a
/// single position.
///
/// # Errors
/// If the database does not answer.
pub async fn next_cut(session: &mut ShardSession, range: Range, max_rows: u32) -> Result<Option<u64>, MoveError> {
    let operation = format!("count the rows of {range}");
    let statement = query(NEXT_CUT)
        .bind(bound(range.lo))
        .bind(bound(range.hi))
        .bind(i64::from(max_rows));
    let row = session.fetch(&operation, statement).await?;
    let cut: Option<i64> = session.get(&operation, &row, 0)?;
    Ok(cut.map(i64::cast_unsigned))
}

/// Freezes a batch at the source for at most `pause` (1 ms to 60 s), and marks its log.
///
/// # Errors
/// [`MoveError::Busy`] if a writer holds the range for longer than 30 ms; [`MoveError::Refused`] if it is not `owned`, or
/// `frozen` by this move; [`MoveError::NotDurable`] leaves it to its deadline.
pub async fn freeze(
    source: &mut ShardSession,
    batch: &Batch,
    target: Ordinal,
    target_hosts: &[String],
    pause: Duration,
) -> Result<Frozen, MoveError> {
    let operation = batch.named("freeze");
    let pause = i64::try_from(pause.as_millis()).unwrap_or(i64::MAX);
    let statement = batch
        .bind(FREEZE)
        .bind(i32::from(target.0))
        .bind(target_hosts.join(","))
        .bind(pause);
    let row: PgRow = source.step(&operation, statement).await?;
    Ok(Frozen {
        attempt: Attempt(source.get(&operation, &row, 0)?),
        generation: Generation(source.get(&operation, &row, 1)?),
    })
}

/// Ends a freeze of this attempt, expired or not; false if there is no such freeze any more.
///
/// # Errors
/// What every step can meet.
pub async fn thaw_now(source: &mut ShardSession, batch: &Batch, attempt: Attempt) -> Result<bool, MoveError> {
    let statement = batch.bind(THAW_NOW).bind(attempt.0);
    source.decide(&batch.named("thaw"), statement).await
}

/// Records at the target that the batch is equal to what the source froze at `attempt`; false if it is not being imported
/// by this move (any more), or a later attempt has been verified.
///
/// The session must be the one that saw the marker: a failover in between could lose rows that were just compared.
///
/// # Errors
/// What every step can meet.
pub async fn mark_verified(target: &mut ShardSession, batch: &Batch, attempt: Attempt) -> Result<bool, MoveError> {
    let statement = batch.bind(MARK_VERIFIED).bind(attempt.0);
    target.decide(&batch.named("mark as verified"), statement).await
}

/// The commit point: the source gives the batch away. False if it is not as the freeze of this attempt left it.
///
/// # Errors
/// After [`MoveError::NotDurable`] the range is most likely given away: repeat, never undo.
pub async fn commit_move(source: &mut ShardSession, batch: &Batch, attempt: Attempt) -> Result<bool, MoveError> {
    let statement = batch.bind(COMMIT_MOVE).bind(attempt.0);
    source.decide(&batch.named("give away"), statement).await
}

/// The target takes the batch. `attempt` and `generation` are those of the source's `moved` row. False if the target has
/// not verified that attempt.
///
/// # Errors
/// What every step can meet.
pub async fn activate(
    target: &mut ShardSession,
    batch: &Batch,
    attempt: Attempt,
    generation: Generation,
) -> Result<bool, MoveError> {
    let statement = batch.bind(ACTIVATE).bind(attempt.0).bind(generation.0);
    target.decide(&batch.named("activate"), statement).await
}

/// The one commit that undoes an import: see [`super::abort_range`], which calls it in the order that makes it safe.
///
/// # Errors
/// What every step can meet.
pub async fn leave_import(
    target: &mut ShardSession,
    batch: &Batch,
    verified: Option<Attempt>,
    source_attempt: Attempt,
) -> Result<bool, MoveError> {
    let statement = batch
        .bind(LEAVE_IMPORT)
        .bind(verified.map(|attempt| attempt.0))
        .bind(source_attempt.0);
    target.decide(&batch.named("stop importing"), statement).await
}
