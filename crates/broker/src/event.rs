//! What the order API tells the rest of the house.

use chrono::{DateTime, Utc};
use event_kind::EventKind;
use row_id::{EventId, InvoiceId, OrderId, UserId};
use serde::{Deserialize, Serialize};

/// The version of the message body this crate writes and the only one it reads.
const FORMAT: u32 = 1;

/// One event of one order, as it travels. It names rows and carries nothing of the customer: whoever consumes it reads
/// the rows themselves, so that no address or amount lies in a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Version of this body; see [`Event::from_json`].
    format: u32,
    /// The outbox row's id; the same in every repetition of this event, and the AMQP message id.
    pub id: EventId,
    /// What happened.
    pub kind: EventKind,
    /// Position of the event among those of its order, counting up without gaps from 1.
    pub sequence: i64,
    /// The owner of the order.
    pub user_id: UserId,
    /// The order it happened to.
    pub order_id: OrderId,
    /// The invoice, for [`EventKind::InvoiceGenerated`].
    pub invoice_id: Option<InvoiceId>,
    /// When it happened.
    pub occurred_at: DateTime<Utc>,
}

impl Event {
    /// An event in the current format.
    #[must_use]
    pub fn new(
        id: EventId,
        kind: EventKind,
        sequence: i64,
        user_id: UserId,
        order_id: OrderId,
        invoice_id: Option<InvoiceId>,
        occurred_at: DateTime<Utc>,
    ) -> Self {
        Self {
            format: FORMAT,
            id,
            kind,
            sequence,
            user_id,
            order_id,
            invoice_id,
            occurred_at,
        }
    }

    /// The message body.
    ///
    /// # Errors
    /// Never in practice: the type has no value that JSON cannot hold.
    pub fn to_json(&self) -> Result<Vec<u8>, EventError> {
        serde_json::to_vec(self).map_err(EventError::Encode)
    }

    /// Reads a message body. Fields it does not know are ignored, so that a format can grow; a format number it does not
    /// know is refused, since then known fields may mean something else.
    ///
    /// # Errors
    /// When the body is no JSON of this shape, or of another format.
    pub fn from_json(body: &[u8]) -> Result<Self, EventError> {
        let event: Self = serde_json::from_slice(body).map_err(EventError::Decode)?;
        if event.format != FORMAT {
            return Err(EventError::UnknownFormat { format: event.format });
        }
        Ok(event)
    }
}

/// Why bytes are not an event.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// The event could not be written as JSON.
    #[error("cannot write the event as JSON: {0}")]
    Encode(#[source] serde_json::Error),
    /// The body is not an event of any known shape.
    #[error("the message body is no event: {0}")]
    Decode(#[source] serde_json::Error),
    /// Written by a newer program.
    #[error("the event has format {format}, this program reads format {FORMAT}: update the consumer first")]
    UnknownFormat {
        /// The number found.
        format: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        let user = UserId::generate();
        Event::new(
            EventId::generate(user.position()),
            EventKind::OrderProcessed,
            2,
            user,
            OrderId::generate(user.position()),
            None,
            Utc::now(),
        )
    }

    #[test]
    fn an_event_survives_the_wire() {
        let event = event();
        assert_eq!(Event::from_json(&event.to_json().unwrap()).unwrap(), event);
    }

    #[test]
    fn the_body_has_the_published_field_names() {
        let event = event();
        let body: serde_json::Value = serde_json::from_slice(&event.to_json().unwrap()).unwrap();
        assert_eq!(body["format"], 1);
        assert_eq!(body["kind"], "order.processed");
        assert_eq!(body["order_id"], event.order_id.to_string());
        assert!(body["invoice_id"].is_null());
    }

    #[test]
    fn a_body_of_another_format_is_refused() {
        let mut body: serde_json::Value = serde_json::from_slice(&event().to_json().unwrap()).unwrap();
        body["format"] = 2.into();
        let refusal = Event::from_json(body.to_string().as_bytes()).unwrap_err();
        assert!(matches!(refusal, EventError::UnknownFormat { format: 2 }), "{refusal}");
    }
}
