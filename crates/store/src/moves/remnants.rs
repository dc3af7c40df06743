//! What moves left in a database. After a move that ended, whichever way, there is nothing.

use sqlx::query;

use super::error::MoveError;
use super::session::ShardSession;

const REMNANTS: &str = "
    SELECT 'slot', slot_name::text FROM pg_replication_slots
        WHERE database = current_database() AND (starts_with(slot_name, 'ringwright_move_') OR slot_name ~ '^pg_[0-9]+_sync_')
    UNION ALL
    SELECT 'subscription', s.subname::text FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
        WHERE d.datname = current_database() AND starts_with(s.subname, 'ringwright_move_')
    UNION ALL
    SELECT 'publication', pubname::text FROM pg_publication WHERE starts_with(pubname, 'ringwright_move_')
    UNION ALL
    SELECT 'range', format('[%s, %s) %s by %s', lpad(to_hex(lo), 8, '0'), lpad(to_hex(hi), 8, '0'), state, move_id)
        FROM ringwright.range_owners WHERE state NOT IN ('owned', 'cleaned')
    UNION ALL
    SELECT 'copy', move_id::text FROM ringwright.copies
    UNION ALL
    SELECT 'marker', format('%s at %s', move_id, lpad(to_hex(lo), 8, '0')) FROM ringwright.moves
    UNION ALL
    SELECT 'rows', format('%s rows of %s', rows, relation) FROM ringwright.rows_outside()
    ORDER BY 1, 2";

/// Replication origins belong to the whole server, whatever database they were made in.
const ORIGINS: &str =
    "SELECT 'origin', roname FROM pg_replication_origin WHERE starts_with(roname, 'ringwright_clean_')
    ORDER BY 2";

const ROWS_OUTSIDE: &str = "SELECT relation, rows FROM ringwright.rows_outside()";

/// Something of a move that is still there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remnant {
    /// `slot`, `subscription`, `publication`, `range`, `copy`, `marker`, `rows` or `origin`.
    pub kind: String,
    /// Its name, or what it is.
    pub name: String,
}

/// All that moves left in this database, by query. While moves are under way, that is what they are made of.
///
/// # Errors
/// If the database does not answer.
pub async fn remnants(session: &mut ShardSession) -> Result<Vec<Remnant>, MoveError> {
    let operation = "look for what moves left behind";
    let mut found = Vec::new();
    for sql in [REMNANTS, ORIGINS] {
        for row in session.fetch_all(operation, query(sql)).await? {
            found.push(Remnant {
                kind: session.get(operation, &row, 0)?,
                name: session.get(operation, &row, 1)?,
            });
        }
    }
    Ok(found)
}

/// Rows where the book says there are none, as (table, rows); nothing when all is well.
///
/// # Errors
/// If the database does not answer.
pub async fn rows_outside(session: &mut ShardSession) -> Result<Vec<(String, u64)>, MoveError> {
    let operation = "look for rows outside of its ranges";
    let rows = session.fetch_all(operation, query(ROWS_OUTSIDE)).await?;
    rows.iter()
        .map(|row| {
            let count: i64 = session.get(operation, row, 1)?;
            Ok((session.get(operation, row, 0)?, count.max(0).cast_unsigned()))
        })
        .collect()
}
