//! Emails and text messages: what was queued, sent, failed, or may have been sent.

mod queue;
mod read;
mod send;
mod sweep;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use row_id::{EmailId, InvoiceId, OrderId, SmsId};
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use crate::invoices::Invoice;
use crate::orders::Order;
use crate::outbox::EventKind;
use crate::users::User;

/// queued -> sending -> sent | failed | unknown; sending -> queued when the provider certainly did not take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NotificationStatus {
    /// To be sent.
    Queued,
    /// Handed to the provider, which has not answered yet.
    Sending,
    /// The provider took it.
    Sent,
    /// It will never arrive.
    Failed,
    /// It may have been taken; never repeated blindly.
    Unknown,
}

impl NotificationStatus {
    /// Every status.
    pub const ALL: [Self; 5] = [Self::Queued, Self::Sending, Self::Sent, Self::Failed, Self::Unknown];

    /// As in the database and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Sending => "sending",
            Self::Sent => "sent",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for NotificationStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for NotificationStatus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| format!("`{text}` is no notification status"))
    }
}

/// A row of `shop.emails`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Email {
    /// Begins with its user's position.
    pub email_id: EmailId,
    /// Where it goes, as it was when the event was handled.
    pub user_email_address: String,
    /// The order it tells of.
    pub order_id: OrderId,
    /// The invoice it carries, if any.
    pub invoice_id: Option<InvoiceId>,
    /// The event it tells of.
    pub kind: EventKind,
    /// That event's number within the order.
    pub sequence: i64,
    /// State and history of the sending.
    pub delivery: Delivery,
}

/// A row of `shop.sms`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sms {
    /// Begins with its user's position.
    pub sms_id: SmsId,
    /// Where it goes, as it was when the event was handled.
    pub mobile_number: String,
    /// The order it tells of.
    pub order_id: OrderId,
    /// The event it tells of.
    pub kind: EventKind,
    /// That event's number within the order.
    pub sequence: i64,
    /// State and history of the sending.
    pub delivery: Delivery,
}

/// What emails and text messages have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The state.
    pub status: NotificationStatus,
    /// How often it was handed to the provider.
    pub attempts: i32,
    /// The provider's id for it.
    pub provider_reference: Option<String>,
    /// Why it failed, is unknown or waits; never an address.
    pub last_error: Option<String>,
    /// When the provider took it.
    pub sent_at: Option<DateTime<Utc>>,
    /// Counted up by each update.
    pub version: i64,
    /// When it was queued.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

/// A row of either table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notification {
    /// An email.
    Email(Email),
    /// A text message.
    Sms(Sms),
}

/// An email or a text message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NotificationId {
    /// An email.
    Email(EmailId),
    /// A text message.
    Sms(SmsId),
}

/// All that a message about an order may show, read on the master in one snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct OrderContext {
    /// The order.
    pub order: Order,
    /// Whose it is.
    pub user: User,
    /// Its invoice, if it has been generated.
    pub invoice: Option<Invoice>,
}

/// The notifications of one order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderNotifications {
    /// Emails, oldest first.
    pub emails: Vec<Email>,
    /// Text messages, oldest first.
    pub sms: Vec<Sms>,
}

/// What one event asks to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewNotifications {
    /// The order.
    pub order_id: OrderId,
    /// The event.
    pub kind: EventKind,
    /// Its number within the order.
    pub sequence: i64,
    /// Where the email goes; `None` sends none.
    pub email_address: Option<String>,
    /// Where the text message goes; `None` sends none.
    pub mobile_number: Option<String>,
    /// The invoice the email carries.
    pub invoice_id: Option<InvoiceId>,
}

/// The rows of one event: new ones, or those an earlier delivery of it made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedNotifications {
    /// The email, if one was asked for.
    pub email: Option<Email>,
    /// The text message, if one was asked for.
    pub sms: Option<Sms>,
}

/// The right to send one notification, for a limited time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// What may be sent.
    pub id: NotificationId,
    /// Proves that it is this lease and no later one.
    pub holder: Uuid,
    /// For how long it was given.
    pub valid_for: Duration,
}

/// What a claim found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claimed {
    /// It is ours to send, by this lease.
    Ours(Lease),
    /// Another worker holds it for about this long.
    Busy {
        /// When to look again.
        retry_after: Duration,
    },
    /// There is nothing to send any more. A message whose sender died after handing it over is `Unknown`.
    Settled(NotificationStatus),
}

/// How a sending ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendOutcome {
    /// The provider took it.
    Sent {
        /// Its id there.
        provider_reference: Option<String>,
    },
    /// The provider certainly did not take it, but may later: queued again.
    Retry {
        /// Why.
        reason: String,
    },
    /// It will never be taken.
    Failed {
        /// Why.
        reason: String,
    },
    /// It may have been taken.
    Unknown {
        /// Why.
        reason: String,
    },
}

