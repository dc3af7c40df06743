//! The outbox: an event commits with the change it tells of, and is deleted when the broker has confirmed it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use ring::Ordinal;
use row_id::{EventId, InvoiceId, OrderId, UserId};

use crate::error::StoreError;
use crate::store::Store;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// An order was placed.
    OrderCreated,
    /// An order was processed.
    OrderProcessed,
    /// An order was cancelled.
    OrderCancelled,
    /// An invoice was generated.
    InvoiceGenerated,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [
        Self::OrderCreated,
        Self::OrderProcessed,
        Self::OrderCancelled,
        Self::InvoiceGenerated,
    ];

    /// As in the database, the message and the routing key.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OrderCreated => "order.created",
            Self::OrderProcessed => "order.processed",
            Self::OrderCancelled => "order.cancelled",
            Self::InvoiceGenerated => "invoice.generated",
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EventKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| format!("`{text}` is no event kind"))
    }
}

/// A row of `ringwright.outbox`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxEvent {
    /// The message id; begins with its user's position.
    pub event_id: EventId,
    /// What happened.
    pub kind: EventKind,
    /// Its number within the order, from 1.
    pub sequence: i64,
    /// Whose order.
    pub user_id: UserId,
    /// The order.
    pub order_id: OrderId,
    /// The invoice, for `invoice.generated`.
    pub invoice_id: Option<InvoiceId>,
    /// When it happened.
    pub occurred_at: DateTime<Utc>,
}

/// What waits in one shard's outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxBacklog {
    /// Events of owned ranges not yet confirmed by the broker.
    pub count: i64,
    /// Age of the oldest.
    pub oldest: Option<Duration>,
}

impl Store {
    /// Takes up to `limit` unpublished events of ranges this shard owns, oldest first, and holds them for `hold`:
    /// no other poller gets them before. A taker that dies lets them go at the end of the hold.
    pub async fn take_events(
        &self,
        shard: Ordinal,
        limit: u16,
        hold: Duration,
    ) -> Result<Vec<OutboxEvent>, StoreError> {
        let _ = (shard, limit, hold);
        unimplemented!()
    }

    /// Forgets events the broker has confirmed, wherever their ranges are by now. Events already forgotten are fine.
    pub async fn mark_published(&self, events: &[EventId]) -> Result<(), StoreError> {
        let _ = events;
        unimplemented!()
    }

    /// Lets go of taken events that could not be published, so that the next poll gets them at once.
    pub async fn release_events(&self, events: &[EventId]) -> Result<(), StoreError> {
        let _ = events;
        unimplemented!()
    }

    /// How much waits on a shard.
    pub async fn outbox_backlog(&self, shard: Ordinal) -> Result<OutboxBacklog, StoreError> {
        let _ = shard;
        unimplemented!()
    }
}
