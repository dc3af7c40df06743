//! What a program tells the store at its start.

use std::path::PathBuf;
use std::time::Duration;

pub use sqlx::postgres::PgSslMode;

/// Everything a [`crate::Store`] needs beside the ring.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Shown in `pg_stat_activity`; name the program.
    pub application_name: String,
    /// Database name on every shard, `orders` by contract.
    pub database: String,
    /// Directory with the files `username` and `password`; read again when a shard refuses the login, so that a
    /// rotated password needs no restart.
    pub credentials_dir: PathBuf,
    /// How strictly the connection is encrypted and the server checked.
    pub ssl_mode: PgSslMode,
    /// PEM file of the authority that signed the shards' certificates, for `verify-ca` and `verify-full`.
    pub ca_file: Option<PathBuf>,
    /// Sizes and time limits of the connection pools.
    pub pool: PoolConfig,
    /// How reads are run when the caller does not say.
    pub reads: ReadDefaults,
    /// How long a write may wait for a shard that has no master, is frozen or redirects, before
    /// [`crate::StoreError::Unavailable`].
    pub write_deadline: Duration,
    /// The same for a read.
    pub read_deadline: Duration,
    /// How often each member is sampled (role, replay position, term) when nothing hurries.
    pub sample_interval: Duration,
}

impl StoreConfig {
    /// The defaults of production for a program called `application_name`.
    pub fn new(application_name: impl Into<String>, credentials_dir: impl Into<PathBuf>) -> Self {
        Self {
            application_name: application_name.into(),
            database: "orders".to_owned(),
            credentials_dir: credentials_dir.into(),
            ssl_mode: PgSslMode::Prefer,
            ca_file: None,
            pool: PoolConfig::default(),
            reads: ReadDefaults::default(),
            write_deadline: Duration::from_secs(8),
            read_deadline: Duration::from_secs(4),
            sample_interval: Duration::from_millis(100),
        }
    }
}

/// Connection pools are opened lazily, one a member of a shard.
#[derive(Debug, Clone)]
pub struct PoolConfig {
    /// Most connections to one member.
    pub connections: u32,
    /// How long a caller may wait for a connection that is free, or for a new one; past it the answer is `Unavailable`,
    /// never a longer queue.
    pub acquire_timeout: Duration,
    /// How long a TCP connection, TLS and login may take together. Longer than a caller waits: what was begun for one
    /// serves the next, and a server that is slow is not asked again and again.
    pub connect_timeout: Duration,
    /// Idle connections are closed after this time.
    pub idle_timeout: Duration,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            connections: 16,
            acquire_timeout: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(300),
        }
    }
}

/// How reads run unless the caller says otherwise.
#[derive(Debug, Clone, Copy)]
pub struct ReadDefaults {
    /// How master and replica are raced.
    pub race: ReadRace,
    /// A replica answers only if it shows every commit acknowledged until so long before the read was sent, by this
    /// process's monotonic clock; with a token too. Positions of the master's log are remembered for 1.5 seconds at
    /// least, so a longer time may be treated as that.
    pub max_staleness: Duration,
}

impl Default for ReadDefaults {
    fn default() -> Self {
        Self {
            race: ReadRace::Hedged,
            max_staleness: Duration::from_secs(1),
        }
    }
}

/// How a session read picks between master and replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadRace {
    /// Ask the member that has been faster; after its 95th percentile ask another too, for at most 5 % extra queries.
    Hedged,
    /// Ask master and an eligible replica at once and take whichever answers first.
    Race,
}
