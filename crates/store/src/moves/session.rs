//! A session with the master of a shard, and what makes a step durable.

use std::time::Duration;

use ring::Ordinal;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres, Row};

use super::checkpoint::{Rule, is_skipped};
use super::error::MoveError;
use crate::store::commit::{listening, read_position};
use crate::token::Lsn;

/// A statement with its parameters.
pub(super) type Statement = Query<'static, Postgres, PgArguments>;

/// A statement that takes longer has most likely lost its server.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// The same for what waits for the transactions of others: making a slot, copying a catalog.
pub(super) const PATIENT_LIMIT: Duration = Duration::from_secs(60);
/// How long members that may be promoted are waited for. One that is further behind is the operator's to deal with.
const STANDBY_LIMIT: Duration = Duration::from_secs(2);
const STANDBY_PAUSE: Duration = Duration::from_millis(1);

/// What a step must be sure of, whatever the server's, database's or role's defaults say. Nothing may end a session in
/// COMMIT: a cancelled wait for the standby answers success and shows the row.
const SETTINGS: &str = "SET client_min_messages = warning; SET synchronous_commit = on; SET statement_timeout = 0;
    SET transaction_timeout = 0; SET lock_timeout = '2s'; SET idle_in_transaction_session_timeout = '30s';
    SET client_connection_check_interval = 0; SET jit = off; SET search_path = pg_catalog;
    SET default_transaction_isolation = 'read committed'; SET default_transaction_read_only = off";

const CONFIRM: &str = "SELECT ringwright.confirm()";
/// Where the log stands, and who of `$1` has not flushed it up to there, or up to `$2`.
const FLUSHED: &str = "SELECT h.in_recovery, h.term, h.lsn, 0::bigint AS generation,
        ARRAY(SELECT name FROM unnest($1::text[]) name
            WHERE name <> ALL (ringwright.flushed_by(coalesce($2, h.lsn)))) AS missing
    FROM ringwright.here() h";

/// A session with the master of one shard, as a superuser.
#[derive(Debug)]
pub struct ShardSession {
    /// The connection. One session: what was seen in it is acted on in it.
    pub conn: PgConnection,
    /// Which shard it is.
    pub shard: Ordinal,
    /// All members as `host:port`: where a redirect sends those who come here for a range that has moved.
    pub hosts: Vec<String>,
    /// The `application_name` of every other member that may be promoted.
    pub standbys: Vec<String>,
}

impl ShardSession {
    /// Takes a superuser's connection to the master of `shard`, on the shop's database, and sets it up.
    ///
    /// # Errors
    /// If the connection fails.
    pub async fn open(
        conn: PgConnection,
        shard: Ordinal,
        hosts: Vec<String>,
        standbys: Vec<String>,
    ) -> Result<Self, MoveError> {
        let mut session = Self {
            conn,
            shard,
            hosts,
            standbys,
        };
        session.execute("set the session up", SETTINGS).await?;
        Ok(session)
    }

    /// One statement that gives one row, a transaction of its own; it has happened, for good, when this answers.
    ///
    /// The server commits it in the round trip that brings it. If it had to wait for a COMMIT, an operator that is stopped
    /// just then would keep the range's lock, and every write to the range waiting.
    pub(super) async fn step(&mut self, operation: &str, statement: Statement) -> Result<PgRow, MoveError> {
        // All rows: the answer ends with the commit.
        let rows = statement.fetch_all(&mut self.conn);
        let (rows, warning) = listening(answered(self.shard, operation, ANSWER_LIMIT, rows)).await;
        let row = rows?.pop();
        let row = row.ok_or_else(|| MoveError::of(self.shard, operation, sqlx::Error::RowNotFound))?;
        if !is_skipped(Rule::Durability) {
            self.await_durable(operation, warning).await?;
        }
        Ok(row)
    }

    /// A step that answers yes or no.
    pub(super) async fn decide(&mut self, operation: &str, statement: Statement) -> Result<bool, MoveError> {
        let row = self.step(operation, statement).await?;
        self.get(operation, &row, 0)
    }

    /// One row, outside of a transaction.
    pub(super) async fn fetch(&mut self, operation: &str, statement: Statement) -> Result<PgRow, MoveError> {
        let rows = statement.fetch_one(&mut self.conn);
        answered(self.shard, operation, ANSWER_LIMIT, rows).await
    }

