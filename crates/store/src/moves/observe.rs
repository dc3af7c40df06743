//! What a shard's database says about moves.

use ring::{Generation, Ordinal, Range};
use sqlx::postgres::PgRow;
use sqlx::query;

use super::copy::copies;
use super::error::MoveError;
use super::session::ShardSession;
use super::steps::bound;
use super::{Attempt, MoveId, RangeRow, ShardView, SlotRow, SubscriptionRow, TableCopy, Timeline, WalStatus};
use crate::admin::parse_state;

const COLUMNS: &str = "range_id, lo, hi, generation, state, move_id, attempt, verified_attempt, target,
    state = 'frozen' AND ringwright.has_expired(frozen_at, deadline)";

const TERM: &str = "SELECT in_recovery, term FROM ringwright.here()";

const SLOTS: &str = "SELECT slot_name::text, active, coalesce(wal_status, 'lost'),
        invalidation_reason IS NOT NULL, failover
    FROM pg_replication_slots WHERE database = current_database() AND starts_with(slot_name, 'ringwright_move_')
    ORDER BY slot_name";

const SUBSCRIPTIONS: &str = "SELECT s.subname::text, s.subenabled,
        coalesce(t.apply_error_count + t.sync_error_count, 0),
        ARRAY(SELECT r.srrelid::regclass::text FROM pg_subscription_rel r WHERE r.srsubid = s.oid ORDER BY r.srrelid),
        ARRAY(SELECT r.srsubstate = 'r' FROM pg_subscription_rel r WHERE r.srsubid = s.oid ORDER BY r.srrelid)
    FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
         LEFT JOIN pg_stat_subscription_stats t ON t.subid = s.oid
    WHERE d.datname = current_database() AND starts_with(s.subname, 'ringwright_move_') ORDER BY 1";

const PUBLICATIONS: &str = "SELECT pubname::text FROM pg_publication
    WHERE starts_with(pubname, 'ringwright_move_') ORDER BY 1";

/// The master's timeline.
///
/// # Errors
/// [`MoveError::Refused`] if it is no master (any more).
pub async fn term(session: &mut ShardSession) -> Result<Timeline, MoveError> {
    let operation = "tell its timeline";
    let row = session.fetch(operation, query(TERM)).await?;
    let in_recovery: bool = session.get(operation, &row, 0)?;
    let term: Option<i64> = session.get(operation, &row, 1)?;
    term.filter(|_| !in_recovery)
        .and_then(|term| u32::try_from(term).ok())
        .map(Timeline)
        .ok_or_else(|| MoveError::Refused {
            shard: session.shard,
            operation: operation.to_owned(),
            why: "it is no master".to_owned(),
        })
}

/// Everything a shard's master says about moves. Read, not confirmed: a step that acts on it compares for itself.
///
/// # Errors
/// [`MoveError::Refused`] if it is no master, or its book holds a state that only a newer operator knows.
pub async fn observe(session: &mut ShardSession) -> Result<ShardView, MoveError> {
    let operation = "tell how its moves stand";
    Ok(ShardView {
        ordinal: session.shard,
        term: term(session).await?,
        rows: book(session, "true", Range::ALL).await?,
        copies: copies(session).await?,
        slots: {
            let rows = session.fetch_all(operation, query(SLOTS)).await?;
            ours(session, operation, &rows, slot_row)?
        },
        subscriptions: {
            let rows = session.fetch_all(operation, query(SUBSCRIPTIONS)).await?;
            ours(session, operation, &rows, subscription_row)?
        },
        publications: {
            let rows = session.fetch_all(operation, query(PUBLICATIONS)).await?;
            ours(session, operation, &rows, |_, _, _, move_id| Ok(move_id))?
        },
    })
}

/// The row of the book that holds all of the range.
pub(super) async fn row_around(session: &mut ShardSession, range: Range) -> Result<Option<RangeRow>, MoveError> {
    Ok(book(session, "lo <= $1 AND hi >= $2", range).await?.into_iter().next())
}

