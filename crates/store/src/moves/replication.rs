//! Publication, slot and subscription of a move. All three have the move's name.

use std::time::Duration;

use ring::Range;
use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::PgSslMode;
use sqlx::query;
use tokio::time::Instant;

use super::copy::forget_copy;
use super::error::MoveError;
use super::observe::term;
use super::session::{PATIENT_LIMIT, ShardSession, answered, confirm};
use super::{MoveId, Timeline};

const PUBLICATION_EXISTS: &str = "SELECT EXISTS (SELECT FROM pg_publication WHERE pubname = $1)";
const MOVED_TABLES: &str = "SELECT relation, id_column FROM ringwright.moved_tables()";
const SLOT: &str = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1 AND database = current_database()";
const MAKE_SLOT: &str = "SELECT pg_create_logical_replication_slot($1, 'pgoutput', false, false, $2)::text";
/// Longer than to find out that none of three members of the source answers. The timeout must not cut a commit off: it would
/// look undone and be there.
const BEGIN_BOUNDED: &str = "BEGIN; SET LOCAL statement_timeout = '20s'";
const COMMIT_UNBOUNDED: &str = "SET LOCAL statement_timeout = 0; COMMIT";
const PATIENTLY: &str = "SET lock_timeout = '55s'";
const USUALLY: &str = "SET lock_timeout = '2s'";
const HAS_SETTLED: &str = "SELECT NOT EXISTS (SELECT FROM ringwright.range_owners
    WHERE state = 'importing' AND move_id = $1)";
const IDENTITY: &str = "SELECT system_identifier::text FROM pg_control_system()";
/// Slots by which subscriptions of a server copy tables, named as it does: ReplicationSlotNameForTablesync.
const SLOTS_OF_TABLES: &str = "SELECT coalesce(array_agg(slot_name::text), '{}') FROM pg_replication_slots
    WHERE database = current_database() AND slot_name ~ ('^pg_[0-9]+_sync_[0-9]+_' || $1 || '$')";
const OF_NO_SUBSCRIPTION: &str = "SELECT coalesce(array_agg(name), '{}') FROM unnest($1::text[]) name
    WHERE split_part(name, '_', 2)::oid NOT IN (SELECT oid FROM pg_subscription)";
const DROP_SLOT: &str = "SELECT pg_drop_replication_slot($1)";
const END_BACKEND: &str = "SELECT pg_terminate_backend($1)";
const FORGET_MARKERS: &str = "DELETE FROM ringwright.moves WHERE move_id = $1";
const SUBSCRIPTION_EXISTS: &str = "SELECT EXISTS (SELECT FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
    WHERE s.subname = $1 AND d.datname = current_database())";
const PROGRESS: &str = "SELECT count(*) FILTER (WHERE r.srsubstate = 'r'), count(*),
        (SELECT coalesce(sum(p.tuples_processed), 0)::bigint FROM pg_stat_progress_copy p
         JOIN pg_stat_subscription w ON w.pid = p.pid WHERE w.subname = $1),
        coalesce(bool_and(s.subenabled), false)
    FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid LEFT JOIN pg_subscription_rel r ON r.srsubid = s.oid
    WHERE s.subname = $1 AND d.datname = current_database()";

/// The password is in the statement: nothing may write or show the statement.
const HUSH: &str = "SET log_statement = none; SET log_min_error_statement = panic; SET log_min_duration_statement = -1;
    SET log_min_duration_sample = -1; SET log_error_verbosity = terse; SET track_activities = off";
const SPEAK: &str = "RESET log_statement; RESET log_min_error_statement; RESET log_min_duration_statement;
    RESET log_min_duration_sample; RESET log_error_verbosity; RESET track_activities";

/// How long a slot's last reader is waited for.
const RELEASE_LIMIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);

