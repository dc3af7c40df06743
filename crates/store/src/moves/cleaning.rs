//! Deleting what a range left where it is not any more.

use sqlx::query;

use super::error::MoveError;
use super::session::ShardSession;
use super::steps::Batch;

const ORIGIN_EXISTS: &str = "SELECT EXISTS (SELECT FROM pg_replication_origin WHERE roname = $1)";
const MAKE_ORIGIN: &str = "SELECT pg_replication_origin_create($1)";
const ENTER_ORIGIN: &str = "SELECT pg_replication_origin_session_setup($1)";
const LEAVE_ORIGIN: &str = "SELECT pg_replication_origin_session_reset()";
const DROP_ORIGIN: &str = "SELECT pg_replication_origin_drop(roname) FROM pg_replication_origin WHERE roname = $1";
const CLEAN_ROWS: &str = "SELECT ringwright.clean_rows($1, $2, $3, $4)";
const MARK_CLEANED: &str = "SELECT ringwright.mark_cleaned($1, $2, $3)";

/// Of one shard and move: at the source after it, at the target after its abort. On a server with several databases
/// (in tests) both have one.
fn origin(session: &ShardSession, batch: &Batch) -> String {
    format!("ringwright_clean_{}_{}", session.shard, batch.move_id.0.as_simple())
}

/// Deletes up to `max_rows` rows of a range that is `moved` by this move, after slot and subscription were dropped; how
/// many it deleted, so zero when none is left. Call it at the pace the shard can bear.
///
/// # Errors
/// [`MoveError::Refused`] if the range is not that; [`MoveError::Busy`] while another session cleans for this move.
pub async fn clean_rows(session: &mut ShardSession, batch: &Batch, max_rows: u32) -> Result<u64, MoveError> {
    let operation = batch.named("clean");
    let origin = origin(session, batch);
    let row = session
        .fetch(&operation, query(ORIGIN_EXISTS).bind(origin.clone()))
        .await?;
    if !session.get::<bool>(&operation, &row, 0)? {
        session
            .fetch(&operation, query(MAKE_ORIGIN).bind(origin.clone()))
            .await?;
    }
    session.fetch(&operation, query(ENTER_ORIGIN).bind(origin)).await?;
    let cleaned = session
        .step(&operation, batch.bind(CLEAN_ROWS).bind(i64::from(max_rows)))
        .await;
    if cleaned.as_ref().err().is_none_or(MoveError::was_answered) {
        session.fetch(&operation, query(LEAVE_ORIGIN)).await?;
    }
    let deleted: i64 = session.get(&operation, &cleaned?, 0)?;
    Ok(deleted.max(0).cast_unsigned())
}

/// Says that nothing of the range is left here; false while something is, or if it is not `moved` by this move.
///
/// # Errors
/// What every step can meet.
pub async fn mark_cleaned(session: &mut ShardSession, batch: &Batch) -> Result<bool, MoveError> {
    let operation = batch.named("mark as cleaned");
    // First, for nobody comes back to a range that is marked. Where rows are left, or another range of the move, cleaning makes
    // it again; in use by another session, that one drops it.
    let origin = origin(session, batch);
    match session.fetch_all(&operation, query(DROP_ORIGIN).bind(origin)).await {
        Ok(_) | Err(MoveError::Busy { .. }) => {}
        Err(error) => return Err(error),
    }
    session.decide(&operation, batch.bind(MARK_CLEANED)).await
}
