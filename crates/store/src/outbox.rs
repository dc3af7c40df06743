//! The outbox: an event commits with the change it tells of, and is deleted when the broker has confirmed it.

use std::time::Duration;

use chrono::{DateTime, Utc};
pub use event_kind::EventKind;
use futures::future::join_all;
use ring::Ordinal;
use row_id::{EventId, InvoiceId, OrderId, UserId};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::error::StoreError;
use crate::store::Store;
use crate::store::fault::Refusal;
use crate::store::write::{Place, Work, absent};

/// How long pollers leave a new event to the process that wrote it, which publishes it right after its commit.
pub const WRITER_HOLDS: Duration = Duration::from_secs(5);

/// A row of `ringwright.outbox`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxEvent {
    /// The message id; begins with its user's position.
    pub event_id: EventId,
    /// What happened.
    pub kind: EventKind,
    /// Its number within the order, from 1.
    pub sequence: i64,
    /// Whose order.
    pub user_id: UserId,
    /// The order.
    pub order_id: OrderId,
    /// The invoice, for `invoice.generated`.
    pub invoice_id: Option<InvoiceId>,
    /// When it happened.
    pub occurred_at: DateTime<Utc>,
}

/// What waits in one shard's outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxBacklog {
    /// Events of owned ranges not yet confirmed by the broker.
    pub count: i64,
    /// Age of the oldest.
    pub oldest: Option<Duration>,
}

/// Takes the events that have been free for longest. Events of ranges that are not owned here are their owners' to
/// publish, also while their rows still lie here.
const TAKE: &str = "WITH free AS (
        SELECT event_id FROM ringwright.outbox
        WHERE held_until < now() AND (ringwright.range_of(event_id)).state = 'owned'
        ORDER BY held_until LIMIT $1 FOR UPDATE SKIP LOCKED)
    UPDATE ringwright.outbox o SET held_until = now() + make_interval(secs => $2)
    FROM free WHERE o.event_id = free.event_id
    RETURNING o.event_id, o.kind, o.sequence, o.user_id, o.order_id, o.invoice_id, o.occurred_at";

/// Locks the events in the order of their ids, so that two processes never wait for each other. Of several, those whose
/// ranges are elsewhere are left out: each of them would lead to another shard.
macro_rules! events_in_order {
    () => {
        "WHERE event_id IN (SELECT event_id FROM ringwright.outbox WHERE event_id = ANY($1)
                  AND (cardinality($1) = 1 OR (ringwright.range_of(event_id)).state = 'owned')
              ORDER BY event_id FOR UPDATE)
         RETURNING event_id"
    };
}

const FORGET: &str = concat!("DELETE FROM ringwright.outbox ", events_in_order!());

const RELEASE: &str = concat!("UPDATE ringwright.outbox SET held_until = now() ", events_in_order!());

const BACKLOG: &str = "SELECT count(*) AS count,
        (extract(epoch FROM clock_timestamp() - min(occurred_at)) * 1000)::bigint AS oldest_ms
    FROM ringwright.outbox WHERE (ringwright.range_of(event_id)).state IN ('owned', 'frozen')";

struct Take {
    limit: u16,
    hold: Duration,
}

impl Work for Take {
    type Output = Vec<OutboxEvent>;
    const OPERATION: &'static str = "take events from the outbox";

    async fn run(&self, conn: &mut PgConnection) -> Result<Vec<OutboxEvent>, Refusal> {
        let rows = sqlx::query(TAKE)
            .bind(i64::from(self.limit))
            .bind(self.hold.as_secs_f64())
            .fetch_all(conn)
            .await?;
        let mut events: Vec<OutboxEvent> = rows
            .iter()
            .map(event_from)
            .collect::<Result<_, _>>()
            .map_err(Refusal::BadRow)?;
        // UPDATE gives its rows in no order; ids of one position sort by time, events of one order by their number.
        events.sort_by_key(|event| (event.occurred_at, event.order_id, event.sequence));
        Ok(events)
    }
}

fn event_from(row: &PgRow) -> Result<OutboxEvent, String> {
    let broken = |error: sqlx::Error| error.to_string();
    let foreign = |error: row_id::IdError| error.to_string();
    let id = |column| row.try_get::<Uuid, _>(column).map_err(broken);
    let kind: &str = row.try_get("kind").map_err(broken)?;
    let invoice: Option<Uuid> = row.try_get("invoice_id").map_err(broken)?;
    Ok(OutboxEvent {
        event_id: EventId::from_uuid(id("event_id")?).map_err(foreign)?,
        kind: kind
            .parse()
            .map_err(|error: event_kind::UnknownEventKind| error.to_string())?,
        sequence: row.try_get("sequence").map_err(broken)?,
        user_id: UserId::from_uuid(id("user_id")?).map_err(foreign)?,
        order_id: OrderId::from_uuid(id("order_id")?).map_err(foreign)?,
        invoice_id: invoice.map(InvoiceId::from_uuid).transpose().map_err(foreign)?,
        occurred_at: row.try_get("occurred_at").map_err(broken)?,
    })
}