/// Where a subscription connects to: whichever of the members is the master, as the role that only reads.
#[derive(Debug, Clone)]
pub struct Publisher {
    /// Members of the source as `host:port`.
    pub hosts: Vec<String>,
    /// The shop's database.
    pub database: String,
    /// `ringwright_mover`.
    pub user: String,
    /// Its password.
    pub password: SecretString,
    /// How strictly the connection is encrypted and the server checked.
    pub ssl_mode: PgSslMode,
    /// The authority's certificate, as the target's server sees the file.
    pub ca_file: Option<String>,
}

/// How far a subscription's first copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CopyProgress {
    /// Tables that are copied and follow the source.
    pub tables_ready: u64,
    /// All its tables; zero if there is no such subscription.
    pub tables: u64,
    /// Rows of the tables that are being copied right now.
    pub rows_copying: u64,
    /// Whether it runs: it stops at the first error.
    pub enabled: bool,
}

fn name_of(move_id: MoveId) -> String {
    move_id.replication_name()
}

/// `'...'` as SQL takes it with standard_conforming_strings.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Publishes the rows of these ranges, and the marks of the move. The ranges are fixed: a filter that is widened later
/// skips rows silently, so one that is there is left as it is.
///
/// # Errors
/// If the database refuses.
pub async fn ensure_publication(source: &mut ShardSession, move_id: MoveId, ranges: &[Range]) -> Result<(), MoveError> {
    let operation = format!("publish {} ranges for move {move_id}", ranges.len());
    let name = name_of(move_id);
    let row = source
        .fetch(&operation, query(PUBLICATION_EXISTS).bind(name.clone()))
        .await?;
    if source.get(&operation, &row, 0)? {
        return Ok(());
    }
    let mut tables = vec![format!("ringwright.moves WHERE (move_id = '{move_id}')")];
    for row in source.fetch_all(&operation, query(MOVED_TABLES)).await? {
        let (relation, column): (String, String) = (source.get(&operation, &row, 0)?, source.get(&operation, &row, 1)?);
        let filter: Vec<String> = ranges.iter().map(|range| row_filter(&column, *range)).collect();
        tables.push(format!("{relation} WHERE ({})", filter.join(" OR ")));
    }
    // Never truncate: it would ignore the filters.
    let sql = format!(
        "CREATE PUBLICATION {name} FOR TABLE {} WITH (publish = 'insert, update, delete')",
        tables.join(", ")
    );
    source.execute_built(&operation, sql).await
}

fn row_filter(column: &str, range: Range) -> String {
    match range.end_id() {
        Some(end) => format!("({column} >= '{}' AND {column} < '{end}')", range.lowest_id()),
        None => format!("({column} >= '{}')", range.lowest_id()),
    }
}

/// Makes the move's slot if the source is still on this timeline; false if it is not. The target has to know the timeline
/// before: a slot does not outlive its master.
///
/// A `failover` slot hands a change out only after the source's standbys have it. It is made for that alone, and no use is
/// made of what a standby has of it: docs/adr/0007-the-slot-of-a-move-is-no-failover-slot.md.
///
/// # Errors
/// If the database refuses. Waits for the transactions that are running.
pub async fn ensure_slot(
    source: &mut ShardSession,
    move_id: MoveId,
    timeline: Timeline,
    failover: bool,
) -> Result<bool, MoveError> {
    let operation = format!("make the slot of move {move_id}");
    if term(source).await? != timeline {
        return Ok(false);
    }
    let name = name_of(move_id);
    let there = source.fetch_all(&operation, query(SLOT).bind(name.clone())).await?;
    if there.is_empty() {
        // It waits for every transaction that is running, as for a lock.
        source.execute(&operation, PATIENTLY).await?;
        let made = query(MAKE_SLOT).bind(name).bind(failover).fetch_one(&mut source.conn);
        let made = answered(source.shard, &operation, PATIENT_LIMIT, made).await;
        if made.as_ref().err().is_none_or(MoveError::was_answered) {
            source.execute(&operation, USUALLY).await?;
        }
        made?;
    }
    // A session does not survive a promotion, so the slot is of the timeline that was seen in it.
    Ok(true)
}

