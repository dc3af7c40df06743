//! What the operator does inside a shard's database.
//!
//! All functions are idempotent: a reconcile may call them again at any time.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};

mod identity;
mod ranges;
mod replication;
mod roles;
mod schema;
mod scram;
mod settings;
mod size;
mod vitals;

pub use identity::{ShardIdentity, ensure_identity, read_identity};
pub(crate) use ranges::parse_state;
pub use ranges::{OwnedRange, RangeState, claim_initial_ranges, read_ranges};
pub use replication::{Lsn, drop_lost_slot, drop_stale_slots, oldest_log};
pub use roles::{Passwords, Role, ensure_database, ensure_roles, reset_password};
pub use schema::{SchemaVersion, backend, blockers, migrate, migrate_telling, newest_schema_version, schema_version};
pub use scram::scram_verifier;
pub use settings::{Setting, SettingKind, read_settings};
pub use size::{Size, size};
pub use sqlx::postgres::PgSslMode;
pub use vitals::{Follower, Slot, Vitals, read_vitals};

/// How long a connection may take, login included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where and as whom to connect.
#[derive(Debug, Clone)]
pub struct AdminTarget {
    /// `host:port` of the master.
    pub host: String,
    /// Database; `postgres` for [`ensure_database`] and [`ensure_roles`], the shop's otherwise.
    pub database: String,
    /// User, the superuser for everything in this module.
    pub user: String,
    /// Its password.
    pub password: SecretString,
    /// How strictly the connection is encrypted and the server checked.
    pub ssl_mode: PgSslMode,
    /// PEM file of the authority that signed the server's certificate.
    pub ca_file: Option<PathBuf>,
}

/// Why the operator's work in a database failed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// No connection.
    #[error(
        "could not connect to database `{database}` on {host} as `{user}`: check that the master is up and that the Secret's password is the database's"
    )]
    Connect {
        /// `host:port`.
        host: String,
        /// The database.
        database: String,
        /// The user.
        user: String,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// A statement failed.
    #[error("could not {operation}")]
    Database {
        /// What was attempted, on what.
        operation: String,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// A migration failed or the database is newer than this program.
    #[error(
        "could not migrate the schema; if it is said to miss or differ in a version, a newer operator has migrated it: run that one"
    )]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// The volume belongs to another cluster or shard.
    #[error(
        "this database belongs to shard {found_ordinal} of cluster data {found_uid}, not to shard {wanted_ordinal} of {wanted_uid}: attach the right volume, or delete this one by hand if its data is not wanted"
    )]
    WrongIdentity {
        /// The cluster's id in the database.
        found_uid: String,
        /// The ordinal in the database.
        found_ordinal: u16,
        /// The cluster's id wanted.
        wanted_uid: String,
        /// The ordinal wanted.
        wanted_ordinal: u16,
    },
    /// The shard has ranges already, and others than asked for.
    #[error(
        "the shard already has {existing} ranges in its book, which differ from the {wanted} asked for: a shard that ever owned data is never planned anew, rebuild the ring from what the shards own"
    )]
    AlreadyOwns {
        /// Rows in its book.
        existing: usize,
        /// Ranges asked for.
        wanted: usize,
    },
    /// The database cannot be worked with as it is.
    #[error("{0}")]
    Refused(String),
}

/// Connects for the other functions of this module.
pub async fn connect(target: &AdminTarget) -> Result<PgConnection, AdminError> {
    let refused = |source| AdminError::Connect {
        host: target.host.clone(),
        database: target.database.clone(),
        user: target.user.clone(),
        source,
    };
    let (host, port) = crate::store::connect::host_and_port(&target.host)
        .ok_or_else(|| AdminError::Refused(format!("`{}` is not host:port", target.host)))?;
    let mut options = PgConnectOptions::new_without_pgpass()
        .host(host)
        .port(port)
        .database(&target.database)
        .username(&target.user)
        .password(target.password.expose_secret())
        .ssl_mode(target.ssl_mode)
        .application_name("ringwright-operator")
        .disable_statement_logging();
    if let Some(ca) = &target.ca_file {
        options = options.ssl_root_cert(ca);
    }
    match tokio::time::timeout(CONNECT_TIMEOUT, PgConnection::connect_with(&options)).await {
        Ok(connected) => connected.map_err(refused),
        Err(_) => Err(refused(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))),
    }
}

/// Turns a database's answer into an error that says what was attempted.
fn failed(operation: impl Fn() -> String) -> impl Fn(sqlx::Error) -> AdminError {
    move |source| AdminError::Database {
        operation: operation(),
        source,
    }
}
