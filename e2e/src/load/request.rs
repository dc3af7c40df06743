//! The requests of the load, and the bodies they carry.

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::latency::Kind;
use crate::history::record::OperationId;

/// How a read is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// The newest.
    Strong,
    /// At least what the user's client has seen.
    Session,
    /// Without a token.
    Loose,
}

/// What to do next; numbers are those of the population.
#[derive(Debug, Clone)]
pub(super) enum Request {
    GetUser(usize, Mode),
    GetOrder(usize, Mode),
    GetOrders(Vec<usize>, Mode),
    /// A user's newest orders.
    ListOrders(usize, Mode),
    CreateUser,
    CreateOrder(usize),
    /// One order for each of these users, in one request.
    CreateOrders(Vec<usize>),
    UpdateUser(usize),
    Process(usize),
    Cancel(usize),
    Repeat(Box<Repeatable>),
}

impl Request {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::GetUser(_, Mode::Strong) | Self::GetOrder(_, Mode::Strong) => Kind::StrongRead,
            Self::GetUser(..) | Self::GetOrder(..) => Kind::SessionRead,
            Self::GetOrders(..) | Self::ListOrders(..) => Kind::BatchRead,
            Self::CreateUser => Kind::CreateUser,
            Self::CreateOrder(_) => Kind::CreateOrder,
            Self::CreateOrders(_) => Kind::BatchCreate,
            Self::UpdateUser(_) => Kind::UpdateUser,
            Self::Process(_) | Self::Cancel(_) => Kind::ChangeOrder,
            Self::Repeat(_) => Kind::Repeat,
        }
    }
}

/// A write as it goes over the wire, so that it can be sent again to the letter.
#[derive(Debug, Clone)]
pub(super) struct Repeatable {
    /// What it does; a batch does several.
    pub(super) operations: Vec<OperationId>,
    pub(super) method: Method,
    pub(super) path: String,
    /// The Idempotency-Key.
    pub(super) key: String,
    pub(super) if_match: Option<String>,
    pub(super) body: Option<String>,
}

impl Repeatable {
    pub(super) fn is_batch(&self) -> bool {
        self.path.ends_with(":batch-create")
    }
}

/// A new user. Everything that is unique is made of the operation's number: who wrote a row can be read from it.
pub(super) fn user(operation: OperationId, run: u32) -> Value {
    let number = (u64::from(run) + u64::from(operation.0)) % 100_000_000;
    json!({
        "first_name": operation.to_string(), "last_name": "Load",
        "email_address": email_address(operation),
        // German mobile numbers of the length that is valid for this prefix.
        "mobile_number": format!("+49151{number:08}"),
        "locale": "en", "time_zone": "UTC",
    })
}

/// The address of a user created by this operation.
pub(super) fn email_address(operation: OperationId) -> String {
    format!("{operation}@load.example.com")
}

/// A new order, known to its customer by the operation's number.
pub(super) fn order(operation: OperationId) -> Value {
    json!({
        "currency": "EUR",
        "order_details": {
            "lines": [{"sku": "TEA-1", "description": "Teapot", "quantity": 2, "unit_price_minor": 1999}],
            "reference": operation.to_string(),
        },
    })
}

/// The same for a batch, where each order names its user.
pub(super) fn users_order(operation: OperationId, user: Uuid) -> Value {
    let mut order = order(operation);
    order["user_id"] = user.to_string().into();
    order
}