impl NotificationId {
    /// The id as the database has it.
    pub fn uuid(self) -> Uuid {
        match self {
            Self::Email(id) => id.uuid(),
            Self::Sms(id) => id.uuid(),
        }
    }
}

/// The columns of an email, aliased `e`, in every statement that reads one.
macro_rules! email_columns {
    () => {
        "e.email_id AS e_email_id, e.user_email_address AS e_user_email_address, e.order_id AS e_order_id, \
         e.invoice_id AS e_invoice_id, e.kind AS e_kind, e.sequence AS e_sequence, e.status AS e_status, \
         e.attempts AS e_attempts, e.provider_reference AS e_provider_reference, e.last_error AS e_last_error, \
         e.sent_at AS e_sent_at, e.version AS e_version, e.created_at AS e_created_at, e.updated_at AS e_updated_at"
    };
}
pub(crate) use email_columns;

/// The columns of a text message, aliased `s`, in every statement that reads one.
macro_rules! sms_columns {
    () => {
        "s.sms_id AS s_sms_id, s.mobile_number AS s_mobile_number, s.order_id AS s_order_id, s.kind AS s_kind, \
         s.sequence AS s_sequence, s.status AS s_status, s.attempts AS s_attempts, \
         s.provider_reference AS s_provider_reference, s.last_error AS s_last_error, s.sent_at AS s_sent_at, \
         s.version AS s_version, s.created_at AS s_created_at, s.updated_at AS s_updated_at"
    };
}
pub(crate) use sms_columns;

fn broken(error: impl fmt::Display) -> String {
    error.to_string()
}

/// Reads the columns of [`email_columns!`]; `None` where the row was not there.
pub(crate) fn email_from(row: &PgRow) -> Result<Option<Email>, String> {
    let Some(id) = row.try_get::<Option<Uuid>, _>("e_email_id").map_err(broken)? else {
        return Ok(None);
    };
    let order: Uuid = row.try_get("e_order_id").map_err(broken)?;
    let kind: &str = row.try_get("e_kind").map_err(broken)?;
    let invoice: Option<Uuid> = row.try_get("e_invoice_id").map_err(broken)?;
    Ok(Some(Email {
        email_id: EmailId::from_uuid(id).map_err(broken)?,
        user_email_address: row.try_get("e_user_email_address").map_err(broken)?,
        order_id: OrderId::from_uuid(order).map_err(broken)?,
        invoice_id: invoice.map(InvoiceId::from_uuid).transpose().map_err(broken)?,
        kind: kind.parse().map_err(broken)?,
        sequence: row.try_get("e_sequence").map_err(broken)?,
        delivery: Delivery {
            status: row.try_get::<&str, _>("e_status").map_err(broken)?.parse()?,
            attempts: row.try_get("e_attempts").map_err(broken)?,
            provider_reference: row.try_get("e_provider_reference").map_err(broken)?,
            last_error: row.try_get("e_last_error").map_err(broken)?,
            sent_at: row.try_get("e_sent_at").map_err(broken)?,
            version: row.try_get("e_version").map_err(broken)?,
            created_at: row.try_get("e_created_at").map_err(broken)?,
            updated_at: row.try_get("e_updated_at").map_err(broken)?,
        },
    }))
}

/// Reads the columns of [`sms_columns!`]; `None` where the row was not there.
pub(crate) fn sms_from(row: &PgRow) -> Result<Option<Sms>, String> {
    let Some(id) = row.try_get::<Option<Uuid>, _>("s_sms_id").map_err(broken)? else {
        return Ok(None);
    };
    let order: Uuid = row.try_get("s_order_id").map_err(broken)?;
    let kind: &str = row.try_get("s_kind").map_err(broken)?;
    Ok(Some(Sms {
        sms_id: SmsId::from_uuid(id).map_err(broken)?,
        mobile_number: row.try_get("s_mobile_number").map_err(broken)?,
        order_id: OrderId::from_uuid(order).map_err(broken)?,
        kind: kind.parse().map_err(broken)?,
        sequence: row.try_get("s_sequence").map_err(broken)?,
        delivery: Delivery {
            status: row.try_get::<&str, _>("s_status").map_err(broken)?.parse()?,
            attempts: row.try_get("s_attempts").map_err(broken)?,
            provider_reference: row.try_get("s_provider_reference").map_err(broken)?,
            last_error: row.try_get("s_last_error").map_err(broken)?,
            sent_at: row.try_get("s_sent_at").map_err(broken)?,
            version: row.try_get("s_version").map_err(broken)?,
            created_at: row.try_get("s_created_at").map_err(broken)?,
            updated_at: row.try_get("s_updated_at").map_err(broken)?,
        },
    }))
}
