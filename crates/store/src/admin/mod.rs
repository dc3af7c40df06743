//! What the operator does inside a shard's database.
//!
//! All functions are idempotent: a reconcile may call them again at any time.

use std::path::PathBuf;

use ring::{Generation, Ordinal, Range};
use secrecy::SecretString;
use sqlx::PgConnection;

pub use sqlx::postgres::PgSslMode;

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

/// A login role of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The order API.
    App,
    /// The notifier.
    Notifier,
    /// Logical replication of moved rows, and what moves do to `range_owners`.
    Mover,
    /// Streaming replication.
    Replication,
    /// `pg_rewind`.
    Rewind,
    /// Metrics and the operator's observations.
    Monitor,
}

impl Role {
    /// Every login role.
    pub const ALL: [Self; 6] = [
        Self::App,
        Self::Notifier,
        Self::Mover,
        Self::Replication,
        Self::Rewind,
        Self::Monitor,
    ];

    /// Its name in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::App => "ringwright_app",
            Self::Notifier => "ringwright_notifier",
            Self::Mover => "ringwright_mover",
            Self::Replication => "ringwright_replication",
            Self::Rewind => "ringwright_rewind",
            Self::Monitor => "ringwright_monitor",
        }
    }
}

/// The passwords of all login roles.
#[derive(Debug, Clone)]
pub struct Passwords {
    /// Of [`Role::App`].
    pub app: SecretString,
    /// Of [`Role::Notifier`].
    pub notifier: SecretString,
    /// Of [`Role::Mover`].
    pub mover: SecretString,
    /// Of [`Role::Replication`].
    pub replication: SecretString,
    /// Of [`Role::Rewind`].
    pub rewind: SecretString,
    /// Of [`Role::Monitor`].
    pub monitor: SecretString,
}

/// The newest migration a database has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SchemaVersion(pub i64);

/// Which cluster and shard a volume belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardIdentity {
    /// A lasting id of the cluster's data; survives the resource's re-creation.
    pub cluster_uid: String,
    /// The shard's ordinal.
    pub ordinal: Ordinal,
}

/// State of a range in a shard's own book.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RangeState {
    /// Written and read here.
    Owned,
    /// Read here; writes wait for a move's last step.
    Frozen,
    /// Gave it away; its rows are still to be deleted.
    Moved,
    /// Gave it away and deleted its rows.
    Cleaned,
    /// Being copied to here.
    Importing,
}

/// A row of `ringwright.range_owners`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedRange {
    /// Never reused.
    pub range_id: i64,
    /// The positions.
    pub range: Range,
    /// How often the range changed hands.
    pub generation: Generation,
    /// Its state.
    pub state: RangeState,
    /// The shard it goes or went to (`moved`, `frozen`) or comes from (`importing`).
    pub target: Option<Ordinal>,
}

impl OwnedRange {
    /// True for the states in which this shard is the owner of the data: `owned` and `frozen`.
    pub fn is_here(&self) -> bool {
        matches!(self.state, RangeState::Owned | RangeState::Frozen)
    }
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
        "could not migrate the schema: a newer operator may have migrated it, or a migration file was changed after it ran; run the newest operator"
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
    let _ = target;
    unimplemented!()
}

/// Makes the shop's database if it is not there. `conn` is a superuser's, on database `postgres`.
pub async fn ensure_database(conn: &mut PgConnection, database: &str) -> Result<(), AdminError> {
    let _ = (conn, database);
    unimplemented!()
}

/// Makes or corrects every role with its attributes, memberships and password, and the right to connect to `database`.
///
/// Passwords travel as SCRAM-SHA-256 verifiers computed here, so that no plain text reaches the server or its log. A
/// password that already fits is left alone (no needless write). Rights on tables come with the migrations.
pub async fn ensure_roles(conn: &mut PgConnection, database: &str, passwords: &Passwords) -> Result<(), AdminError> {
    let _ = (conn, database, passwords);
    unimplemented!()
}

/// Sets one role's password (as a verifier).
pub async fn reset_password(conn: &mut PgConnection, role: Role, password: &SecretString) -> Result<(), AdminError> {
    let _ = (conn, role, password);
    unimplemented!()
}

/// The SCRAM-SHA-256 verifier of a password, as `CREATE ROLE ... PASSWORD` takes it: RFC 5802, RFC 7677, with a random
/// salt and Postgres' 4096 rounds.
pub fn scram_verifier(password: &SecretString) -> SecretString {
    let _ = password;
    unimplemented!()
}

/// Brings the schema to this program's newest version, as role `ringwright_owner`. `conn` is a superuser's, on the
/// shop's database, after [`ensure_roles`].
pub async fn migrate(conn: &mut PgConnection) -> Result<SchemaVersion, AdminError> {
    let _ = conn;
    unimplemented!()
}

/// The newest migration this program carries.
pub fn newest_schema_version() -> SchemaVersion {
    unimplemented!()
}

/// The newest migration the database has; `None` before the first.
pub async fn schema_version(conn: &mut PgConnection) -> Result<Option<SchemaVersion>, AdminError> {
    let _ = conn;
    unimplemented!()
}

/// Whose volume this is; `None` on a new one.
pub async fn read_identity(conn: &mut PgConnection) -> Result<Option<ShardIdentity>, AdminError> {
    let _ = conn;
    unimplemented!()
}

/// Writes the identity on a new volume; refuses one that belongs to another cluster or shard.
pub async fn ensure_identity(conn: &mut PgConnection, identity: &ShardIdentity) -> Result<(), AdminError> {
    let _ = (conn, identity);
    unimplemented!()
}

/// The shard's whole book, in order of `lo`.
pub async fn read_ranges(conn: &mut PgConnection) -> Result<Vec<OwnedRange>, AdminError> {
    let _ = conn;
    unimplemented!()
}

/// Gives a shard that never owned anything its first ranges, generation 1. The same set again is fine; anything else
/// is refused: [`AdminError::AlreadyOwns`].
pub async fn claim_initial_ranges(conn: &mut PgConnection, ranges: &[Range]) -> Result<(), AdminError> {
    let _ = (conn, ranges);
    unimplemented!()
}
