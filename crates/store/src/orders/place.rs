//! Placing orders.

use std::sync::Arc;
use std::time::Instant;

use futures::{FutureExt as _, StreamExt as _, stream};
use row_id::{EventId, OrderId};
use sqlx::{PgConnection, Row};

use super::{NewOrder, Order, OrderStatus, now};
use crate::error::StoreError;
use crate::idempotency::{IdempotencyKey, Keyed, StoredResponse, Written, bind_key, repeat, with_key};
use crate::outbox::{EventKind, OutboxEvent, WRITER_HOLDS};
use crate::store::Store;
use crate::store::fault::Refusal;
use crate::store::write::{Place, Work};

/// Orders of one batch that are placed at the same time; more would only queue for connections.
const AT_ONCE: usize = 8;

/// The key with its answer, the order and its event, in one statement. The event is held for its writer, who publishes
/// it right after the commit.
const PLACE: &str = with_key!(
    "placed AS (
         INSERT INTO shop.orders (order_id, user_id, status, currency, total_minor, order_details, event_seq, version,
                                  created_at, updated_at)
         SELECT $7, u.user_id, 'created', $9, $10, $11, 1, 1, $12, $12
         FROM key, shop.users u WHERE u.user_id = $8 AND u.state = 'active' RETURNING order_id),
     event AS (
         INSERT INTO ringwright.outbox (event_id, kind, sequence, user_id, order_id, occurred_at, held_until)
         SELECT $13, 'order.created', 1, $8, order_id, $12, now() + make_interval(secs => $14) FROM placed)
     SELECT (SELECT count(*) FROM key) AS keys, (SELECT count(*) FROM placed) AS placed"
);

/// Renders what is answered; shared by the orders of a batch.
pub(super) type Render = Arc<dyn Fn(&Order) -> StoredResponse + Send + Sync>;

struct PlaceOrder {
    key: IdempotencyKey,
    new: NewOrder,
    render: Render,
}

impl Work for PlaceOrder {
    type Output = Keyed;
    const OPERATION: &'static str = "place an order";

    async fn run(&self, conn: &mut PgConnection) -> Result<Keyed, Refusal> {
        let position = self.new.user_id.position();
        let key_id = self.key.id_at(position);
        let order = new_order(&self.new);
        let event = OutboxEvent {
            event_id: EventId::generate(position),
            kind: EventKind::OrderCreated,
            sequence: order.event_seq,
            user_id: order.user_id,
            order_id: order.order_id,
            invoice_id: None,
            occurred_at: order.created_at,
        };
        let response = (self.render)(&order);
        let row = bind_key(sqlx::query(PLACE), key_id, &self.key, &response)
            .bind(order.order_id.uuid())
            .bind(order.user_id.uuid())
            .bind(order.currency.as_str())
            .bind(order.total_minor)
            .bind(&order.order_details)
            .bind(order.created_at)
            .bind(event.event_id.uuid())
            .bind(WRITER_HOLDS.as_secs_f64())
            .fetch_one(&mut *conn)
            .await?;
        if row.try_get::<i64, _>("keys")? == 0 {
            let first = repeat(conn, key_id, self.key.request).await?;
            return first
                .map(Keyed::repeated)
                .ok_or(Refusal::Again("the key's row vanished"));
        }
        // The key's row passed the write fence, so the user's range is here and its absence is the truth.
        if row.try_get::<i64, _>("placed")? == 0 {
            return Err(StoreError::UserNotFound(self.new.user_id).into());
        }
        Ok(Keyed {
            response,
            repeated: false,
            events: vec![event],
        })
    }
}

fn new_order(new: &NewOrder) -> Order {
    let created_at = now();
    Order {
        order_id: OrderId::generate(new.user_id.position()),
        user_id: new.user_id,
        status: OrderStatus::Created,
        currency: new.currency,
        total_minor: new.total_minor,
        order_details: new.order_details.clone(),
        event_seq: 1,
        version: 1,
        created_at,
        updated_at: created_at,
    }
}

impl Store {
    /// Places an order: the order, its event and the key row in one transaction on the user's shard.
    ///
    /// # Errors
    /// [`StoreError::UserNotFound`], [`StoreError::KeyReuse`], and what every write can meet.
    pub async fn create_order(
        &self,
        key: IdempotencyKey,
        new: NewOrder,
        render: impl Fn(&Order) -> StoredResponse + Send + Sync + 'static,
    ) -> Result<Written, StoreError> {
        let deadline = self.inner.write_deadline();
        self.place_order(key, new, Arc::new(render), deadline).await
    }

    /// Places many orders, each under its own key and in a transaction of its own; one failure is never another's. They
    /// share one deadline, so that the caller hears of those that are placed although others cannot be, and those that wait
    /// for a shard hold up the others only when they are as many as are placed at once. Answers stand in the order of `items`.
    ///
    /// # Errors
    /// [`StoreError::KeyReuse`] when `batch`, the key of the whole, stands for another request; and what every write can
    /// meet: nothing is placed then.
    pub async fn create_orders(
        &self,
        batch: &IdempotencyKey,
        items: Vec<(IdempotencyKey, NewOrder)>,
        render: impl Fn(&Order) -> StoredResponse + Send + Sync + 'static,
    ) -> Result<Vec<Result<Written, StoreError>>, StoreError> {
        let deadline = self.inner.write_deadline();
        self.bind_key(batch, deadline).await?;
        let render: Render = Arc::new(render);
        let mut answers: Vec<_> = stream::iter(items)
            .enumerate()
            .map(|(index, (key, new))| {
                let placed = self.place_order(key, new, Arc::clone(&render), deadline);
                placed.map(move |answer| (index, answer))
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        answers.sort_unstable_by_key(|(index, _)| *index);
        Ok(answers.into_iter().map(|(_, answer)| answer).collect())
    }

    async fn place_order(
        &self,
        key: IdempotencyKey,
        new: NewOrder,
        render: Render,
        deadline: Instant,
    ) -> Result<Written, StoreError> {
        let place = Place::Key(new.user_id.uuid());
        let work = PlaceOrder { key, new, render };
        let committed = self.inner.write_by(deadline, place, work).await?;
        Ok(committed.value.written(committed.token))
    }
}
