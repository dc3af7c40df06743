//! `POST /v1/orders/{id}/process`

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

/// Marks an order processed.
#[utoipa::path(post, path = "/v1/orders/{id}/process", tag = "orders",
    params(("id" = uuid::Uuid, Path, description = "The order"), IdempotencyHeader, OptionalIfMatchHeader),
    responses(
        (status = 200, description = "The order, now processed; its customer is told", body = OrderView, headers(
            ("ETag" = String, description = "Its new version"),
            ("Ringwright-Token" = String, description = "Covers this write"))),
        ChangeOrderProblems))]
pub async fn process_order(
    caller: Caller<Write>,
    State(app): State<App>,
    PathId(id): PathId<OrderId>,
    key: IdempotencyKey,
    condition: OptionalIfMatch,
    _: NoBody,
) -> Result<Response, Problem> {
    change_status(&app, caller, id, key, condition, OrderStatus::Processed).await
}
