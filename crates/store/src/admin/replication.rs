//! How far back the master's log goes: whether a standby that fell behind can still catch up. And what holds the log back
//! that nobody reads any more.

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

/// The slots of moves, and those of their tables' first copies. They are made on masters alone, and one that was carried
/// over to a standby is `synced` there, so any other that a standby has is from a time when it was master. Whether it is
/// one is asked in the same statement: a slot that somebody uses is refused by the server, and on a master nothing is
/// dropped.
const DROP_STALE: &str = "
    SELECT slot_name::text, pg_drop_replication_slot(slot_name)::text FROM pg_replication_slots
     WHERE pg_is_in_recovery() AND slot_type = 'logical' AND NOT synced AND NOT active
       AND (starts_with(slot_name, 'ringwright_move_') OR slot_name ~ '^pg_[0-9]+_sync_')";

/// On a standby, drops the slots of moves that it made when it was master; their names. On a master it does nothing.
///
/// Nobody will read them again, for a move whose source failed over is begun anew, and each would hold back the standby's log.
pub async fn drop_stale_slots(conn: &mut PgConnection) -> Result<Vec<String>, AdminError> {
    let operation = || "drop the slots of moves that a standby has left from its time as master".to_owned();
    let dropped = sqlx::query(DROP_STALE)
        .fetch_all(conn)
        .await
        .map_err(failed(operation))?;
    dropped
        .iter()
        .map(|row| row.try_get(0).map_err(failed(operation)))
        .collect()
}
