//! What the store's errors are to the client.

use axum::http::HeaderValue;
use axum::http::header::LOCATION;
use store::StoreError;

use super::{FieldError, Problem, catalogue, sentence};
use crate::request::IfMatch;

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let retry_after = error.retry_after();
        let problem = match &error {
            StoreError::UserNotFound(_) => Self::new(&catalogue::USER_NOT_FOUND, sentence(&error)),
            StoreError::OrderNotFound(_) => Self::new(&catalogue::ORDER_NOT_FOUND, sentence(&error)),
            StoreError::InvoiceNotFound(_) => Self::new(&catalogue::INVOICE_NOT_FOUND, sentence(&error)),
            StoreError::EmailTaken => taken("#/email_address", sentence(&error)),
            StoreError::MobileTaken => taken("#/mobile_number", sentence(&error)),
            StoreError::VersionMismatch { .. } => IfMatch::failed(),
            StoreError::InvalidTransition { .. } | StoreError::OrderCancelled(_) => {
                Self::new(&catalogue::ORDER_STATE, sentence(&error))
            }
            StoreError::InvoiceExists { invoice, .. } => {
                let exists = Self::new(&catalogue::INVOICE_EXISTS, sentence(&error));
                match HeaderValue::from_str(&format!("/v1/invoices/{invoice}")) {
                    Ok(location) => exists.with_header(LOCATION, location),
                    Err(_) => exists,
                }
            }
            StoreError::KeyReuse => Self::new(&catalogue::IDEMPOTENCY_KEY_REUSED, sentence(&error)),
            StoreError::InProgress { .. } => Self::new(
                &catalogue::IDEMPOTENCY_KEY_IN_USE,
                "A request with this idempotency key has not ended.",
            ),
            StoreError::ClaimPending { .. } => Self::new(
                &catalogue::CONTACT_CLAIM_PENDING,
                "Another request is just giving this email address or mobile number to a user.",
            ),
            StoreError::ForeignToken { .. } => Self::new(&catalogue::INVALID_TOKEN, sentence(&error)),
            StoreError::Unavailable { .. } => {
                tracing::warn!(error = telemetry::chain(&error), "a shard is not available");
                Self::new(
                    &catalogue::SHARD_UNAVAILABLE,
                    "The shard that owns the data could not serve the request.",
                )
            }
            StoreError::OutcomeUnknown { .. } => {
                tracing::warn!(error = telemetry::chain(&error), "the outcome of a write is not known");
                Self::new(
                    &catalogue::OUTCOME_UNKNOWN,
                    "The database did not confirm the operation.",
                )
            }
            StoreError::NoSuchShard { .. } => {
                tracing::error!(error = telemetry::chain(&error), "the ring has no such shard");
                Self::new(
                    &catalogue::SHARD_UNAVAILABLE,
                    "The shard that owns the data is not known here yet.",
                )
            }
            // The client gets no word of the inside; the log has it, under the request's id.
            StoreError::Database { .. }
            | StoreError::BadRow { .. }
            | StoreError::Config(_)
            | StoreError::LeaseLost(_) => {
                tracing::error!(error = telemetry::chain(&error), "the store failed");
                Self::new(&catalogue::INTERNAL, "The request could not be carried out.")
            }
        };
        match retry_after {
            Some(wait) => problem.retry_after(wait),
            None if problem.kind().status == 503 => problem.retry_after(std::time::Duration::from_secs(1)),
            None => problem,
        }
    }
}

fn taken(pointer: &str, detail: String) -> Problem {
    let error = FieldError {
        pointer: pointer.to_owned(),
        detail: "belongs to another user".into(),
    };
    Problem::new(&catalogue::CONTACT_TAKEN, detail).with_errors(vec![error])
}
