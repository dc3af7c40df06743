//! Orders and what becomes of them.

pub mod batch_create;
pub mod batch_get;
pub mod cancel;
pub mod create;
mod cursor;
pub mod details;
pub mod get;
pub mod list;
pub mod process;

use axum::http::StatusCode;
use axum::response::Response;
use chrono::{DateTime, Utc};
use row_id::OrderId;
use serde::Serialize;
use store::orders::{Order, OrderStatus};
use store::{BasedOn, StoredResponse};
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::{Caller, Write};
use crate::problem::Problem;
use crate::reply;
use crate::request::{IdempotencyKey, IfMatch, OptionalIfMatch};

/// Most items of a batch.
pub const MAX_BATCH: usize = 100;

/// An order.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Order)]
pub struct OrderView {
    /// Its id; begins with its user's position.
    #[schema(value_type = uuid::Uuid)]
    pub order_id: OrderId,
    /// Whose it is.
    #[schema(value_type = uuid::Uuid)]
    pub user_id: row_id::UserId,
    /// `created`, `processed` or `cancelled`; the last two are final.
    #[schema(example = "created")]
    pub status: &'static str,
    /// ISO 4217 code.
    #[schema(value_type = String, example = "EUR")]
    pub currency: String,
    /// The sum of the lines in minor units.
    #[schema(example = 3998)]
    pub total_minor: i64,
    /// What was ordered.
    #[schema(value_type = details::OrderDetails)]
    pub order_details: serde_json::Value,
    /// Counted up by each change; the ETag is made of it.
    pub version: i64,
    /// When it was placed.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

impl From<&Order> for OrderView {
    fn from(order: &Order) -> Self {
        Self {
            order_id: order.order_id,
            user_id: order.user_id,
            status: order.status.as_str(),
            currency: order.currency.to_string(),
            total_minor: order.total_minor,
            order_details: order.order_details.clone(),
            version: order.version,
            created_at: order.created_at,
            updated_at: order.updated_at,
        }
    }
}

/// The answer of a write that ended with `order`.
fn render(status: StatusCode, order: &Order) -> StoredResponse {
    let location = (status == StatusCode::CREATED).then(|| format!("/v1/orders/{}", order.order_id));
    reply::render(status, location, order.version, &OrderView::from(order))
}

/// Moves an order on, for the operations that do only this.
async fn change_status(
    app: &App,
    caller: Caller<Write>,
    id: OrderId,
    key: IdempotencyKey,
    OptionalIfMatch(condition): OptionalIfMatch,
    to: OrderStatus,
) -> Result<Response, Problem> {
    let operation = match to {
        OrderStatus::Cancelled => "orders.cancel",
        _ => "orders.process",
    };
    let key = key.stands_for(caller.client(), operation, id, &());
    let based_on = condition.map_or(BasedOn::Any, IfMatch::based_on);
    let store = app.store.clone();
    app.write(async move {
        store
            .set_order_status(key, id, to, based_on, |order| render(StatusCode::OK, order))
            .await
    })
    .await
}