/// Subscribes the target to the move's publication by its slot, which has to be there, and begins to copy. The slot, and
/// those of the tables' first copies, become failover slots or none.
///
/// # Errors
/// If the source cannot be reached from the target's server, or the database refuses.
pub async fn ensure_subscription(
    target: &mut ShardSession,
    move_id: MoveId,
    publisher: &Publisher,
    failover: bool,
) -> Result<(), MoveError> {
    let operation = format!("subscribe to move {move_id}");
    if subscription_exists(target, &operation, move_id).await? {
        return Ok(());
    }
    let name = name_of(move_id);
    // copy_data by the tables' workers, then the log from the slot. Never what another shard's replication wrote at the
    // source. Off at the first error, a lost connection too: the operator decides (`resume_copy`). With synchronous_commit
    // off (the default) rows would be confirmed to the source that a failover of this shard loses.
    let sql = format!(
        "CREATE SUBSCRIPTION {name} CONNECTION {} PUBLICATION {name} WITH (create_slot = false, slot_name = '{name}',
             copy_data = true, binary = true, streaming = off, origin = none, disable_on_error = true,
             synchronous_commit = 'on', run_as_owner = false, failover = {failover})",
        literal(publisher.conninfo().expose_secret())
    );
    target.execute(&operation, HUSH).await?;
    let made = target.execute_built(&operation, sql).await;
    if made.as_ref().err().is_none_or(MoveError::was_answered) {
        target.execute(&operation, SPEAK).await?;
    }
    made
}

async fn subscription_exists(target: &mut ShardSession, operation: &str, move_id: MoveId) -> Result<bool, MoveError> {
    let row = target
        .fetch(operation, query(SUBSCRIPTION_EXISTS).bind(name_of(move_id)))
        .await?;
    target.get(operation, &row, 0)
}

impl Publisher {
    fn conninfo(&self) -> SecretString {
        let quoted = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
        let (hosts, ports): (Vec<&str>, Vec<&str>) = self
            .hosts
            .iter()
            .map(|host| host.rsplit_once(':').unwrap_or((host.as_str(), "5432")))
            .unzip();
        let mut pairs = vec![
            ("host", hosts.join(",")),
            ("port", ports.join(",")),
            ("dbname", self.database.clone()),
            ("user", self.user.clone()),
            ("password", self.password.expose_secret().to_owned()),
            ("sslmode", ssl_mode_word(self.ssl_mode).to_owned()),
            ("target_session_attrs", "primary".to_owned()),
            ("connect_timeout", "5".to_owned()),
            ("keepalives_idle", "1".to_owned()),
            ("keepalives_interval", "1".to_owned()),
            ("keepalives_count", "3".to_owned()),
            ("tcp_user_timeout", "3000".to_owned()),
        ];
        if let Some(file) = &self.ca_file {
            pairs.push(("sslrootcert", file.clone()));
        }
        let pairs: Vec<String> = pairs
            .into_iter()
            .map(|(key, value)| format!("{key}={}", quoted(&value)))
            .collect();
        pairs.join(" ").into()
    }
}

fn ssl_mode_word(mode: PgSslMode) -> &'static str {
    match mode {
        PgSslMode::Disable => "disable",
        PgSslMode::Allow => "allow",
        PgSslMode::Prefer => "prefer",
        PgSslMode::Require => "require",
        PgSslMode::VerifyCa => "verify-ca",
        PgSslMode::VerifyFull => "verify-full",
    }
}

