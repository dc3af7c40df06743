//! `POST /v1/users/{id}/orders`

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use row_id::UserId;
use store::orders::NewOrder;

use super::details::{CheckedOrder, CreateOrder};
use super::{OrderView, render};
use crate::app::App;
use crate::auth::{Caller, Write};
use crate::openapi::headers::IdempotencyHeader;
use crate::openapi::responses::CreateOrderProblems;
use crate::problem::Problem;
use crate::request::{IdempotencyKey, JsonBody, PathId};

/// What a key of this operation stands for; the items of a batch are the same operation.
pub(super) const OPERATION: &str = "orders.create";

impl CheckedOrder {
    pub(super) fn of(self, user_id: UserId) -> NewOrder {
        NewOrder {
            user_id,
            currency: self.currency,
            total_minor: self.total_minor,
            order_details: self.order_details,
        }
    }
}

/// Places an order.
#[utoipa::path(post, path = "/v1/users/{id}/orders", tag = "orders",
    params(("id" = uuid::Uuid, Path, description = "Whose order it is"), IdempotencyHeader),
    request_body = CreateOrder,
    responses(
        (status = 201, description = "The order is placed", body = OrderView, headers(
            ("Location" = String, description = "Where it can be read"),
            ("ETag" = String, description = "Its version, for If-Match"),
            ("Ringwright-Token" = String, description = "Covers this write"))),
        CreateOrderProblems))]
pub async fn create_order(
    caller: Caller<Write>,
    State(app): State<App>,
    PathId(user): PathId<UserId>,
    key: IdempotencyKey,
    JsonBody(body): JsonBody<CreateOrder>,
) -> Result<Response, Problem> {
    let order = body.validated()?.of(user);
    let key = key.stands_for(caller.client(), OPERATION, user, &body);
    let store = app.store.clone();
    app.write(async move {
        store
            .create_order(key, order, |order| render(StatusCode::CREATED, order))
            .await
    })
    .await
}
