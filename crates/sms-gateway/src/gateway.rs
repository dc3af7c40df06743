use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::rejection::{FormRejection, JsonRejection};
use axum::extract::{DefaultBodyLimit, Form, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::Utc;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::faults::{Fate, Faults};
use crate::inbox::{Inbox, Received};
use crate::refusal::Refusal;

/// As at Twilio: the longest body that is split into parts.
const MAX_BODY_CHARACTERS: usize = 1_600;
const MAX_REQUEST_BYTES: usize = 64 * 1024;
/// Twilio's number for tests that want an invalid one.
const MAGIC_INVALID_NUMBER: &str = "+15005550001";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// What the handlers share.
#[derive(Default)]
struct Gateway {
    inbox: Mutex<Inbox>,
    faults: Mutex<Faults>,
    messages: Family<Outcome, Counter>,
}

/// The form that Twilio's clients send.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NewMessage {
    #[serde(default)]
    to: String,
    #[serde(default)]
    from: String,
    #[serde(default)]
    body: String,
}

/// Twilio's answer to a message that was taken, as far as clients read it.
#[derive(Serialize)]
struct Accepted {
    sid: String,
    account_sid: String,
    api_version: &'static str,
    to: String,
    from: String,
    body: String,
    status: &'static str,
    direction: &'static str,
    num_segments: String,
    date_created: String,
    error_code: Option<u32>,
    error_message: Option<String>,
    uri: String,
}

/// The gateway's routes, with its metrics registered.
pub(crate) fn router(registry: &mut Registry) -> Router {
    let gateway = Gateway::default();
    let help = "Messages by outcome: accepted, dropped (accepted, but the answer was not given), refused";
    registry.register("sms_gateway_messages", help, gateway.messages.clone());
    Router::new()
        .route("/2010-04-01/Accounts/{account}/Messages.json", post(create))
        .route("/messages", get(list).delete(clear))
        .route("/faults", get(show_faults).put(set_faults))
        .fallback(|| async { Refusal::NotFound })
        .layer(DefaultBodyLimit::max(MAX_REQUEST_BYTES))
        .with_state(Arc::new(gateway))
}

async fn create(
    State(gateway): State<Arc<Gateway>>,
    Path(account): Path<String>,
    headers: HeaderMap,
    form: Result<Form<NewMessage>, FormRejection>,
) -> Response {
    let delay = lock(&gateway.faults).delay();
    tokio::time::sleep(delay).await;
    let message = match check(&headers, form) {
        Ok(message) => message,
        Err(refusal) => return gateway.refuse(refusal),
    };
    let fate = lock(&gateway.faults).next_fate();
    if let Fate::Fail { status } = fate {
        return gateway.refuse(Refusal::Fault(status));
    }
    let accepted = gateway.accept(account, message);
    if fate == Fate::AcceptThenDrop {
        gateway.count("dropped");
        // Unwinding out of the connection's task closes it without an answer; unlike a panic it is not logged as one.
        resume_unwind(Box::new("cut on purpose, by the fault accept_then_drop"));
    }
    gateway.count("accepted");
    (StatusCode::CREATED, Json(accepted)).into_response()
}

async fn list(State(gateway): State<Arc<Gateway>>) -> Json<Vec<Received>> {
    Json(lock(&gateway.inbox).all())
}

async fn clear(State(gateway): State<Arc<Gateway>>) -> StatusCode {
    lock(&gateway.inbox).clear();
    StatusCode::NO_CONTENT
}

async fn show_faults(State(gateway): State<Arc<Gateway>>) -> Json<Faults> {
    Json(*lock(&gateway.faults))
}

async fn set_faults(
    State(gateway): State<Arc<Gateway>>,
    faults: Result<Json<Faults>, JsonRejection>,
) -> Result<Json<Faults>, Refusal> {
    let Json(faults) = faults.map_err(|rejection| Refusal::Unreadable(rejection.body_text()))?;
    if !(400..=599).contains(&faults.status) {
        return Err(Refusal::Unreadable(format!(
            "status is {}, but a failure has 400 to 599",
            faults.status
        )));
    }
    *lock(&gateway.faults) = faults;
    tracing::info!(?faults, "faults set");
    Ok(Json(faults))
}

