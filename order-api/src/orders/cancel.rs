//! `POST /v1/orders/{id}/cancel`

use axum::extract::State;
use axum::response::Response;
use row_id::OrderId;
use store::orders::OrderStatus;

use super::{OrderView, change_status};
use crate::app::App;
use crate::auth::{Caller, Write};
use crate::openapi::headers::{IdempotencyHeader, OptionalIfMatchHeader};
use crate::openapi::responses::ChangeOrderProblems;
use crate::problem::Problem;
use crate::request::{IdempotencyKey, NoBody, OptionalIfMatch, PathId};

/// Cancels an order.
#[utoipa::path(post, path = "/v1/orders/{id}/cancel", tag = "orders",
    params(("id" = uuid::Uuid, Path, description = "The order"), IdempotencyHeader, OptionalIfMatchHeader),
    responses(
        (status = 200, description = "The order, now cancelled", body = OrderView, headers(
            ("ETag" = String, description = "Its new version"),
            ("Ringwright-Token" = String, description = "Covers this write"))),
        ChangeOrderProblems))]
pub async fn cancel_order(
    caller: Caller<Write>,
    State(app): State<App>,
    PathId(id): PathId<OrderId>,
    key: IdempotencyKey,
    condition: OptionalIfMatch,
    _: NoBody,
) -> Result<Response, Problem> {
    change_status(&app, caller, id, key, condition, OrderStatus::Cancelled).await
}