/// How far the first copy is.
///
/// # Errors
/// If the database does not answer.
pub async fn copy_progress(target: &mut ShardSession, move_id: MoveId) -> Result<CopyProgress, MoveError> {
    let operation = format!("tell how far the copy of move {move_id} is");
    let row = target.fetch(&operation, query(PROGRESS).bind(name_of(move_id))).await?;
    let count = |column| {
        target
            .get::<i64>(&operation, &row, column)
            .map(|count| count.max(0).cast_unsigned())
    };
    Ok(CopyProgress {
        tables_ready: count(0)?,
        tables: count(1)?,
        rows_copying: count(2)?,
        enabled: target.get(&operation, &row, 3)?,
    })
}

/// Ends a move's replication, in the order that keeps its record longest: whoever goes on with it after an operator died
/// finds all that is left. False while the target imports a range by the move.
///
/// What the target says of its ranges was only read, and is confirmed first: the record must outlive every activation, and
/// every import that was left, that a failover could still take back.
///
/// # Errors
/// [`MoveError::NotDurable`] if a failover could take something back; [`MoveError::Busy`] if something stays in use.
pub async fn drop_replication(
    source: &mut ShardSession,
    target: &mut ShardSession,
    move_id: MoveId,
) -> Result<bool, MoveError> {
    let operation = format!("look whether move {move_id} has come to its end");
    let row = target.fetch(&operation, query(HAS_SETTLED).bind(move_id.0)).await?;
    if !target.get(&operation, &row, 0)? {
        return Ok(false);
    }
    confirm(target).await?;
    drop_subscription(target, move_id).await?;
    drop_slots_of_tables(source, target).await?;
    drop_move_slot(source, move_id).await?;
    drop_publication(source, move_id).await?;
    forget_copy(target, move_id).await
}

/// Ends the move's replication at the target; nothing of it is applied when this returns. The slot is left to
/// [`drop_move_slot`]: dropping it from here would need the source to be reached.
///
/// # Errors
/// [`MoveError::Busy`] if somebody else keeps changing or holding it; others if the database refuses.
pub async fn drop_subscription(target: &mut ShardSession, move_id: MoveId) -> Result<(), MoveError> {
    let operation = format!("drop the subscription of move {move_id}");
    let began = Instant::now();
    while subscription_exists(target, &operation, move_id).await? {
        match unsubscribe(target, &operation, move_id).await {
            // A worker that met an error disables its subscription itself, perhaps in between.
            Err(MoveError::Busy { .. }) if began.elapsed() < PATIENT_LIMIT => tokio::time::sleep(POLL).await,
            other => return other,
        }
    }
    Ok(())
}

async fn unsubscribe(target: &mut ShardSession, operation: &str, move_id: MoveId) -> Result<(), MoveError> {
    let name = name_of(move_id);
    for change in [
        format!("ALTER SUBSCRIPTION {name} DISABLE"),
        format!("ALTER SUBSCRIPTION {name} SET (slot_name = NONE)"),
    ] {
        target.execute_built(operation, change).await?;
    }
    // For every table that is not copied yet it asks the source to drop a slot, and waits for whoever still makes that
    // slot; who waits, in turn, for running transactions: on a server with both databases (in tests) for this one too.
    target.execute(operation, BEGIN_BOUNDED).await?;
    let dropped = target
        .execute_built(operation, format!("DROP SUBSCRIPTION IF EXISTS {name}"))
        .await;
    match &dropped {
        Ok(()) => target.execute(operation, COMMIT_UNBOUNDED).await?,
        Err(error) if error.was_answered() => target.execute(operation, "ROLLBACK").await?,
        Err(_) => {}
    }
    dropped
}

