//! PostgreSQL's parameters: what Ringwright owns, what it derives from the shard's size, what users may set.

use std::collections::BTreeMap;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Connections that logical replication of moves needs at most at once: an apply worker for each pair of shards that
/// exchanges keys and its table synchronisation workers. All these settings need a restart, so they have from the first
/// day what moves will ask for.
const LOGICAL_WORKERS: u32 = 24;

/// Parameters with fixed values. The comment says what breaks without it.
const FIXED: &[(&str, &str)] = &[
    // Moves are logical replication.
    ("wal_level", "logical"),
    ("max_replication_slots", "48"),
    ("max_wal_senders", "48"),
    ("max_sync_workers_per_subscription", "4"),
    // A prepared transaction would hold a range's lock across restarts: none are ever made.
    ("max_prepared_transactions", "0"),
    // Failover slots, of moves from strict shards and of the shop's own subscribers: the standby copies them, and the
    // master hands a change out only after the standbys have it (`synchronized_standby_slots`, see build::patroni).
    ("sync_replication_slots", "on"),
    ("hot_standby_feedback", "on"),
    // The default of 60 s would stall writes for a minute when a standby's node dies.
    ("wal_receiver_timeout", "3s"),
    ("wal_sender_timeout", "3s"),
    ("tcp_user_timeout", "3s"),
    ("tcp_keepalives_idle", "1"),
    ("tcp_keepalives_interval", "1"),
    ("tcp_keepalives_count", "3"),
    // Patroni decides what happens after a crash; a postmaster that restarts by itself hides it from Patroni.
    ("restart_after_crash", "off"),
    // Acknowledged means durable here and, where a standby is named, there.
    ("synchronous_commit", "on"),
    ("fsync", "on"),
    ("full_page_writes", "on"),
    // pg_rewind needs checksums or hints; both are on, so that a rebuilt cluster without checksums still rewinds.
    ("wal_log_hints", "on"),
    ("password_encryption", "scram-sha-256"),
    // The write fence reads a range's state in a second statement, which only this level sees afresh.
    ("default_transaction_isolation", "read committed"),
    // These would end a session that waits in COMMIT for a standby: the client would be told "done" with a warning.
    ("statement_timeout", "0"),
    ("transaction_timeout", "0"),
    ("client_connection_check_interval", "0"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    // Containers log to stderr.
    ("logging_collector", "off"),
    ("log_destination", "stderr"),
    ("log_line_prefix", "%m [%p] %q%u@%d/%a "),
    ("unix_socket_directories", "/run/postgresql"),
];

/// Why a user's parameter cannot be taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum ParameterError {
    /// Ringwright, Patroni or the image decides it.
    #[error("spec.postgres.parameters.{0} is owned by the operator: remove it")]
    Owned(String),
    /// Not the name of a parameter.
    #[error(
        "spec.postgres.parameters.{0} is not a parameter's name: use lower-case letters, digits and underscores, as SHOW ALL lists them"
    )]
    BadName(String),
    /// A line break would start another setting.
    #[error("the value of spec.postgres.parameters.{0} holds a control character: write it on one line")]
    BadValue(String),
}

/// What the parameters are derived from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Memory limit (or request) in bytes; `None` when the pod has neither.
    pub memory: Option<u64>,
    /// Size of the volume in bytes.
    pub storage: u64,
}

/// Refuses what users must not set.
pub(crate) fn check(users: &BTreeMap<String, String>) -> Result<(), ParameterError> {
    for (name, value) in users {
        let starts_well = name.starts_with(|c: char| c.is_ascii_lowercase());
        if !starts_well
            || !name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '.'))
        {
            return Err(ParameterError::BadName(name.clone()));
        }
        if crds::is_owned_parameter(name) {
            return Err(ParameterError::Owned(name.clone()));
        }
        if value.chars().any(char::is_control) {
            return Err(ParameterError::BadValue(name.clone()));
        }
    }
    Ok(())
}

/// The whole set that goes into Patroni's dynamic configuration: derived values, users' over them, owned over all.
pub(crate) fn merged(size: Size, users: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut all = derived(size);
    all.extend(users.clone());
    all.extend(owned(size));
    all
}

