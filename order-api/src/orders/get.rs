//! `GET /v1/orders/{id}`

use axum::extract::State;
use axum::response::Response;
use row_id::OrderId;
use store::{Answer, StoreError};

use super::OrderView;
use crate::app::App;
use crate::auth::{Caller, Read};
use crate::openapi::headers::ReadHeaders;
use crate::openapi::responses::GetOrderProblems;
use crate::problem::Problem;
use crate::reply;
use crate::request::{PathId, ReadContext};

/// Reads an order.
#[utoipa::path(get, path = "/v1/orders/{id}", tag = "orders",
    params(("id" = uuid::Uuid, Path, description = "The order"), ReadHeaders),
    responses(
        (status = 200, description = "The order", body = OrderView, headers(
            ("ETag" = String, description = "Its version, for If-Match"),
            ("Ringwright-Token" = String, description = "Covers this read"))),
        GetOrderProblems))]
pub async fn get_order(
    _: Caller<Read>,
    State(app): State<App>,
    PathId(id): PathId<OrderId>,
    ReadContext(at): ReadContext,
) -> Result<Response, Problem> {
    let Answer { value, token } = app.store.get_order(id, &at).await?;
    let order = value.ok_or(StoreError::OrderNotFound(id))?;
    reply::read(
        &Answer {
            value: OrderView::from(&order),
            token,
        },
        Some(order.version),
    )
}
