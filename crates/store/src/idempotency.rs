//! Idempotency keys: the same key and request give the same answer, once.
//!
//! Only successful requests store an answer; one that failed left nothing behind, so its key may be tried again.

use std::time::{Duration, Instant};

use ring::Ordinal;
use row_id::{KeyId, Position};
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres, Row};
use uuid::Uuid;

use crate::error::StoreError;
use crate::outbox::OutboxEvent;
use crate::store::Store;
use crate::store::fault::Refusal;
use crate::store::write::{Place, Work};
use crate::token::ReadToken;

/// How long a key is kept.
pub const KEPT: Duration = Duration::from_secs(24 * 3600);

/// A client's key for one request. Every write takes one: a caller whose client sent none makes a random one, because
/// a commit of unknown outcome is settled through it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The authenticated client (the name of its API key): keys of two clients never meet.
    pub client: String,
    /// What the client sent, or a random text.
    pub key: String,
    /// Hash of method, path and body.
    pub request: RequestHash,
}

impl IdempotencyKey {
    /// The key of item `index` of a batch sent under this key.
    pub fn item(&self, index: usize, request: RequestHash) -> Self {
        Self {
            client: self.client.clone(),
            key: format!("{}#{index}", self.key),
            request,
        }
    }

    /// The id of its row at a user's position: a key's scope is its client and user, so that its row commits with
    /// the user's rows.
    pub(crate) fn id_at(&self, position: Position) -> KeyId {
        KeyId::derive(position, &self.content())
    }

    /// The id of its row where no user exists yet: at the position of the key itself.
    pub(crate) fn id_of_its_own(&self) -> KeyId {
        let content = self.content();
        KeyId::derive(Position::of(&content), &content)
    }

    /// The length keeps `ab` + `c` and `a` + `bc` apart.
    fn content(&self) -> Vec<u8> {
        let length = (self.client.len() as u64).to_be_bytes();
        [&length, self.client.as_bytes(), self.key.as_bytes()].concat()
    }
}

/// SHA-256 over what makes two requests the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestHash(pub [u8; 32]);

/// The answer that a repeat gets again, byte by byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredResponse {
    /// HTTP status.
    pub status: u16,
    /// Value of the `Location` header.
    pub location: Option<String>,
    /// Value of the `ETag` header.
    pub etag: Option<String>,
    /// The body exactly as sent (text, not jsonb, which would reorder it).
    pub body: String,
}

/// The outcome of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// What to answer: rendered by this write, or stored by the first one with this key.
    pub response: StoredResponse,
    /// True when an earlier request with this key did the work.
    pub repeated: bool,
    /// Events committed by this write, to be published at once; pollers take them only after a short while.
    pub events: Vec<OutboxEvent>,
    /// Covers the write.
    pub token: ReadToken,
}

/// Stores a finished key with its answer, in the statement that does the work: the first named table expression of it.
/// Takes the parameters $1 to $6, see [`bind_key`]. No row: a key of this id is there already.
macro_rules! with_key {
    ($rest:expr) => {
        concat!(
            "WITH key AS (
                 INSERT INTO ringwright.idempotency_keys (key_id, request_hash, state, status, location, etag, body)
                 VALUES ($1, $2, 'done', $3, $4, $5, $6) ON CONFLICT DO NOTHING RETURNING key_id), ",
            $rest
        )
    };
}
pub(crate) use with_key;

/// Binds what [`with_key!`] takes.
pub(crate) fn bind_key<'q>(
    query: Query<'q, Postgres, PgArguments>,
    id: KeyId,
    key: &'q IdempotencyKey,
    response: &'q StoredResponse,
) -> Query<'q, Postgres, PgArguments> {
    query
        .bind(id.uuid())
        .bind(key.request.0.as_slice())
        .bind(i32::from(response.status))
        .bind(response.location.as_deref())
        .bind(response.etag.as_deref())
        .bind(response.body.as_str())
}

/// A key's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FoundKey {
    /// The work is done.
    Done(StoredResponse),
    /// The work was begun on this id; somebody is at it as long as the lease lasts.
    Running {
        resource: Uuid,
        holder: Uuid,
        leased_for: Option<Duration>,
    },
}

const FIND: &str = "SELECT request_hash, state, resource_id, lease_holder, status, location, etag, body,
        (extract(epoch FROM lease_until - clock_timestamp()) * 1000)::bigint AS leased_ms
    FROM ringwright.idempotency_keys WHERE key_id = $1";

const CONFIRM: &str = "SELECT ringwright.confirm()";

/// Looks a key up; another request under it is [`StoreError::KeyReuse`].
pub(crate) async fn find(
    conn: &mut PgConnection,
    id: KeyId,
    request: RequestHash,
) -> Result<Option<FoundKey>, Refusal> {
    let Some(row) = sqlx::query(FIND).bind(id.uuid()).fetch_optional(conn).await? else {
        return Ok(None);
    };
    if row.try_get::<&[u8], _>("request_hash")? != request.0 {
        return Err(StoreError::KeyReuse.into());
    }
    from_row(&row).map(Some)
}

