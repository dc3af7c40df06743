//! What can happen to an order, in the one form that the outbox, the messages and the customers' notifications use.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What happened to an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EventKind {
    /// An order was placed.
    #[serde(rename = "order.created")]
    OrderCreated,
    /// An order was marked processed: the customer is told.
    #[serde(rename = "order.processed")]
    OrderProcessed,
    /// An order was cancelled.
    #[serde(rename = "order.cancelled")]
    OrderCancelled,
    /// An invoice was generated: the customer is told, and gets it.
    #[serde(rename = "invoice.generated")]
    InvoiceGenerated,
}

/// A kind that no program of this version knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no kind of event")]
pub struct UnknownEventKind(String);

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [
        Self::OrderCreated,
        Self::OrderProcessed,
        Self::OrderCancelled,
        Self::InvoiceGenerated,
    ];

    /// As in the database, the message and its routing key: `order.processed`.
    #[must_use]
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
    type Err = UnknownEventKind;

    fn from_str(text: &str) -> Result<Self, UnknownEventKind> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| UnknownEventKind(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_reads_back_from_its_routing_key() {
        for kind in EventKind::ALL {
            assert_eq!(kind.as_str().parse::<EventKind>().unwrap(), kind);
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
    }

    #[test]
    fn what_is_no_kind_is_refused() {
        assert_eq!(
            "order.lost".parse::<EventKind>().unwrap_err().to_string(),
            "\"order.lost\" is no kind of event"
        );
    }
}
