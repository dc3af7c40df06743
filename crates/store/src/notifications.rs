//! Emails and text messages: what was queued, sent, failed, or may have been sent.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use ring::Ordinal;
use row_id::{EmailId, InvoiceId, OrderId, SmsId};

use crate::error::StoreError;
use crate::invoices::Invoice;
use crate::orders::Order;
use crate::outbox::EventKind;
use crate::reading::{Answer, ReadAt};
use crate::store::Store;
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
    pub holder: uuid::Uuid,
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

impl Store {
    /// Reads an order with its user and invoice on the master.
    pub async fn order_context(&self, order: OrderId) -> Result<Option<OrderContext>, StoreError> {
        let _ = order;
        unimplemented!()
    }

    /// Reads all notifications of an order.
    pub async fn order_notifications(
        &self,
        order: OrderId,
        at: &ReadAt,
    ) -> Result<Answer<OrderNotifications>, StoreError> {
        let _ = (order, at);
        unimplemented!()
    }

    /// Makes the rows of an event, or finds those made before: unique per order, kind and sequence.
    pub async fn queue_notifications(&self, new: NewNotifications) -> Result<QueuedNotifications, StoreError> {
        let _ = new;
        unimplemented!()
    }

    /// Claims a queued notification for `lease`.
    pub async fn claim_notification(&self, id: NotificationId, lease: Duration) -> Result<Claimed, StoreError> {
        let _ = (id, lease);
        unimplemented!()
    }

    /// Marks a claimed notification `sending`: from here on its loss is ambiguous. Call it right before handing it to
    /// the provider; [`StoreError::LeaseLost`] means do not send.
    pub async fn begin_sending(&self, lease: &Lease) -> Result<(), StoreError> {
        let _ = lease;
        unimplemented!()
    }

    /// Records how the sending ended and gives the lease back.
    pub async fn record_outcome(&self, lease: &Lease, outcome: SendOutcome) -> Result<(), StoreError> {
        let _ = (lease, outcome);
        unimplemented!()
    }

    /// Turns `sending` rows whose lease ended longer ago than `grace` into `unknown`, and tells how many.
    pub async fn settle_lost_sendings(&self, shard: Ordinal, grace: Duration, limit: u16) -> Result<u64, StoreError> {
        let _ = (shard, grace, limit);
        unimplemented!()
    }

    /// Notifications that have been queued and untouched for longer than `age` and that no worker holds, oldest first:
    /// their event was lost, or nobody consumes.
    pub async fn overdue_notifications(
        &self,
        shard: Ordinal,
        age: Duration,
        limit: u16,
    ) -> Result<Vec<Notification>, StoreError> {
        let _ = (shard, age, limit);
        unimplemented!()
    }
}
