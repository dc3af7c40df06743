//! `GET /v1/users/{id}/orders`

use axum::extract::State;
use axum::response::Response;
use row_id::UserId;
use serde::{Deserialize, Serialize};
use store::{Answer, StoreError};
use utoipa::{IntoParams, ToSchema};

use super::{OrderView, cursor};
use crate::app::App;
use crate::auth::{Caller, Read};
use crate::openapi::headers::ReadHeaders;
use crate::openapi::responses::ListOrdersProblems;
use crate::problem::{Problem, catalogue};
use crate::reply;
use crate::request::{PathId, QueryParams, ReadContext};

const DEFAULT_LIMIT: u16 = 50;
const MAX_LIMIT: u16 = 200;

/// Which part of the list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListOrders {
    /// Most orders of the answer.
    #[serde(default = "default_limit")]
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: u16,
    /// `next_cursor` of the answer before; the newest orders when left out.
    cursor: Option<String>,
}

fn default_limit() -> u16 {
    DEFAULT_LIMIT
}

/// A part of a user's orders, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct OrderList {
    /// The orders.
    orders: Vec<OrderView>,
    /// Gets the next part; not there at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next_cursor: Option<String>,
}

/// Lists a user's orders, newest first.
#[utoipa::path(get, path = "/v1/users/{id}/orders", tag = "orders",
    params(("id" = uuid::Uuid, Path, description = "Whose orders"), ListOrders, ReadHeaders),
    responses(
        (status = 200, description = "The orders", body = OrderList,
            headers(("Ringwright-Token" = String, description = "Covers this read"))),
        ListOrdersProblems))]
pub async fn list_orders(
    _: Caller<Read>,
    State(app): State<App>,
    PathId(user): PathId<UserId>,
    QueryParams(params): QueryParams<ListOrders>,
    ReadContext(at): ReadContext,
) -> Result<Response, Problem> {
    if !(1..=MAX_LIMIT).contains(&params.limit) {
        let detail = format!("The query parameter limit has to be between 1 and {MAX_LIMIT}.");
        return Err(Problem::new(&catalogue::MALFORMED_REQUEST, detail));
    }
    let before = params
        .cursor
        .as_deref()
        .map(|cursor| cursor::decode(cursor, user))
        .transpose()?;
    let Answer { value: page, token } = app.store.list_orders(user, before, params.limit, &at).await?;
    // Only the rare empty list needs a second look, at whether there is such a user at all.
    if page.orders.is_empty() && before.is_none() && app.store.get_user(user, &at).await?.value.is_none() {
        return Err(StoreError::UserNotFound(user).into());
    }
    let list = OrderList {
        orders: page.orders.iter().map(OrderView::from).collect(),
        next_cursor: page.next.map(|last| cursor::encode(last, user)),
    };
    reply::read(&Answer { value: list, token }, None)
}