/// Drops the slots by which the target's subscriptions copied tables of the source, if the subscription is gone. The
/// server does it itself when it drops one; but where it cannot reach the source it leaves them.
async fn drop_slots_of_tables(source: &mut ShardSession, target: &mut ShardSession) -> Result<(), MoveError> {
    let operation = format!("drop slots that subscriptions of shard {} left", target.shard);
    let row = target.fetch(&operation, query(IDENTITY)).await?;
    let identity: String = target.get(&operation, &row, 0)?;
    let row = source.fetch(&operation, query(SLOTS_OF_TABLES).bind(identity)).await?;
    let slots: Vec<String> = source.get(&operation, &row, 0)?;
    // In this order: a subscription is there before its slots are.
    let row = target.fetch(&operation, query(OF_NO_SUBSCRIPTION).bind(slots)).await?;
    for name in target.get::<Vec<String>>(&operation, &row, 0)? {
        drop_slot(source, &operation, &name).await?;
    }
    Ok(())
}

/// Drops the move's slot at the source, after its subscription. Who still streams from it is ended: the subscription is
/// gone, and its worker's end may not have been noticed.
///
/// # Errors
/// [`MoveError::Busy`] if it stays in use.
pub async fn drop_move_slot(source: &mut ShardSession, move_id: MoveId) -> Result<(), MoveError> {
    let operation = format!("drop the slot of move {move_id}");
    drop_slot(source, &operation, &name_of(move_id)).await
}

async fn drop_slot(source: &mut ShardSession, operation: &str, name: &str) -> Result<(), MoveError> {
    let began = Instant::now();
    loop {
        let rows = source.fetch_all(operation, query(SLOT).bind(name.to_owned())).await?;
        let Some(row) = rows.first() else { return Ok(()) };
        match source.get::<Option<i32>>(operation, row, 0)? {
            Some(pid) => source.fetch(operation, query(END_BACKEND).bind(pid)).await.map(drop)?,
            None => match source.fetch(operation, query(DROP_SLOT).bind(name.to_owned())).await {
                Ok(_) => return Ok(()),
                // Taken again in between.
                Err(MoveError::Busy { .. }) => {}
                Err(error) => return Err(error),
            },
        }
        if began.elapsed() >= RELEASE_LIMIT {
            return Err(MoveError::Busy {
                shard: source.shard,
                operation: operation.to_owned(),
                why: format!("{name} is in use for longer than {} s", RELEASE_LIMIT.as_secs()),
            });
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Drops the move's publication and its marks at the source. From here on nobody can freeze for this move.
///
/// # Errors
/// If the database refuses.
pub async fn drop_publication(source: &mut ShardSession, move_id: MoveId) -> Result<(), MoveError> {
    let operation = format!("drop the publication of move {move_id}");
    source
        .execute_built(&operation, format!("DROP PUBLICATION IF EXISTS {}", name_of(move_id)))
        .await?;
    let statement = query(FORGET_MARKERS).bind(move_id.0);
    source.fetch_all(&operation, statement).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_string_quotes_what_needs_it() {
        let publisher = Publisher {
            hosts: vec!["a.b:5432".to_owned(), "c:6".to_owned()],
            database: "or'ders".to_owned(),
            user: "mover".to_owned(),
            password: r"pa'ss\word".to_owned().into(),
            ssl_mode: PgSslMode::VerifyFull,
            ca_file: None,
        };
        let text = publisher.conninfo();
        let text = text.expose_secret();
        assert!(text.starts_with(r"host='a.b,c' port='5432,6' dbname='or\'ders' user='mover' password='pa\'ss\\word'"));
        assert!(text.contains("sslmode='verify-full'"));
        assert!(
            !format!("{publisher:?}").contains(r"ss\\word"),
            "passwords are not shown"
        );
    }

    #[test]
    fn the_last_range_has_no_end_in_its_filter() {
        let last = Range {
            lo: 1 << 31,
            hi: 1 << 32,
        };
        assert_eq!(row_filter("id", last), "(id >= '80000000-0000-0000-0000-000000000000')");
        let first = Range { lo: 0, hi: 16 };
        assert_eq!(
            row_filter("id", first),
            "(id >= '00000000-0000-0000-0000-000000000000' AND id < '00000010-0000-0000-0000-000000000000')"
        );
    }
}
