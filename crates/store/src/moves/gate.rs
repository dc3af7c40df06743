//! Whether a freeze would be short: asked before, so that writers do not pay for finding out.

use std::time::Duration;

use sqlx::query;
use tokio::time::Instant;

use super::MoveId;
use super::error::MoveError;
use super::hand_over::HandOverLimits;
use super::session::ShardSession;
use super::steps::{Batch, bound};

/// By how many bytes the target is behind the source's log; null without a slot that somebody streams from.
const APPLY_LAG: &str = "SELECT (SELECT pg_wal_lsn_diff(pg_current_wal_flush_lsn(), s.confirmed_flush_lsn)::bigint
    FROM pg_replication_slots s WHERE s.slot_name = $1 AND s.database = current_database() AND s.active)";

const TABLES_NOT_READY: &str = "SELECT count(*) FILTER (WHERE r.srsubstate <> 'r'), count(*)
    FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid JOIN pg_subscription_rel r ON r.srsubid = s.oid
    WHERE s.subname = $1 AND d.datname = current_database() AND s.subenabled";

/// Members that may be promoted and would keep a commit waiting.
const SLOW_STANDBYS: &str = "SELECT coalesce(array_agg(name), '{}') FROM unnest($1::text[]) name
    WHERE NOT EXISTS (SELECT FROM pg_stat_replication r WHERE r.application_name = name AND r.state = 'streaming'
                      AND coalesce(r.flush_lag, '0') < $2 * interval '1 ms')";

/// Transactions that hold the range's lock for long already.
const LONG_HOLDERS: &str = "SELECT count(*) FROM ringwright.range_owners o
    JOIN pg_locks l ON l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted
         AND (l.classid::bigint << 32 | l.objid::bigint) = o.range_id
         AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE o.lo < $2 AND o.hi > $1 AND a.xact_start < clock_timestamp() - $3 * interval '1 ms'";

const FLUSH_POSITION: &str = "SELECT (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint";
const CONFIRMED: &str = "SELECT coalesce((SELECT (s.confirmed_flush_lsn - '0/0'::pg_lsn)::bigint >= $2
    FROM pg_replication_slots s WHERE s.slot_name = $1 AND s.database = current_database()), false)";

const POLL: Duration = Duration::from_millis(5);

/// Whether a freeze may begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    /// It would be short.
    Open,
    /// It would not, because of this.
    Shut(String),
}

/// Waits until a freeze would be short, for at most `limits.gate`: every table is copied, the target is close behind, so
/// are the members whose flush a step waits for, and nobody holds the range's lock for long.
///
/// # Errors
/// If a database does not answer.
pub async fn gate(
    source: &mut ShardSession,
    target: &mut ShardSession,
    batch: &Batch,
    limits: &HandOverLimits,
) -> Result<Gate, MoveError> {
    let began = Instant::now();
    loop {
        let Some(why) = look(source, target, batch, limits).await? else {
            return Ok(Gate::Open);
        };
        if began.elapsed() >= limits.gate {
            return Ok(Gate::Shut(why));
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn look(
    source: &mut ShardSession,
    target: &mut ShardSession,
    batch: &Batch,
    limits: &HandOverLimits,
) -> Result<Option<String>, MoveError> {
    let operation = batch.named("look whether to freeze");
    let name = batch.move_id.replication_name();
    let row = target
        .fetch(&operation, query(TABLES_NOT_READY).bind(name.clone()))
        .await?;
    let (not_ready, all): (i64, i64) = (target.get(&operation, &row, 0)?, target.get(&operation, &row, 1)?);
    if all == 0 || not_ready > 0 {
        return Ok(Some(format!("{not_ready} of {all} tables are still being copied")));
    }
    let row = source.fetch(&operation, query(APPLY_LAG).bind(name)).await?;
    match source.get::<Option<i64>>(&operation, &row, 0)? {
        None => return Ok(Some("nobody streams from the move's slot".to_owned())),
        Some(lag) if lag >= limits.apply_lag_bytes => {
            return Ok(Some(format!("shard {} is {lag} bytes behind", target.shard)));
        }
        Some(_) => {}
    }
    for session in [&mut *source, &mut *target] {
        let lag = limits.standby_lag.as_secs_f64() * 1_000.0;
        let statement = query(SLOW_STANDBYS).bind(session.standbys.clone()).bind(lag);
        let row = session.fetch(&operation, statement).await?;
        let slow: Vec<String> = session.get(&operation, &row, 0)?;
        if !slow.is_empty() {
            return Ok(Some(format!(
                "{} of shard {} flush late, or do not stream",
                slow.join(", "),
                session.shard
            )));
        }
    }
    let statement = query(LONG_HOLDERS)
        .bind(bound(batch.range.lo))
        .bind(bound(batch.range.hi))
        .bind(limits.long_holder.as_secs_f64() * 1_000.0);
    let row = source.fetch(&operation, statement).await?;
    let holders: i64 = source.get(&operation, &row, 0)?;
    Ok((holders > 0).then(|| format!("{holders} long transactions write in the range")))
}

/// Waits until the target has applied everything the source has now.
pub(crate) async fn catch_up(
    source: &mut ShardSession,
    target: &ShardSession,
    move_id: MoveId,
    limit: Duration,
) -> Result<(), MoveError> {
    let operation = format!("wait until shard {} has caught up", target.shard);
    let row = source.fetch(&operation, query(FLUSH_POSITION)).await?;
    let position: i64 = source.get(&operation, &row, 0)?;
    let began = Instant::now();
    loop {
        let statement = query(CONFIRMED).bind(move_id.replication_name()).bind(position);
        let row = source.fetch(&operation, statement).await?;
        if source.get(&operation, &row, 0)? {
            return Ok(());
        }
        if began.elapsed() >= limit {
            return Err(MoveError::Busy {
                shard: source.shard,
                operation,
                why: format!("not within {} s", limit.as_secs()),
            });
        }
        tokio::time::sleep(POLL).await;
    }
}
