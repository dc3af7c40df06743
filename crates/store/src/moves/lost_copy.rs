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

/// Tables that a worker is at work on.
const WORKED_ON: &str = "SELECT relid::regclass::text FROM pg_stat_subscription
    WHERE subname = $1 AND relid IS NOT NULL AND pid IS NOT NULL";

/// A table of the move's subscription whose first copy has lost its slot.
///
/// When a table has caught up, its worker drops the slot it read from and then commits that. If the master crashes
/// between the two, or at the commit and its standby does not have it, the table has yet to catch up, and its worker
/// starts again and again, in vain, and without being counted as an error that would switch the subscription off.
///
/// A worker that is alive may be about to commit, for as long as a standby takes. So the order of the questions matters:
/// whether a table catches up (then its slot was there), whether its slot is gone (then whoever dropped it had begun),
/// whether nobody is at work on it (then that one has ended), and whether it still catches up. Then nobody will ever end
/// it. A subscription that is being dropped at this moment looks the same, and is given up too.
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
    let operation = format!("look for those at work on the tables of move {move_id}");
    let statement = query(WORKED_ON).bind(move_id.replication_name());
    for row in target.fetch_all(&operation, statement).await? {
        let worked_on: String = target.get(&operation, &row, 0)?;
        suspects.retain(|(table, _)| *table != worked_on);
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
