//! Reading orders.

use row_id::{OrderId, Position, UserId};
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::{Order, OrderPage, order_columns, order_from};
use crate::error::StoreError;
use crate::reading::{Answer, ReadAt};
use crate::store::Store;
use crate::store::query::{Query, look};

const ONE: &str = look!(one order_columns!(), "shop.orders o ON o.order_id = $1");
const MANY: &str = look!(many order_columns!(), "shop.orders o ON o.order_id = k.id");

/// Newest first is highest id first. The bounds keep the scan within the user's position, the filter within the user:
/// positions collide. $2 is the lowest id of the position, $3 the first id not wanted.
const LIST: &str = look!(one
    order_columns!(),
    "LATERAL (SELECT * FROM shop.orders o
              WHERE o.user_id = $1 AND o.order_id >= $2 AND o.order_id < $3
              ORDER BY o.order_id DESC LIMIT $4) o ON true ORDER BY o.order_id DESC");

impl Store {
    /// Reads one order.
    ///
    /// # Errors
    /// What every read can meet.
    pub async fn get_order(&self, id: OrderId, at: &ReadAt) -> Result<Answer<Option<Order>>, StoreError> {
        self.inner.read_one(id.uuid(), at, one(id.uuid()), decode).await
    }

    /// Reads many orders, grouped by shard; one failure is never another's. Answers stand in the order of `ids`.
    pub async fn get_orders(&self, ids: &[OrderId], at: &ReadAt) -> Vec<Result<Answer<Option<Order>>, StoreError>> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
        self.inner.read_many(&ids, at, many, one, decode).await
    }

    /// A user's orders, newest first: one range scan of the primary key. `before` is the last id of the page before;
    /// an id of another user's position gives an empty page.
    ///
    /// # Errors
    /// What every read can meet.
    pub async fn list_orders(
        &self,
        user: UserId,
        before: Option<OrderId>,
        limit: u16,
        at: &ReadAt,
    ) -> Result<Answer<OrderPage>, StoreError> {
        let end = before.map_or_else(|| end_of(user.position()), OrderId::uuid);
        // One more than asked for tells whether there is a next page.
        let query = Query::new("list a user's orders", LIST)
            .id(user.uuid())
            .id(user.position().lowest_id())
            .id(end)
            .number(i64::from(limit) + 1);
        let answer = self.inner.read_one(user.uuid(), at, query, decode_all).await?;
        let mut orders = answer.value;
        let more = orders.len() > usize::from(limit);
        orders.truncate(usize::from(limit));
        let next = orders.last().map(|order| order.order_id).filter(|_| more);
        Ok(Answer {
            value: OrderPage { orders, next },
            token: answer.token,
        })
    }
}

fn one(id: Uuid) -> Query {
    Query::new("read an order", ONE).id(id)
}

fn many(ids: Vec<Uuid>) -> Query {
    Query::new("read orders", MANY).ids(ids)
}

/// The first id behind a position; behind the last position no row's id can be.
fn end_of(position: Position) -> Uuid {
    position
        .get()
        .checked_add(1)
        .map_or(Uuid::max(), |next| Position::new(next).lowest_id())
}

fn decode(rows: &[PgRow]) -> Result<Option<Order>, String> {
    rows.first().map_or(Ok(None), order_from)
}

fn decode_all(rows: &[PgRow]) -> Result<Vec<Order>, String> {
    rows.iter().filter_map(|row| order_from(row).transpose()).collect()
}
