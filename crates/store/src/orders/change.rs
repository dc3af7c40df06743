//! Changing an order's state.

use row_id::{EventId, OrderId};
use sqlx::{PgConnection, Row};

use super::{Order, OrderStatus, now_after, order_columns, order_from};
use crate::error::StoreError;
use crate::idempotency::{IdempotencyKey, Keyed, StoredResponse, Written, bind_key, repeat, with_key};
use crate::outbox::{EventKind, OutboxEvent, WRITER_HOLDS};
use crate::store::Store;
use crate::store::fault::Refusal;
use crate::store::query::range_columns;
use crate::store::write::{Place, Work, absent, present};
use crate::version::BasedOn;

const LOCK: &str = concat!(
    "SELECT ",
    order_columns!(),
    ", ",
    range_columns!(),
    " FROM shop.orders o, ringwright.range_of($1) r WHERE o.order_id = $1 FOR NO KEY UPDATE OF o"
);

/// The key with its answer, the order's new state and its event, in one statement.
const CHANGE: &str = with_key!(
    "changed AS (
         UPDATE shop.orders SET status = $8, event_seq = $9, version = $10, updated_at = $11
         WHERE order_id = $7 AND EXISTS (SELECT FROM key) RETURNING order_id, user_id),
     event AS (
         INSERT INTO ringwright.outbox (event_id, kind, sequence, user_id, order_id, occurred_at, held_until)
         SELECT $12, $13, $9, user_id, order_id, $11, now() + make_interval(secs => $14) FROM changed)
     SELECT count(*) AS changed FROM changed"
);

/// Reads an order and keeps others from changing it until the transaction ends.
pub(crate) async fn lock_order(conn: &mut PgConnection, id: OrderId) -> Result<Order, Refusal> {
    // An absent row proves nothing until the range is known to be here; then it is looked for once more, since the
    // range may have come in between.
    for last in [false, true] {
        if let Some(row) = sqlx::query(LOCK).bind(id.uuid()).fetch_optional(&mut *conn).await? {
            present(&row)?;
            return order_from(&row)
                .map_err(Refusal::BadRow)?
                .ok_or(Refusal::Again("the order vanished"));
        }
        if !last {
            absent(conn, id.uuid()).await?;
        }
    }
    Err(StoreError::OrderNotFound(id).into())
}

struct SetStatus<R> {
    key: IdempotencyKey,
    id: OrderId,
    to: OrderStatus,
    based_on: BasedOn,
    render: R,
}

impl<R: Fn(&Order) -> StoredResponse + Send + Sync + 'static> Work for SetStatus<R> {
    type Output = Keyed;
    const OPERATION: &'static str = "change an order's state";

    async fn run(&self, conn: &mut PgConnection) -> Result<Keyed, Refusal> {
        let mut order = lock_order(conn, self.id).await?;
        let key_id = self.key.id_at(self.id.position());
        // After the lock: a first request with this key may just have committed, and its repeat is no conflict.
        if let Some(first) = repeat(conn, key_id, self.key.request).await? {
            return Ok(Keyed::repeated(first));
        }
        self.check(&order)?;
        order.status = self.to;
        order.event_seq += 1;
        order.version += 1;
        order.updated_at = now_after(order.updated_at);
        let event = OutboxEvent {
            event_id: EventId::generate(self.id.position()),
            kind: if self.to == OrderStatus::Processed {
                EventKind::OrderProcessed
            } else {
                EventKind::OrderCancelled
            },
            sequence: order.event_seq,
            user_id: order.user_id,
            order_id: order.order_id,
            invoice_id: None,
            occurred_at: order.updated_at,
        };
        let response = (self.render)(&order);
        let row = bind_key(sqlx::query(CHANGE), key_id, &self.key, &response)
            .bind(order.order_id.uuid())
            .bind(order.status.as_str())
            .bind(order.event_seq)
            .bind(order.version)
            .bind(order.updated_at)
            .bind(event.event_id.uuid())
            .bind(event.kind.as_str())
            .bind(WRITER_HOLDS.as_secs_f64())
            .fetch_one(conn)
            .await?;
        if row.try_get::<i64, _>("changed")? == 0 {
            return Err(Refusal::Again("another request used the key meanwhile"));
        }
        Ok(Keyed {
            response,
            repeated: false,
            events: vec![event],
        })
    }
}

impl<R> SetStatus<R> {
    fn check(&self, order: &Order) -> Result<(), StoreError> {
        if !self.based_on.allows(order.version) {
            return Err(StoreError::VersionMismatch { current: order.version });
        }
        // created -> processed | cancelled; nothing comes after those.
        if order.status != OrderStatus::Created || self.to == OrderStatus::Created {
            return Err(StoreError::InvalidTransition {
                order: self.id,
                from: order.status,
                to: self.to,
            });
        }
        Ok(())
    }
}

impl Store {
    /// Moves an order to `processed` or `cancelled`, writes its event and the key row.
    ///
    /// # Errors
    /// [`StoreError::OrderNotFound`], [`StoreError::VersionMismatch`], [`StoreError::InvalidTransition`],
    /// [`StoreError::KeyReuse`], and what every write can meet.
    pub async fn set_order_status(
        &self,
        key: IdempotencyKey,
        id: OrderId,
        to: OrderStatus,
        based_on: BasedOn,
        render: impl Fn(&Order) -> StoredResponse + Send + Sync + 'static,
    ) -> Result<Written, StoreError> {
        let work = SetStatus {
            key,
            id,
            to,
            based_on,
            render,
        };
        let committed = self.inner.write(Place::Key(id.uuid()), work).await?;
        Ok(committed.value.written(committed.token))
    }
}