fn from_row(row: &PgRow) -> Result<FoundKey, Refusal> {
    if row.try_get::<&str, _>("state")? == "done" {
        let status: i32 = row.try_get("status")?;
        return Ok(FoundKey::Done(StoredResponse {
            status: u16::try_from(status).map_err(|_| Refusal::BadRow(format!("status {status}")))?,
            location: row.try_get("location")?,
            etag: row.try_get("etag")?,
            body: row.try_get("body")?,
        }));
    }
    let leased_ms: Option<i64> = row.try_get("leased_ms")?;
    Ok(FoundKey::Running {
        resource: row.try_get("resource_id")?,
        holder: row.try_get("lease_holder")?,
        leased_for: leased_ms
            .and_then(|ms| u64::try_from(ms).ok())
            .map(Duration::from_millis),
    })
}

/// The stored answer of a key whose work is done.
///
/// It was only read here, and what is read need not survive a failover yet: the commit of this transaction must wait
/// for the standby like the one that wrote the row, so it is made one that writes.
pub(crate) async fn repeat(
    conn: &mut PgConnection,
    id: KeyId,
    request: RequestHash,
) -> Result<Option<StoredResponse>, Refusal> {
    match find(conn, id, request).await? {
        None => Ok(None),
        Some(FoundKey::Done(response)) => {
            confirm(conn).await?;
            Ok(Some(response))
        }
        Some(FoundKey::Running { leased_for, .. }) => Err(StoreError::InProgress {
            retry_after: leased_for.unwrap_or(Duration::from_secs(1)),
        }
        .into()),
    }
}

/// Makes this transaction's commit wait for the standby, whatever else it wrote.
pub(crate) async fn confirm(conn: &mut PgConnection) -> Result<(), Refusal> {
    sqlx::query(CONFIRM).execute(conn).await?;
    Ok(())
}

/// What the body of a keyed write gives.
pub(crate) struct Keyed {
    pub(crate) response: StoredResponse,
    pub(crate) repeated: bool,
    pub(crate) events: Vec<OutboxEvent>,
}

impl Keyed {
    pub(crate) fn repeated(response: StoredResponse) -> Self {
        Self {
            response,
            repeated: true,
            events: Vec::new(),
        }
    }

    pub(crate) fn written(self, token: ReadToken) -> Written {
        Written {
            response: self.response,
            repeated: self.repeated,
            events: self.events,
            token,
        }
    }
}

/// A key's row that says only which request the key stands for: the parts of the request store what they were answered
/// under keys of their own.
const BIND: &str = "INSERT INTO ringwright.idempotency_keys (key_id, request_hash, state, status, body)
    VALUES ($1, $2, 'done', 200, '') ON CONFLICT DO NOTHING RETURNING key_id";

struct Bind {
    key_id: KeyId,
    request: RequestHash,
}

impl Work for Bind {
    type Output = ();
    const OPERATION: &'static str = "bind an idempotency key to its request";

    async fn run(&self, conn: &mut PgConnection) -> Result<(), Refusal> {
        let bound = sqlx::query(BIND)
            .bind(self.key_id.uuid())
            .bind(self.request.0.as_slice())
            .fetch_optional(&mut *conn)
            .await?;
        if bound.is_some() || repeat(conn, self.key_id, self.request).await?.is_some() {
            return Ok(());
        }
        Err(Refusal::Again("the key's row vanished"))
    }
}

impl Store {
    /// Binds the key of a request of many parts to the whole of it, before the parts are done under keys of their own
    /// ([`IdempotencyKey::item`]). Those lie with the users they are of, where a part of another request may have left
    /// none to be compared with; this one lies at the position of the key itself, where every other request meets it.
    pub(crate) async fn bind_key(&self, key: &IdempotencyKey, deadline: Instant) -> Result<(), StoreError> {
        let key_id = key.id_of_its_own();
        let bind = Bind {
            key_id,
            request: key.request,
        };
        let place = Place::Key(key_id.uuid());
        self.inner.write_by(deadline, place, bind).await.map(drop)
    }
}

/// Sweeps idempotency keys older than [`KEPT`].
#[derive(Debug, Clone)]
pub struct KeyJanitor {
    /// Keys younger than this stay.
    pub older_than: Duration,
    /// Most keys deleted in a run on one shard.
    pub limit: u32,
}

impl Default for KeyJanitor {
    fn default() -> Self {
        Self {
            older_than: KEPT,
            limit: 1_000,
        }
    }
}

/// Only of ranges owned here: the others are their owners' to sweep.
const SWEEP: &str = "DELETE FROM ringwright.idempotency_keys WHERE key_id IN (
        SELECT key_id FROM ringwright.idempotency_keys
        WHERE created_at < now() - make_interval(secs => $1) AND (ringwright.range_of(key_id)).state = 'owned'
        ORDER BY created_at LIMIT $2)";

struct Sweep(KeyJanitor);

impl Work for Sweep {
    type Output = u64;
    const OPERATION: &'static str = "sweep old idempotency keys";

    async fn run(&self, conn: &mut PgConnection) -> Result<u64, Refusal> {
        let swept = sqlx::query(SWEEP)
            .bind(self.0.older_than.as_secs_f64())
            .bind(i64::from(self.0.limit))
            .execute(conn)
            .await?;
        Ok(swept.rows_affected())
    }
}

impl KeyJanitor {
    /// Sweeps one shard and tells how many keys went.
    pub async fn run(&self, store: &Store, shard: Ordinal) -> Result<u64, StoreError> {
        Ok(store.inner.write(Place::Shard(shard), Sweep(self.clone())).await?.value)
    }
}
