//! `POST /v1/orders:batch-get`: many orders looked up in one request, each with its own outcome.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use row_id::OrderId;
use serde::{Deserialize, Serialize};
use store::orders::Order;
use store::{Answer, ReadTokens, StoreError};
use utoipa::ToSchema;

use super::OrderView;
use super::batch_create::check_size;
use crate::app::App;
use crate::auth::{Caller, Read};
use crate::openapi::headers::ReadHeaders;
use crate::openapi::responses::BatchGetProblems;
use crate::problem::{Problem, ProblemBody, catalogue, sentence};
use crate::reply;
use crate::request::{JsonBody, ReadContext};

/// Orders to be looked up.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchGet {
    /// The orders, of any users.
    #[schema(value_type = Vec<uuid::Uuid>, min_items = 1, max_items = 100)]
    order_ids: Vec<String>,
}

/// What was found, in the order of the request.
#[derive(Debug, Serialize, ToSchema)]
pub struct BatchGot {
    /// One a requested order.
    results: Vec<GetOutcome>,
}

/// What was found of one order.
#[derive(Debug, Serialize, ToSchema)]
pub struct GetOutcome {
    /// The status that this look-up alone would have been answered with.
    #[schema(example = 200)]
    status: u16,
    /// The order.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    order: Option<OrderView>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    problem: Option<ProblemBody>,
}

/// Looks up many orders, each with its own outcome.
///
/// A POST only because ids do not fit into a URL; it changes nothing and needs no Idempotency-Key.
#[utoipa::path(post, path = "/v1/orders:batch-get", tag = "orders", params(ReadHeaders),
    request_body = BatchGet,
    responses(
        (status = 200, description = "The outcome of each look-up", body = BatchGot,
            headers(("Ringwright-Token" = String, description = "Covers the reads"))),
        BatchGetProblems))]
pub async fn batch_get_orders(
    _: Caller<Read>,
    State(app): State<App>,
    ReadContext(at): ReadContext,
    JsonBody(batch): JsonBody<BatchGet>,
) -> Result<Response, Problem> {
    check_size("order_ids", batch.order_ids.len())?;
    let ids: Vec<Result<OrderId, Problem>> = batch.order_ids.iter().map(|id| parsed(id)).collect();
    let good: Vec<OrderId> = ids.iter().filter_map(|id| id.as_ref().ok().copied()).collect();
    let mut found = app.store.get_orders(&good, &at).await.into_iter();

    let mut tokens = ReadTokens::default();
    let results = ids.into_iter().map(|id| {
        let order = id.and_then(|id| {
            // The good ids' outcomes come in the good ids' order.
            let Answer { value, token } = found.next().unwrap_or(Err(StoreError::OrderNotFound(id)))?;
            tokens.add(token);
            Ok(value.ok_or(StoreError::OrderNotFound(id))?)
        });
        outcome(order)
    });
    let batch = BatchGot {
        results: results.collect(),
    };
    let mut response = reply::json(StatusCode::OK, &batch)?;
    reply::cover_all(response.headers_mut(), &tokens);
    Ok(response)
}

fn parsed(id: &str) -> Result<OrderId, Problem> {
    id.parse()
        .map_err(|error: row_id::IdError| Problem::new(&catalogue::INVALID_ID, sentence(error)))
}

fn outcome(order: Result<Order, Problem>) -> GetOutcome {
    match order {
        Ok(order) => GetOutcome {
            status: 200,
            order: Some(OrderView::from(&order)),
            problem: None,
        },
        Err(problem) => {
            let problem = problem.into_body();
            GetOutcome {
                status: problem.status,
                order: None,
                problem: Some(problem),
            }
        }
    }
}
