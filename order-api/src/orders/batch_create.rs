//! `POST /v1/orders:batch-create`: many orders in one request, each with its own outcome.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use row_id::UserId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::orders::NewOrder;
use store::{IdempotencyKey as StoreKey, ReadTokens, StoreError, Written};
use utoipa::ToSchema;

use super::create::OPERATION;
use super::details::{CreateOrder, OrderDetails};
use super::{MAX_BATCH, OrderView, render};
use crate::app::App;
use crate::auth::{Caller, Write};
use crate::openapi::headers::IdempotencyHeader;
use crate::openapi::responses::BatchCreateProblems;
use crate::problem::{FieldError, Problem, ProblemBody, catalogue};
use crate::reply;
use crate::request::idempotency_key::request_hash;
use crate::request::{IdempotencyKey, JsonBody, body};

/// Orders to be placed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchCreate {
    /// The orders, of any users. Kept as JSON here, so that one that is wrong is its own outcome.
    #[schema(value_type = Vec<CreateUsersOrder>, min_items = 1, max_items = 100)]
    orders: Vec<Value>,
}

/// One order of a batch.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateUsersOrder {
    /// Whose order it is.
    #[schema(value_type = uuid::Uuid)]
    user_id: String,
    /// ISO 4217 code of the currency of all prices.
    #[schema(example = "EUR")]
    currency: String,
    /// The sum of the lines, when the client wants it checked.
    #[serde(default)]
    #[schema(nullable = false)]
    total_minor: Option<i64>,
    /// What is ordered.
    order_details: OrderDetails,
}

/// What became of the orders, in the order of the request.
#[derive(Debug, Serialize, ToSchema)]
pub struct BatchCreated {
    /// One a requested order.
    results: Vec<CreateOutcome>,
}

/// What became of one order of a batch.
#[derive(Debug, Serialize, ToSchema)]
pub struct CreateOutcome {
    /// The status that this order alone would have been answered with.
    #[schema(example = 201)]
    status: u16,
    /// The order, when it is placed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = OrderView, required = false)]
    order: Option<Value>,
    /// Whether an earlier request with the same key had placed it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    replayed: bool,
    /// Why it is not placed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    problem: Option<ProblemBody>,
}

/// Places many orders, each with its own outcome.
///
/// Each order is repeated by itself: after a partial failure send the same batch with the same key. Another batch under
/// that key is refused as a whole.
#[utoipa::path(post, path = "/v1/orders:batch-create", tag = "orders", params(IdempotencyHeader),
    request_body = BatchCreate,
    responses(
        (status = 200, description = "The outcome of each order", body = BatchCreated,
            headers(("Ringwright-Token" = String, description = "Covers the writes"))),
        BatchCreateProblems))]
pub async fn batch_create_orders(
    caller: Caller<Write>,
    State(app): State<App>,
    key: IdempotencyKey,
    JsonBody(batch): JsonBody<BatchCreate>,
) -> Result<Response, Problem> {
    check_size("orders", batch.orders.len())?;
    let key = key.stands_for(caller.client(), "orders.batch-create", "", &batch.orders);
    let items: Vec<_> = batch
        .orders
        .iter()
        .enumerate()
        .map(|(index, item)| checked(&key, index, item))
        .collect();
    let good: Vec<_> = items.iter().filter_map(|item| item.as_ref().ok().cloned()).collect();
    // A batch of which nothing can be placed is refused like a single order that is wrong: its key stays free.
    if good.is_empty() {
        return answer(items, Vec::new());
    }
    let store = app.store.clone();
    let written = app
        .write_many(async move {
            let rendered = |order: &_| render(StatusCode::CREATED, order);
            store.create_orders(&key, good, rendered).await
        })
        .await?;
    answer(items, written)
}

fn answer(
    items: Vec<Result<(StoreKey, NewOrder), Problem>>,
    written: Vec<Result<Written, StoreError>>,
) -> Result<Response, Problem> {
    let mut tokens = ReadTokens::default();
    let mut written = written.into_iter();
    let results = items.into_iter().map(|item| {
        // The good items' outcomes come in the good items' order.
        let written = item.and_then(|_| match written.next() {
            Some(outcome) => outcome.map_err(Problem::from),
            None => Err(Problem::new(&catalogue::INTERNAL, "The order could not be placed.")),
        });
        if let Ok(written) = &written {
            tokens.add(written.token);
        }
        outcome(written)
    });
    let batch = BatchCreated {
        results: results.collect(),
    };
    let mut response = reply::json(StatusCode::OK, &batch)?;
    reply::cover_all(response.headers_mut(), &tokens);
    Ok(response)
}

fn outcome(written: Result<Written, Problem>) -> CreateOutcome {
    match written {
        Ok(written) => CreateOutcome {
            status: written.response.status,
            order: serde_json::from_str(&written.response.body).ok(),
            replayed: written.repeated,
            problem: None,
        },
        Err(problem) => {
            let problem = problem.into_body();
            CreateOutcome {
                status: problem.status,
                order: None,
                replayed: false,
                problem: Some(problem),
            }
        }
    }
}

/// One order of the batch, with its own key. Pointers of its errors start at the order.
fn checked(key: &StoreKey, index: usize, item: &Value) -> Result<(StoreKey, NewOrder), Problem> {
    let CreateUsersOrder {
        user_id,
        currency,
        total_minor,
        order_details,
    } = body::from_value(item)?;
    let user: UserId = user_id.parse().map_err(|error: row_id::IdError| {
        Problem::fields(vec![FieldError {
            pointer: "#/user_id".into(),
            detail: error.to_string().into(),
        }])
    })?;
    let order = CreateOrder {
        currency,
        total_minor,
        order_details,
    };
    let key = key.item(index, request_hash(OPERATION, user, &order));
    Ok((key, order.validated()?.of(user)))
}

/// A batch has items, and not too many.
pub(super) fn check_size(field: &str, size: usize) -> Result<(), Problem> {
    if (1..=MAX_BATCH).contains(&size) {
        return Ok(());
    }
    let detail = format!("must have 1 to {MAX_BATCH} entries").into();
    Err(Problem::fields(vec![FieldError {
        pointer: format!("#/{field}"),
        detail,
    }]))
}