impl Gateway {
    fn accept(&self, account_sid: String, message: NewMessage) -> Accepted {
        let NewMessage { to, from, body } = message;
        let (sid, received_at) = (format!("SM{}", Uuid::new_v4().simple()), Utc::now());
        // Numbers and texts of customers are for those who ask for them, and not for the log.
        tracing::info!(sid, characters = body.chars().count(), "message taken");
        let received = Received {
            sid,
            account_sid,
            to,
            from,
            body,
            received_at,
        };
        lock(&self.inbox).put(received.clone());
        let Received {
            sid,
            account_sid,
            to,
            from,
            body,
            ..
        } = received;
        Accepted {
            uri: format!("/2010-04-01/Accounts/{account_sid}/Messages/{sid}.json"),
            num_segments: segments(&body).to_string(),
            date_created: received_at.to_rfc2822(),
            api_version: "2010-04-01",
            status: "queued",
            direction: "outbound-api",
            error_code: None,
            error_message: None,
            sid,
            account_sid,
            to,
            from,
            body,
        }
    }

    fn refuse(&self, refusal: Refusal) -> Response {
        self.count("refused");
        refusal.into_response()
    }

    fn count(&self, outcome: &'static str) {
        self.messages.get_or_create(&Outcome { outcome }).inc();
    }
}

fn check(headers: &HeaderMap, form: Result<Form<NewMessage>, FormRejection>) -> Result<NewMessage, Refusal> {
    if !is_authenticated(headers) {
        return Err(Refusal::Unauthenticated);
    }
    let Form(message) = form.map_err(|rejection| Refusal::Unreadable(rejection.body_text()))?;
    let NewMessage { to, from, body } = &message;
    if to.is_empty() {
        return Err(Refusal::NoTo);
    }
    if !is_e164(to) || to == MAGIC_INVALID_NUMBER {
        return Err(Refusal::InvalidTo(to.clone()));
    }
    if from.is_empty() {
        return Err(Refusal::NoFrom);
    }
    if !is_e164(from) && !is_sender_name(from) {
        return Err(Refusal::InvalidFrom(from.clone()));
    }
    if body.is_empty() {
        return Err(Refusal::NoBody);
    }
    if body.chars().count() > MAX_BODY_CHARACTERS {
        return Err(Refusal::LongBody);
    }
    Ok(message)
}

/// Whether there is a name and a password at all; which ones does not matter here.
fn is_authenticated(headers: &HeaderMap) -> bool {
    let credentials = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let decoded = credentials
        .and_then(|value| value.strip_prefix("Basic "))
        .and_then(|text| STANDARD.decode(text).ok());
    let text = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    text.as_deref()
        .and_then(|text| text.split_once(':'))
        .is_some_and(|(name, word)| !name.is_empty() && !word.is_empty())
}

/// A plus sign and 8 to 15 digits, of which the first is not zero (ITU-T E.164).
fn is_e164(number: &str) -> bool {
    number.strip_prefix('+').is_some_and(|digits| {
        (8..=15).contains(&digits.len()) && !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// A short code, or up to eleven letters, digits and spaces with a letter among them.
fn is_sender_name(name: &str) -> bool {
    let is_short_code = (3..=8).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_digit());
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b' ');
    is_short_code || (name.len() <= 11 && is_plain && name.bytes().any(|byte| byte.is_ascii_alphabetic()))
}

/// How many parts a text is sent in; beyond ASCII it is taken to be UCS-2, where Twilio looks closer.
fn segments(body: &str) -> usize {
    let (units, single, part) = if body.is_ascii() {
        (body.len(), 160, 153)
    } else {
        (body.encode_utf16().count(), 70, 67)
    };
    if units <= single { 1 } else { units.div_ceil(part) }
}

/// A panic elsewhere leaves nothing half done in a list of messages, so a poisoned lock is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "gateway_tests.rs"]
mod tests;
