//! Orders and their states.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use row_id::{OrderId, UserId};

use crate::currency::CurrencyCode;
use crate::error::StoreError;
use crate::idempotency::{IdempotencyKey, StoredResponse, Written};
use crate::reading::{Answer, ReadAt};
use crate::store::Store;

/// created -> processed, created -> cancelled; the last two are final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OrderStatus {
    /// Placed.
    Created,
    /// Done; its customer is told.
    Processed,
    /// Called off.
    Cancelled,
}

impl OrderStatus {
    /// As in the database and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Processed => "processed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for OrderStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for OrderStatus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Created, Self::Processed, Self::Cancelled]
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| format!("`{text}` is no order status (created, processed, cancelled)"))
    }
}

/// A row of `shop.orders`.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// Begins with its user's position.
    pub order_id: OrderId,
    /// Whose it is.
    pub user_id: UserId,
    /// Its state.
    pub status: OrderStatus,
    /// Currency of the total.
    pub currency: CurrencyCode,
    /// Total in minor units.
    pub total_minor: i64,
    /// The lines and whatever else the shop stores; a JSON object.
    pub order_details: serde_json::Value,
    /// Events written so far; the next gets this plus one.
    pub event_seq: i64,
    /// Counted up by each update.
    pub version: i64,
    /// When it was placed.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

/// What a caller says of an order.
#[derive(Debug, Clone, PartialEq)]
pub struct NewOrder {
    /// Whose it is.
    pub user_id: UserId,
    /// Currency of the total.
    pub currency: CurrencyCode,
    /// Total in minor units, not negative.
    pub total_minor: i64,
    /// A JSON object.
    pub order_details: serde_json::Value,
}

/// A page of a user's orders, newest first.
#[derive(Debug, Clone, PartialEq)]
pub struct OrderPage {
    /// The orders.
    pub orders: Vec<Order>,
    /// Give this as `before` to get the next page; `None` when there is no more.
    pub next: Option<OrderId>,
}

impl Store {
    /// Places an order: the order, its event and the key row in one transaction on the user's shard.
    pub async fn create_order(
        &self,
        key: IdempotencyKey,
        new: NewOrder,
        render: impl Fn(&Order) -> StoredResponse + Send + Sync + 'static,
    ) -> Result<Written, StoreError> {
        let _ = (key, new, render);
        unimplemented!()
    }

    /// Places many orders, grouped by shard, each under its own key; one failure is never another's.
    /// Answers stand in the order of `items`.
    pub async fn create_orders(
        &self,
        items: Vec<(IdempotencyKey, NewOrder)>,
        render: impl Fn(&Order) -> StoredResponse + Send + Sync + 'static,
    ) -> Vec<Result<Written, StoreError>> {
        let _ = (items, render);
        unimplemented!()
    }

    /// Reads one order.
    pub async fn get_order(&self, id: OrderId, at: &ReadAt) -> Result<Answer<Option<Order>>, StoreError> {
        let _ = (id, at);
        unimplemented!()
    }

    /// Reads many orders, grouped by shard; one failure is never another's. Answers stand in the order of `ids`.
    pub async fn get_orders(&self, ids: &[OrderId], at: &ReadAt) -> Vec<Result<Answer<Option<Order>>, StoreError>> {
        let _ = (ids, at);
        unimplemented!()
    }

    /// A user's orders, newest first: one range scan of the primary key. `before` is the last id of the page before.
    pub async fn list_orders(
        &self,
        user: UserId,
        before: Option<OrderId>,
        limit: u16,
        at: &ReadAt,
    ) -> Result<Answer<OrderPage>, StoreError> {
        let _ = (user, before, limit, at);
        unimplemented!()
    }

    /// Moves an order to `processed` or `cancelled`, writes its event and the key row. `expected` is If-Match.
    pub async fn set_order_status(
        &self,
        key: IdempotencyKey,
        id: OrderId,
        to: OrderStatus,
        expected: Option<i64>,
        render: impl Fn(&Order) -> StoredResponse + Send + Sync + 'static,
    ) -> Result<Written, StoreError> {
        let _ = (key, id, to, expected, render);
        unimplemented!()
    }
}
