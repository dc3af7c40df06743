//! Orders and their states.

mod change;
mod place;
mod read;

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, SubsecRound, Utc};
use row_id::{OrderId, UserId};
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::currency::CurrencyCode;

pub(crate) use change::lock_order;

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

/// The columns of an order, aliased `o`, in every statement that reads one.
macro_rules! order_columns {
    () => {
        "o.order_id AS o_order_id, o.user_id AS o_user_id, o.status AS o_status, o.currency AS o_currency, \
         o.total_minor AS o_total_minor, o.order_details AS o_order_details, o.event_seq AS o_event_seq, \
         o.version AS o_version, o.created_at AS o_created_at, o.updated_at AS o_updated_at"
    };
}
pub(crate) use order_columns;

/// Reads the columns of [`order_columns!`]; `None` where the row was not there.
pub(crate) fn order_from(row: &PgRow) -> Result<Option<Order>, String> {
    let broken = |error: sqlx::Error| error.to_string();
    let Some(id) = row.try_get::<Option<uuid::Uuid>, _>("o_order_id").map_err(broken)? else {
        return Ok(None);
    };
    let user: uuid::Uuid = row.try_get("o_user_id").map_err(broken)?;
    Ok(Some(Order {
        order_id: OrderId::from_uuid(id).map_err(|error| error.to_string())?,
        user_id: UserId::from_uuid(user).map_err(|error| error.to_string())?,
        status: row.try_get::<&str, _>("o_status").map_err(broken)?.parse()?,
        currency: row
            .try_get::<&str, _>("o_currency")
            .map_err(broken)?
            .parse()
            .map_err(|_| "a currency".to_owned())?,
        total_minor: row.try_get("o_total_minor").map_err(broken)?,
        order_details: row.try_get("o_order_details").map_err(broken)?,
        event_seq: row.try_get("o_event_seq").map_err(broken)?,
        version: row.try_get("o_version").map_err(broken)?,
        created_at: row.try_get("o_created_at").map_err(broken)?,
        updated_at: row.try_get("o_updated_at").map_err(broken)?,
    }))
}

/// Now, as precise as the database keeps it: what is rendered before it is stored reads the same afterwards.
pub(crate) fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(6)
}

/// The time of a change to a row last changed at `before`: clocks of two programs may differ, a row's times must not
/// run backwards.
pub(crate) fn now_after(before: DateTime<Utc>) -> DateTime<Utc> {
    now().max(before)
}
