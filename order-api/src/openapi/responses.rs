//! The problems that operations answer with, for the description: one entry a status, which names its problem types.

use std::collections::BTreeMap;

use utoipa::IntoResponses;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};

use crate::problem::catalogue::*;
use crate::problem::{PROBLEM_JSON, ProblemType};

/// Of every operation that needs a key.
const ANY: &[&ProblemType] = &[
    &MALFORMED_REQUEST,
    &UNAUTHENTICATED,
    &FORBIDDEN,
    &TOO_MANY_REQUESTS,
    &INTERNAL,
    &OVERLOADED,
    &TIMED_OUT,
];
const SHARDS: &[&ProblemType] = &[&SHARD_UNAVAILABLE];
const TOKENS: &[&ProblemType] = &[&INVALID_TOKEN];
const BY_ID: &[&ProblemType] = &[&INVALID_ID];
const BODY: &[&ProblemType] = &[
    &MALFORMED_JSON,
    &REQUEST_TIMEOUT,
    &BODY_TOO_LARGE,
    &UNSUPPORTED_MEDIA_TYPE,
    &INVALID_FIELDS,
];
const NO_BODY: &[&ProblemType] = &[&REQUEST_TIMEOUT, &BODY_TOO_LARGE, &INVALID_FIELDS];
const KEYED: &[&ProblemType] = &[
    &IDEMPOTENCY_KEY_MISSING,
    &IDEMPOTENCY_KEY_INVALID,
    &IDEMPOTENCY_KEY_IN_USE,
    &IDEMPOTENCY_KEY_REUSED,
    &OUTCOME_UNKNOWN,
];

/// Conflicts with a request that is still at work.
const PASSING_CONFLICTS: [&str; 2] = ["idempotency-key-in-use", "contact-claim-pending"];

/// Declares which problems a group of operations answers with.
macro_rules! problem_sets {
    ($($(#[$doc:meta])* $name:ident = $($group:ident)* $([$($kind:ident),*])?;)*) => {$(
        $(#[$doc])*
        pub struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                let groups: &[&[&ProblemType]] = &[ANY, $($group,)* $(&[$(&$kind),*])?];
                described(groups.iter().copied().flatten().copied())
            }
        }
    )*};
}

problem_sets! {
    /// Creating a user.
    CreateUserProblems = SHARDS BODY KEYED [CONTACT_TAKEN, CONTACT_CLAIM_PENDING];
    /// Reading a user.
    GetUserProblems = SHARDS TOKENS BY_ID [USER_NOT_FOUND];
    /// Changing a user.
    UpdateUserProblems = SHARDS BODY BY_ID [USER_NOT_FOUND, CONTACT_TAKEN, CONTACT_CLAIM_PENDING, PRECONDITION_FAILED,
        PRECONDITION_REQUIRED, IDEMPOTENCY_KEY_INVALID, IDEMPOTENCY_KEY_IN_USE, IDEMPOTENCY_KEY_REUSED, OUTCOME_UNKNOWN];
    /// Placing an order.
    CreateOrderProblems = SHARDS BODY KEYED BY_ID [USER_NOT_FOUND];
    /// Listing orders.
    ListOrdersProblems = SHARDS TOKENS BY_ID [INVALID_CURSOR, USER_NOT_FOUND];
    /// Reading what belongs to an order.
    GetOrderProblems = SHARDS TOKENS BY_ID [ORDER_NOT_FOUND];
    /// Moving an order on.
    ChangeOrderProblems = SHARDS NO_BODY KEYED BY_ID [ORDER_NOT_FOUND, ORDER_STATE, PRECONDITION_FAILED];
    /// Creating a batch; its items carry their own problems, the key is that of the whole.
    BatchCreateProblems = SHARDS BODY KEYED;
    /// Looking up a batch; its items carry their own problems.
    BatchGetProblems = TOKENS BODY;
    /// Generating an invoice.
    GenerateInvoiceProblems = SHARDS NO_BODY KEYED BY_ID [ORDER_NOT_FOUND, ORDER_STATE, INVOICE_EXISTS];
    /// Reading an invoice.
    GetInvoiceProblems = SHARDS TOKENS BY_ID [INVOICE_NOT_FOUND, NOT_ACCEPTABLE];
    /// Looking at the ring.
    RingProblems =;
}

fn described(kinds: impl Iterator<Item = &'static ProblemType>) -> BTreeMap<String, RefOr<Response>> {
    let mut by_status: BTreeMap<u16, Vec<&ProblemType>> = BTreeMap::new();
    for kind in kinds {
        by_status.entry(kind.status).or_default().push(kind);
    }
    by_status
        .into_iter()
        .map(|(status, kinds)| (status.to_string(), RefOr::T(response(status, &kinds))))
        .collect()
}

fn response(status: u16, kinds: &[&ProblemType]) -> Response {
    let names: Vec<_> = kinds
        .iter()
        .map(|kind| format!("`{}`: {}.", kind.slug, kind.title))
        .collect();
    let problem = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("Problem")))
        .build();
    let response = ResponseBuilder::new()
        .description(names.join(" "))
        .content(PROBLEM_JSON, problem);
    let header = |text: &str| HeaderBuilder::new().description(Some(text)).build();
    match status {
        401 | 403 => response.header("WWW-Authenticate", header("What is missing, as RFC 6750 has it")),
        429 | 503 => response.header("Retry-After", header("Seconds to wait before the next try")),
        409 if kinds.iter().any(|kind| PASSING_CONFLICTS.contains(&kind.slug)) => response.header(
            "Retry-After",
            header("Seconds to wait before the next try, of conflicts that pass by themselves"),
        ),
        _ => response,
    }
    .build()
}
