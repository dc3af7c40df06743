//! What the person on call wants to know of a shard, as the monitoring role sees it on the master.

use sqlx::{PgConnection, Row};

use super::{AdminError, failed};

/// A shard at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vitals {
    /// The standbys that are connected.
    pub followers: Vec<Follower>,
    /// Every replication slot.
    pub slots: Vec<Slot>,
    /// Size of the shop's database on the disk, in bytes; without the log.
    pub database_bytes: i64,
    /// Events that wait to be published.
    pub outbox_events: i64,
}

/// A standby that is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Follower {
    /// The name it gives itself: its pod's.
    pub name: String,
    /// It has caught up once and follows.
    pub streams: bool,
    /// Bytes of the log that it has not replayed yet.
    pub lag_bytes: i64,
}

/// A replication slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// Bytes of the log that are kept for it; 0 where nothing is.
    pub kept_bytes: i64,
    /// What it needs is gone.
    pub lost: bool,
}

/// Nothing here writes, so that a limit of time may cut it off: an outbox may have grown to millions.
const LIMIT: &str = "SET statement_timeout = '5s'";

const FOLLOWERS: &str = "
    SELECT application_name AS name, state = 'streaming' AS streams,
           coalesce(greatest(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn), 0), 0)::bigint AS lag_bytes
      FROM pg_stat_replication WHERE state IN ('streaming', 'catchup')";

const SLOTS: &str = "
    SELECT slot_name::text AS name,
           coalesce(greatest(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0), 0)::bigint AS kept_bytes,
           coalesce(wal_status = 'lost', false) AS lost
      FROM pg_replication_slots";

const SIZES: &str = "
    SELECT pg_database_size(current_database()) AS database_bytes,
           (SELECT count(event_id) FROM ringwright.outbox) AS outbox_events";

/// Reads them. `conn` is on the shop's database of the master, of a role that is a member of `pg_monitor`.
pub async fn read_vitals(conn: &mut PgConnection) -> Result<Vitals, AdminError> {
    let operation = || "read the shard's vitals".to_owned();
    sqlx::raw_sql(LIMIT)
        .execute(&mut *conn)
        .await
        .map_err(failed(operation))?;
    let followers = sqlx::query(FOLLOWERS)
        .fetch_all(&mut *conn)
        .await
        .map_err(failed(operation))?;
    let slots = sqlx::query(SLOTS)
        .fetch_all(&mut *conn)
        .await
        .map_err(failed(operation))?;
    let sizes = sqlx::query(SIZES).fetch_one(conn).await.map_err(failed(operation))?;
    let assemble = || {
        Ok(Vitals {
            followers: followers
                .iter()
                .map(|row| {
                    Ok(Follower {
                        name: row.try_get("name")?,
                        streams: row.try_get("streams")?,
                        lag_bytes: row.try_get("lag_bytes")?,
                    })
                })
                .collect::<Result<_, sqlx::Error>>()?,
            slots: slots
                .iter()
                .map(|row| {
                    Ok(Slot {
                        name: row.try_get("name")?,
                        kept_bytes: row.try_get("kept_bytes")?,
                        lost: row.try_get("lost")?,
                    })
                })
                .collect::<Result<_, sqlx::Error>>()?,
            database_bytes: sizes.try_get("database_bytes")?,
            outbox_events: sizes.try_get("outbox_events")?,
        })
    };
    assemble().map_err(failed(operation))
}
