//! First copies that can never come to their end.

use sqlx::query;

use super::MoveId;
use super::error::MoveError;
use super::session::ShardSession;

/// Tables whose rows are copied and that have to catch up with the subscription now, each with the slot that its worker
/// reads from at the source: `ReplicationSlotNameForTablesync` of PostgreSQL.
const CATCHING_UP: &str = "SELECT r.srrelid::regclass::text,
        format('pg_%s_sync_%s_%s', s.oid, r.srrelid, (SELECT system_identifier FROM pg_control_system()))
    FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid JOIN pg_subscription_rel r ON r.srsubid = s.oid
    WHERE s.subname = $1 AND d.datname = current_database() AND r.srsubstate = 'f' ORDER BY 1";
const THERE: &str = "SELECT slot_name::text FROM pg_replication_slots
    WHERE database = current_database() AND slot_name = ANY ($1)";

/// A table of the move's subscription whose first copy has lost its slot.
///
/// A table's worker commits that the table has caught up, and then drops the slot it read from. A master that crashes
/// between the two, and does not wait for its standby any more as it dies, has dropped the slot for a commit that the
/// new master does not have: there the table has yet to catch up, and its worker starts again and again, in vain, and
/// without being counted as an error that would switch the subscription off.
///
/// It is asked at the target, at the source, and at the target again. The slot is there before the table begins to
/// catch up. So if it is gone, and the table is still catching up after that was seen, nobody will ever make it again.
///
/// # Errors
/// If one of the databases does not answer.
pub async fn lost_table(
    source: &mut ShardSession,
    target: &mut ShardSession,
    move_id: MoveId,
) -> Result<Option<String>, MoveError> {
    let mut suspects = catching_up(target, move_id).await?;
    if suspects.is_empty() {
        return Ok(None);
    }
    let operation = format!("look for the slots by which move {move_id} copies its tables");
    let needed: Vec<String> = suspects.iter().map(|(_, slot)| slot.clone()).collect();
    for row in source.fetch_all(&operation, query(THERE).bind(needed)).await? {
        let there: String = source.get(&operation, &row, 0)?;
        suspects.retain(|(_, slot)| *slot != there);
    }
    if suspects.is_empty() {
        return Ok(None);
    }
    let still = catching_up(target, move_id).await?;
    let lost = suspects.into_iter().find(|suspect| still.contains(suspect));
    Ok(lost.map(|(table, _)| table))
}

async fn catching_up(target: &mut ShardSession, move_id: MoveId) -> Result<Vec<(String, String)>, MoveError> {
    let operation = format!("tell which tables of move {move_id} catch up");
    let statement = query(CATCHING_UP).bind(move_id.replication_name());
    let rows = target.fetch_all(&operation, statement).await?;
    let read = |row| Ok((target.get(&operation, row, 0)?, target.get(&operation, row, 1)?));
    rows.iter().map(read).collect()
}