    /// All rows, outside of a transaction.
    pub(super) async fn fetch_all(&mut self, operation: &str, statement: Statement) -> Result<Vec<PgRow>, MoveError> {
        let rows = statement.fetch_all(&mut self.conn);
        answered(self.shard, operation, ANSWER_LIMIT, rows).await
    }

    /// Statements without parameters or answer.
    pub(super) async fn execute(&mut self, operation: &str, sql: &'static str) -> Result<(), MoveError> {
        let done = sqlx::raw_sql(sql).execute(&mut self.conn);
        answered(self.shard, operation, ANSWER_LIMIT, done).await.map(drop)
    }

    /// A statement put together here, without parameters: only names and literals that were quoted.
    pub(super) async fn execute_built(&mut self, operation: &str, sql: String) -> Result<(), MoveError> {
        let done = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut self.conn);
        answered(self.shard, operation, PATIENT_LIMIT, done).await.map(drop)
    }

    /// A column of a row that came from this shard.
    pub(super) fn get<'r, T>(&self, operation: &str, row: &'r PgRow, column: usize) -> Result<T, MoveError>
    where
        T: sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres>,
    {
        row.try_get(column)
            .map_err(|error| MoveError::of(self.shard, operation, error))
    }

    /// Waits until no promotion can forget what was committed, with this warning if there was one.
    async fn await_durable(&mut self, operation: &str, warning: Option<String>) -> Result<(), MoveError> {
        if let Some(warning) = warning {
            let why = format!("the commit was answered with a warning: {warning}");
            return Err(self.not_durable(operation, why));
        }
        let (commit, mut missing) = self.flushed(operation, None).await?;
        let began = tokio::time::Instant::now();
        while !missing.is_empty() && began.elapsed() < STANDBY_LIMIT {
            tokio::time::sleep(STANDBY_PAUSE).await;
            (_, missing) = self.flushed(operation, Some(commit)).await?;
        }
        if missing.is_empty() {
            return Ok(());
        }
        let why = format!(
            "not flushed within {} s by {}",
            STANDBY_LIMIT.as_secs(),
            missing.join(", ")
        );
        Err(self.not_durable(operation, why))
    }

    fn not_durable(&self, operation: &str, why: String) -> MoveError {
        MoveError::NotDurable {
            shard: self.shard,
            operation: operation.to_owned(),
            why,
        }
    }

    /// Where the log stands, and which members that may be promoted have not flushed it up to there, or to `up_to`.
    async fn flushed(&mut self, operation: &str, up_to: Option<Lsn>) -> Result<(Lsn, Vec<String>), MoveError> {
        let statement = sqlx::query(FLUSHED)
            .bind(self.standbys.clone())
            .bind(up_to.map(|lsn| lsn.0.cast_signed()));
        let rows = self.fetch_all(operation, statement).await?;
        let position =
            read_position(&rows).map_err(|why| self.not_durable(operation, format!("after the commit: {why}")))?;
        let missing = match rows.last() {
            Some(row) => self.get(operation, row, 4)?,
            None => Vec::new(),
        };
        Ok((position.lsn, missing))
    }
}

/// Makes what this session has read as durable as a write: whoever acts on a state that he only read calls this after
/// the read, in the session that read it. On a new session, read again: it may be a new master's.
///
/// # Errors
/// [`MoveError::NotDurable`] if what was read may still be forgotten.
pub async fn confirm(session: &mut ShardSession) -> Result<(), MoveError> {
    if is_skipped(Rule::Confirmation) {
        return Ok(());
    }
    session
        .step("confirm what it says", sqlx::query(CONFIRM))
        .await
        .map(drop)
}

/// Bounds an exchange, and says what it was for.
pub(super) async fn answered<T>(
    shard: Ordinal,
    operation: &str,
    limit: Duration,
    exchange: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, MoveError> {
    match tokio::time::timeout(limit, exchange).await {
        Ok(outcome) => outcome.map_err(|source| MoveError::of(shard, operation, source)),
        Err(_) => Err(MoveError::Silent {
            shard,
            operation: operation.to_owned(),
            limit_s: limit.as_secs(),
        }),
    }
}
