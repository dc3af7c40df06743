//! `GET /v1/orders/{id}/notifications`: what the customer was told of an order.

use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, Utc};
use row_id::{EmailId, InvoiceId, OrderId, SmsId};
use serde::Serialize;
use store::notifications::{Delivery, Email, OrderNotifications, Sms};
use store::{Answer, StoreError};
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::{Caller, Read};
use crate::openapi::headers::ReadHeaders;
use crate::openapi::responses::GetOrderProblems;
use crate::problem::Problem;
use crate::reply;
use crate::request::{PathId, ReadContext};

/// What the customer was told of an order, oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct Notifications {
    /// The emails.
    emails: Vec<EmailView>,
    /// The text messages.
    sms: Vec<SmsView>,
}

/// An email.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Email)]
struct EmailView {
    #[schema(value_type = uuid::Uuid)]
    email_id: EmailId,
    /// Where it went.
    email_address: String,
    /// What it tells of.
    #[schema(example = "order.processed")]
    event: &'static str,
    /// The invoice it carries.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<uuid::Uuid>, nullable = false)]
    invoice_id: Option<InvoiceId>,
    #[serde(flatten)]
    delivery: DeliveryView,
}

/// A text message.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Sms)]
struct SmsView {
    #[schema(value_type = uuid::Uuid)]
    sms_id: SmsId,
    /// Where it went.
    mobile_number: String,
    /// What it tells of.
    #[schema(example = "order.processed")]
    event: &'static str,
    #[serde(flatten)]
    delivery: DeliveryView,
}

/// How far a notification has come.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Delivery)]
struct DeliveryView {
    /// `queued`, `sending`, `sent`, `failed`, or `unknown`: it may have been sent and is not sent again.
    #[schema(example = "sent")]
    status: &'static str,
    /// How often it was handed to the provider.
    attempts: i32,
    /// The provider's id for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    provider_reference: Option<String>,
    /// Why it has not been sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    last_error: Option<String>,
    /// When the provider took it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    sent_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<Email> for EmailView {
    fn from(email: Email) -> Self {
        Self {
            email_id: email.email_id,
            email_address: email.user_email_address,
            event: email.kind.as_str(),
            invoice_id: email.invoice_id,
            delivery: email.delivery.into(),
        }
    }
}

impl From<Sms> for SmsView {
    fn from(sms: Sms) -> Self {
        Self {
            sms_id: sms.sms_id,
            mobile_number: sms.mobile_number,
            event: sms.kind.as_str(),
            delivery: sms.delivery.into(),
        }
    }
}

impl From<Delivery> for DeliveryView {
    fn from(delivery: Delivery) -> Self {
        Self {
            status: delivery.status.as_str(),
            attempts: delivery.attempts,
            provider_reference: delivery.provider_reference,
            last_error: delivery.last_error,
            sent_at: delivery.sent_at,
            created_at: delivery.created_at,
            updated_at: delivery.updated_at,
        }
    }
}

/// Lists what the customer was told of an order.
#[utoipa::path(get, path = "/v1/orders/{id}/notifications", tag = "notifications",
    params(("id" = uuid::Uuid, Path, description = "The order"), ReadHeaders),
    responses(
        (status = 200, description = "The emails and text messages", body = Notifications,
            headers(("Ringwright-Token" = String, description = "Covers this read"))),
        GetOrderProblems))]
pub async fn order_notifications(
    _: Caller<Read>,
    State(app): State<App>,
    PathId(id): PathId<OrderId>,
    ReadContext(at): ReadContext,
) -> Result<Response, Problem> {
    let Answer {
        value: OrderNotifications { emails, sms },
        token,
    } = app.store.order_notifications(id, &at).await?;
    // None yet is an answer; no order is not.
    if emails.is_empty() && sms.is_empty() && app.store.get_order(id, &at).await?.value.is_none() {
        return Err(StoreError::OrderNotFound(id).into());
    }
    let value = Notifications {
        emails: emails.into_iter().map(EmailView::from).collect(),
        sms: sms.into_iter().map(SmsView::from).collect(),
    };
    reply::read(&Answer { value, token }, None)
}
