//! The record of a move at its target: `ringwright.copies` and the ranges it imports.

use ring::Ordinal;
use sqlx::postgres::PgRow;
use sqlx::query;

use super::error::MoveError;
use super::session::ShardSession;
use super::steps::bound;
use super::{CopyRow, CopyState, ImportRange, MoveId, Timeline};

const BEGIN_IMPORT: &str = "SELECT ringwright.begin_import($1, $2, $3, $4, $5, $6, $7)";
/// The last column is not there before migration 0008, which waits while the shard takes part in a move.
const COPIES: &str =
    "SELECT move_id, source, source_term, state, freezes, last_error, (to_jsonb(c) ->> 'resumes')::bigint
    FROM ringwright.copies c ORDER BY created_at, move_id";
const SET_STATE: &str = "UPDATE ringwright.copies
    SET state = $2, last_error = coalesce($3, last_error), updated_at = now()
    WHERE move_id = $1 AND (state <> 'aborting' OR $2 = 'aborting') RETURNING true";
const SET_TERM: &str = "UPDATE ringwright.copies SET source_term = $2, updated_at = now()
    WHERE move_id = $1 AND state = 'waiting' AND coalesce(source_term, $2) = $2 RETURNING true";
const NOTE_ERROR: &str = "UPDATE ringwright.copies SET last_error = $2, updated_at = now() WHERE move_id = $1";
const COUNT_FREEZE: &str = "UPDATE ringwright.copies SET freezes = CASE WHEN $2 THEN freezes + 1 ELSE 0 END
    WHERE move_id = $1 AND ($2 OR freezes > 0)";
const FORGET_RESUMES: &str = "UPDATE ringwright.copies SET resumes = 0 WHERE move_id = $1 AND resumes > 0";
const RESUMES_ARE_COUNTED: &str = "SELECT EXISTS (SELECT FROM pg_attribute
    WHERE attrelid = 'ringwright.copies'::regclass AND attname = 'resumes' AND NOT attisdropped)";
const RESUME: &str = "SELECT ringwright.resume_copy($1)";
const FORGET: &str = "SELECT ringwright.forget_copy($1)";

/// Writes a move down at its target: all its ranges begin to be imported, or none. Again by the same id: nothing happens.
///
/// # Errors
/// [`MoveError::Refused`] if one of the ranges is not empty here.
pub async fn begin_import(
    target: &mut ShardSession,
    move_id: MoveId,
    source: Ordinal,
    source_hosts: &[String],
    ranges: &[ImportRange],
) -> Result<(), MoveError> {
    let column = |of: fn(&ImportRange) -> i64| ranges.iter().map(of).collect::<Vec<i64>>();
    let statement = query(BEGIN_IMPORT)
        .bind(move_id.0)
        .bind(i32::from(source.0))
        .bind(source_hosts.join(","))
        .bind(column(|import| bound(import.range.lo)))
        .bind(column(|import| bound(import.range.hi)))
        .bind(column(|import| import.generation.0))
        .bind(column(|import| import.attempt.0));
    let operation = format!("begin to import {} ranges by move {move_id}", ranges.len());
    target.step(&operation, statement).await.map(drop)
}

/// The moves this shard is the target of, oldest first.
///
/// # Errors
/// If the database does not answer.
pub async fn copies(target: &mut ShardSession) -> Result<Vec<CopyRow>, MoveError> {
    let operation = "read the copies";
    let rows = target.fetch_all(operation, query(COPIES)).await?;
    rows.iter().map(|row| copy_row(target, operation, row)).collect()
}

fn copy_row(target: &ShardSession, operation: &str, row: &PgRow) -> Result<CopyRow, MoveError> {
    let source: i32 = target.get(operation, row, 1)?;
    let term: Option<i64> = target.get(operation, row, 2)?;
    let freezes: i64 = target.get(operation, row, 4)?;
    let resumes: Option<i64> = target.get(operation, row, 6)?;
    Ok(CopyRow {
        move_id: MoveId(target.get(operation, row, 0)?),
        // The table's check keeps it within 16 bits.
        source: Ordinal(u16::try_from(source).unwrap_or(u16::MAX)),
        source_term: term.and_then(|term| u32::try_from(term).ok()).map(Timeline),
        state: match target.get::<&str>(operation, row, 3)? {
            "copying" => CopyState::Copying,
            "aborting" => CopyState::Aborting,
            _ => CopyState::Waiting,
        },
        expired_freezes: u32::try_from(freezes).unwrap_or(u32::MAX),
        resumes: resumes
            .and_then(|resumes| u32::try_from(resumes).ok())
            .unwrap_or(u32::MAX),
        last_error: target.get(operation, row, 5)?,
    })
}