/// Sensible values for the shard's size, which users may override.
fn derived(size: Size) -> BTreeMap<String, String> {
    let mut values = BTreeMap::from([
        ("max_connections", "200".to_owned()),
        // A checkpoint may run for most of five minutes, so that its writes do not compete with commits.
        ("checkpoint_timeout", "5min".to_owned()),
        ("checkpoint_completion_target", "0.9".to_owned()),
        ("max_wal_size", megabytes((size.storage / 10).clamp(64 * MIB, 8 * GIB))),
        ("min_wal_size", megabytes((size.storage / 40).clamp(32 * MIB, 2 * GIB))),
        ("wal_compression", "lz4".to_owned()),
        // Network volumes answer random reads well.
        ("random_page_cost", "1.1".to_owned()),
        // Short queries only: compiling them costs more than running them.
        ("jit", "off".to_owned()),
        ("autovacuum_vacuum_scale_factor", "0.05".to_owned()),
        ("autovacuum_analyze_scale_factor", "0.02".to_owned()),
        // A client that forgot its transaction holds locks that a move would wait for. It is not in COMMIT.
        ("idle_in_transaction_session_timeout", "60s".to_owned()),
        ("log_checkpoints", "on".to_owned()),
        ("log_lock_waits", "on".to_owned()),
        ("log_autovacuum_min_duration", "10s".to_owned()),
        ("log_min_duration_statement", "1s".to_owned()),
        // A slow statement is logged without its values: they are customers' addresses.
        ("log_parameter_max_length", "0".to_owned()),
    ]);
    if let Some(memory) = size.memory {
        values.insert("shared_buffers", megabytes((memory / 4).max(32 * MIB)));
        values.insert("effective_cache_size", megabytes((memory / 4 * 3).max(64 * MIB)));
        values.insert(
            "maintenance_work_mem",
            megabytes((memory / 16).clamp(16 * MIB, 2 * GIB)),
        );
    } else {
        values.insert("shared_buffers", megabytes(128 * MIB));
    }
    values
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// Owned parameters with their values.
fn owned(size: Size) -> BTreeMap<String, String> {
    let mut values: BTreeMap<String, String> = FIXED
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    values.insert(
        "max_logical_replication_workers".to_owned(),
        LOGICAL_WORKERS.to_string(),
    );
    // Beside them: 8 parallel workers, the launcher, the slot synchronisation worker, and room to spare.
    values.insert("max_worker_processes".to_owned(), (LOGICAL_WORKERS + 16).to_string());
    // A slot whose reader is gone must not fill the volume: the standby is rebuilt then, or the move starts again.
    values.insert(
        "max_slot_wal_keep_size".to_owned(),
        megabytes((size.storage / 4).max(64 * MIB)),
    );
    values
}

fn megabytes(bytes: u64) -> String {
    format!("{}MB", bytes / MIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Size = Size {
        memory: Some(GIB),
        storage: 2 * GIB,
    };

    fn users(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn every_owned_parameter_is_refused() {
        let fixed = FIXED.iter().map(|(name, _)| *name);
        let computed = owned(SMALL);
        for name in fixed
            .chain(crds::OWNED_PARAMETERS.iter().copied())
            .chain(computed.keys().map(String::as_str))
        {
            assert_eq!(
                check(&users(&[(name, "x")])),
                Err(ParameterError::Owned(name.to_owned())),
                "{name}"
            );
        }
    }

    #[test]
    fn ordinary_parameters_are_taken_and_win_over_derived_ones() {
        let wanted = users(&[
            ("work_mem", "16MB"),
            ("shared_buffers", "300MB"),
            ("pg_stat_statements.max", "100"),
        ]);
        assert_eq!(check(&wanted), Ok(()));
        let all = merged(SMALL, &wanted);
        assert_eq!(all["work_mem"], "16MB");
        assert_eq!(all["shared_buffers"], "300MB");
        assert_eq!(all["effective_cache_size"], "768MB");
    }

    #[test]
    fn names_and_values_that_could_smuggle_a_setting_are_refused() {
        for name in ["", "Fsync", "work mem", "1a", "a'b", ".x"] {
            assert_eq!(
                check(&users(&[(name, "1")])),
                Err(ParameterError::BadName(name.to_owned())),
                "{name}"
            );
        }
        let smuggled = users(&[("work_mem", "1MB\nfsync = off")]);
        assert_eq!(check(&smuggled), Err(ParameterError::BadValue("work_mem".to_owned())));
    }

    #[test]
    fn wal_kept_for_slots_and_checkpoints_never_fills_the_volume() {
        for storage in [256 * MIB, GIB, 10 * GIB, 72 * GIB, 2048 * GIB] {
            let all = merged(Size { memory: None, storage }, &BTreeMap::new());
            let of = |name: &str| -> u64 {
                let text = all[name].strip_suffix("MB").expect("megabytes");
                text.parse::<u64>().expect("a number") * MIB
            };
            assert!(
                of("max_slot_wal_keep_size") + of("max_wal_size") <= storage / 2,
                "{storage}"
            );
        }
    }
}
