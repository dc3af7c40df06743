//! How far back the master's log goes: whether a standby that fell behind can still catch up.

use sqlx::{PgConnection, Row};

use super::{AdminError, failed};

/// A position in the log, in bytes from its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl std::fmt::Display for Lsn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// A segment's name is a timeline, then its number in two parts: eight hexadecimal digits each. The same number may be
/// there on two timelines, and segments made ready for later have higher ones.
const OLDEST: &str = "
    SELECT min(('x' || substr(name, 9, 8))::bit(32)::bigint * 4294967296
             + ('x' || substr(name, 17, 8))::bit(32)::bigint * pg_size_bytes(current_setting('wal_segment_size')))
      FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'";

/// On the master, the first byte of the log that is still there; `None` for an empty directory, which a server that runs does
/// not have.
pub async fn oldest_log(conn: &mut PgConnection) -> Result<Option<Lsn>, AdminError> {
    let oldest: Option<i64> = sqlx::query_scalar(OLDEST)
        .fetch_one(conn)
        .await
        .map_err(failed(|| "look how far back the log goes".to_owned()))?;
    Ok(oldest.map(|bytes| Lsn(bytes.cast_unsigned())))
}

/// Drops a physical slot that is lost and not in use; true if it did.
///
/// PostgreSQL 17 lets a standby stream through a lost slot, but such a slot never holds the log again: the standby would be
/// lost anew at its next pause. Patroni makes the slot of a member again when it misses it.
pub async fn drop_lost_slot(conn: &mut PgConnection, slot: &str) -> Result<bool, AdminError> {
    let operation = || format!("drop the lost replication slot {slot}");
    let row = sqlx::query(
        "SELECT pg_drop_replication_slot(slot_name)::text, true FROM pg_replication_slots
          WHERE slot_name = $1 AND slot_type = 'physical' AND wal_status = 'lost' AND NOT active",
    )
    .bind(slot)
    .fetch_optional(conn)
    .await
    .map_err(failed(operation))?;
    row.map_or(Ok(false), |row| row.try_get(1).map_err(failed(operation)))
}