/// Forgets or releases events by their ids.
struct Touch {
    sql: &'static str,
    ids: Vec<Uuid>,
    /// For a single event: that it is not there must be the truth, see [`absent`].
    must_be_here: bool,
}

impl Work for Touch {
    type Output = Vec<Uuid>;
    const OPERATION: &'static str = "settle events in the outbox";

    async fn run(&self, conn: &mut PgConnection) -> Result<Vec<Uuid>, Refusal> {
        for last in [false, true] {
            let touched = sqlx::query_scalar(self.sql)
                .bind(&self.ids)
                .fetch_all(&mut *conn)
                .await?;
            if last || !self.must_be_here || !touched.is_empty() {
                return Ok(touched);
            }
            if let Some(id) = self.ids.first() {
                absent(conn, *id).await?;
            }
        }
        Ok(Vec::new())
    }
}

impl Store {
    /// Takes up to `limit` unpublished events of ranges this shard owns, those first that have been free for longest,
    /// and holds them for `hold`: no other poller gets them before. A taker that dies lets them go at the end of the
    /// hold. Sorted by the time they happened at.
    ///
    /// # Errors
    /// What every write can meet.
    pub async fn take_events(
        &self,
        shard: Ordinal,
        limit: u16,
        hold: Duration,
    ) -> Result<Vec<OutboxEvent>, StoreError> {
        Ok(self.inner.write(Place::Shard(shard), Take { limit, hold }).await?.value)
    }

    /// Forgets events the broker has confirmed, wherever their ranges are by now. Events already forgotten are fine.
    ///
    /// # Errors
    /// What every write can meet.
    pub async fn mark_published(&self, events: &[EventId]) -> Result<(), StoreError> {
        self.touch(FORGET, events).await
    }

    /// Lets go of taken events that could not be published, so that the next poll gets them at once.
    ///
    /// # Errors
    /// What every write can meet.
    pub async fn release_events(&self, events: &[EventId]) -> Result<(), StoreError> {
        self.touch(RELEASE, events).await
    }

    /// One statement a shard for what lies where the ring says; the rest singly, by redirects.
    async fn touch(&self, sql: &'static str, events: &[EventId]) -> Result<(), StoreError> {
        let mut left: Vec<Uuid> = events.iter().map(|event| event.uuid()).collect();
        let mut groups: Vec<(Ordinal, Vec<Uuid>)> = Vec::new();
        for id in &left {
            let shard = self.inner.places.locate(crate::store::write::row_position(*id));
            match groups.iter_mut().find(|(known, _)| *known == shard) {
                Some((_, ids)) => ids.push(*id),
                None => groups.push((shard, vec![*id])),
            }
        }
        let together = groups.into_iter().filter(|(_, ids)| ids.len() > 1);
        let settled = join_all(together.map(|(shard, ids)| async move {
            let work = Touch {
                sql,
                ids: ids.clone(),
                must_be_here: false,
            };
            (ids, self.inner.write(Place::Shard(shard), work).await)
        }));
        let mut failed = None;
        for (ids, settled) in settled.await {
            match settled {
                Ok(done) => left.retain(|id| !done.value.contains(id)),
                // Singly they would meet the same.
                Err(error) => {
                    left.retain(|id| !ids.contains(id));
                    failed = Some(error);
                }
            }
        }
        for id in left {
            self.inner
                .write(
                    Place::Key(id),
                    Touch {
                        sql,
                        ids: vec![id],
                        must_be_here: true,
                    },
                )
                .await?;
        }
        failed.map_or(Ok(()), Err)
    }

    /// How much waits on a shard.
    ///
    /// # Errors
    /// What every write can meet: only the master is asked.
    pub async fn outbox_backlog(&self, shard: Ordinal) -> Result<OutboxBacklog, StoreError> {
        struct Backlog;

        impl Work for Backlog {
            type Output = OutboxBacklog;
            const OPERATION: &'static str = "measure the outbox";

            async fn run(&self, conn: &mut PgConnection) -> Result<OutboxBacklog, Refusal> {
                let row = sqlx::query(BACKLOG).fetch_one(conn).await?;
                let oldest: Option<i64> = row.try_get("oldest_ms")?;
                let oldest = oldest.map(|ms| Duration::from_millis(ms.max(0).cast_unsigned()));
                Ok(OutboxBacklog {
                    count: row.try_get("count")?,
                    oldest,
                })
            }
        }

        Ok(self.inner.write(Place::Shard(shard), Backlog).await?.value)
    }
}