fn word(state: CopyState) -> &'static str {
    match state {
        CopyState::Waiting => "waiting",
        CopyState::Copying => "copying",
        CopyState::Aborting => "aborting",
    }
}

/// Says how far a move is, and why if that is worth telling. There is no way back from `aborting`.
///
/// # Errors
/// [`MoveError::Refused`] if the move is not known here, or is being aborted and something else is asked for.
pub async fn set_copy_state(
    target: &mut ShardSession,
    move_id: MoveId,
    state: CopyState,
    last_error: Option<&str>,
) -> Result<(), MoveError> {
    let statement = query(SET_STATE)
        .bind(move_id.0)
        .bind(word(state))
        .bind(last_error.map(str::to_owned));
    let operation = format!("say that move {move_id} is {}", word(state));
    known(target, &operation, statement).await
}

/// Writes down the source's timeline, right before the slot is made. Once it is there it stays: of another one, what has
/// been copied is void.
///
/// # Errors
/// [`MoveError::Refused`] if the move is not known here, does not wait any more, or has another timeline.
pub async fn set_source_term(target: &mut ShardSession, move_id: MoveId, term: Timeline) -> Result<(), MoveError> {
    let statement = query(SET_TERM).bind(move_id.0).bind(i64::from(term.0));
    let operation = format!("write down the source's timeline for move {move_id}");
    known(target, &operation, statement).await
}

async fn known(
    target: &mut ShardSession,
    operation: &str,
    statement: super::session::Statement,
) -> Result<(), MoveError> {
    match target.step(operation, statement).await {
        Err(MoveError::Database {
            source: sqlx::Error::RowNotFound,
            ..
        }) => Err(MoveError::Refused {
            shard: target.shard,
            operation: operation.to_owned(),
            why: "it knows no such move, or has gone on with it".to_owned(),
        }),
        other => other.map(drop),
    }
}

/// Remembers what went wrong, for people. Not durable: it is no step.
///
/// # Errors
/// If the database does not answer.
pub async fn note_error(target: &mut ShardSession, move_id: MoveId, error: &str) -> Result<(), MoveError> {
    let operation = format!("note an error of move {move_id}");
    let statement = query(NOTE_ERROR).bind(move_id.0).bind(error.to_owned());
    target.fetch_all(&operation, statement).await.map(drop)
}

/// Switches the move's subscription on again after an error, and counts it; false when it runs, the move is not copying
/// (any more), or the last time was only a moment ago. The slot has to be there: it has kept what was written meanwhile.
///
/// # Errors
/// What every step can meet.
pub async fn resume_copy(target: &mut ShardSession, move_id: MoveId) -> Result<bool, MoveError> {
    let operation = format!("switch the subscription of move {move_id} on again");
    target.decide(&operation, query(RESUME).bind(move_id.0)).await
}

/// Counts freezes that ran out one after the other; back to none when a batch has changed hands. Not durable: a count that
/// is forgotten costs a few freezes more.
pub(super) async fn count_freeze(target: &mut ShardSession, move_id: MoveId, expired: bool) -> Result<(), MoveError> {
    let operation = format!("count the freezes of move {move_id}");
    let statement = query(COUNT_FREEZE).bind(move_id.0).bind(expired);
    target.fetch_all(&operation, statement).await?;
    if expired || !resumes_are_counted(target, &operation).await? {
        return Ok(());
    }
    // What has changed hands has come through the subscription: it works.
    let statement = query(FORGET_RESUMES).bind(move_id.0);
    target.fetch_all(&operation, statement).await.map(drop)
}

/// Whether the database has migration 0008.
async fn resumes_are_counted(target: &mut ShardSession, operation: &str) -> Result<bool, MoveError> {
    let row = target.fetch(operation, query(RESUMES_ARE_COUNTED)).await?;
    target.get(operation, &row, 0)
}

/// Forgets a move whose replication is gone; false while it imports a range.
///
/// # Errors
/// What every step can meet.
pub async fn forget_copy(target: &mut ShardSession, move_id: MoveId) -> Result<bool, MoveError> {
    target
        .decide(&format!("forget move {move_id}"), query(FORGET).bind(move_id.0))
        .await
}