/// The rows of the book that overlap the range, in order.
pub(super) async fn rows_within(session: &mut ShardSession, range: Range) -> Result<Vec<RangeRow>, MoveError> {
    book(session, "lo < $2 AND hi > $1", range).await
}

async fn book(session: &mut ShardSession, which: &str, range: Range) -> Result<Vec<RangeRow>, MoveError> {
    let operation = "read its book of ranges";
    // Named once as typed parameters, so that a condition need not use both.
    let sql = format!(
        "SELECT {COLUMNS} FROM ringwright.range_owners, (SELECT $1::bigint, $2::bigint) given WHERE {which} ORDER BY lo"
    );
    let statement = query(sqlx::AssertSqlSafe(sql))
        .bind(bound(range.lo))
        .bind(bound(range.hi));
    let rows = session.fetch_all(operation, statement).await?;
    rows.iter().map(|row| range_row(session, operation, row)).collect()
}

fn range_row(session: &ShardSession, operation: &str, row: &PgRow) -> Result<RangeRow, MoveError> {
    let state: &str = session.get(operation, row, 4)?;
    let target: Option<i32> = session.get(operation, row, 8)?;
    Ok(RangeRow {
        range_id: session.get(operation, row, 0)?,
        range: Range {
            lo: session.get::<i64>(operation, row, 1)?.cast_unsigned(),
            hi: session.get::<i64>(operation, row, 2)?.cast_unsigned(),
        },
        generation: Generation(session.get(operation, row, 3)?),
        state: parse_state(state).ok_or_else(|| MoveError::Refused {
            shard: session.shard,
            operation: operation.to_owned(),
            why: format!("range_owners holds the state `{state}`, which only a newer operator knows"),
        })?,
        move_id: session.get::<Option<_>>(operation, row, 5)?.map(MoveId),
        attempt: Attempt(session.get(operation, row, 6)?),
        verified_attempt: session.get::<Option<_>>(operation, row, 7)?.map(Attempt),
        target: target.and_then(|target| u16::try_from(target).ok()).map(Ordinal),
        expired: session.get(operation, row, 9)?,
    })
}

/// Those rows whose first column is the name of a move's; others are none of our business.
fn ours<T>(
    session: &ShardSession,
    operation: &str,
    rows: &[PgRow],
    read: fn(&ShardSession, &str, &PgRow, MoveId) -> Result<T, MoveError>,
) -> Result<Vec<T>, MoveError> {
    let mut found = Vec::new();
    for row in rows {
        if let Ok(move_id) = MoveId::from_replication_name(session.get(operation, row, 0)?) {
            found.push(read(session, operation, row, move_id)?);
        }
    }
    Ok(found)
}

fn slot_row(session: &ShardSession, operation: &str, row: &PgRow, move_id: MoveId) -> Result<SlotRow, MoveError> {
    Ok(SlotRow {
        move_id,
        active: session.get(operation, row, 1)?,
        wal_status: match session.get::<&str>(operation, row, 2)? {
            "reserved" => WalStatus::Reserved,
            "extended" => WalStatus::Extended,
            "unreserved" => WalStatus::Unreserved,
            _ => WalStatus::Lost,
        },
        invalidated: session.get(operation, row, 3)?,
        failover: session.get(operation, row, 4)?,
    })
}

fn subscription_row(
    session: &ShardSession,
    operation: &str,
    row: &PgRow,
    move_id: MoveId,
) -> Result<SubscriptionRow, MoveError> {
    let names: Vec<String> = session.get(operation, row, 3)?;
    let ready: Vec<bool> = session.get(operation, row, 4)?;
    Ok(SubscriptionRow {
        move_id,
        enabled: session.get(operation, row, 1)?,
        tables: names
            .into_iter()
            .zip(ready)
            .map(|(table, ready)| TableCopy { table, ready })
            .collect(),
        errors: session.get(operation, row, 2)?,
    })
}
