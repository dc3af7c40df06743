//! What is done with an event.

use std::sync::Arc;

use broker::{Delivery, Event, Handler, Outcome, RetryTier};
use tracing::{Instrument, info_span, warn};

use crate::{
    courier::{Patience, Settled},
    metrics::Metrics,
    notify::{Notify, NotifyError, occasion},
};

/// An event that could not be handled this often, and for as long as messages are tried, is a person's to look at.
const FEWEST_TRIES: u32 = 10;

/// Handles events.
pub struct EventHandler {
    notify: Arc<Notify>,
    metrics: Metrics,
}

impl EventHandler {
    /// A handler that sends by way of `notify`.
    #[must_use]
    pub fn new(notify: Arc<Notify>, metrics: Metrics) -> Self {
        Self { notify, metrics }
    }

    async fn outcome(&self, event: &Event, attempt: u32) -> (Outcome, &'static str) {
        let Some(occasion) = occasion(event.kind) else {
            return (Outcome::Ack, "ignored");
        };
        let reason = match self.notify.of_event(event, occasion).await {
            Ok(Settled::Done) => return (Outcome::Ack, "done"),
            // The rows say what is left to do and until when, so there is always another try.
            Ok(Settled::TryAgain { .. }) => return (Outcome::RetryLater(RetryTier::for_attempt(attempt)), "retry"),
            Err(error) => error,
        };
        let patience = Patience {
            happened: event.occurred_at,
            since: event.occurred_at,
            for_as_long_as: self.notify.give_up_after,
        };
        if is_hopeless(&reason, attempt) || (attempt >= FEWEST_TRIES && patience.is_over()) {
            return (Outcome::DeadLetter(reason.to_string()), "dead");
        }
        warn!(attempt, %reason, "the event is handled again later");
        (Outcome::RetryLater(RetryTier::for_attempt(attempt)), "retry")
    }
}

impl Handler for EventHandler {
    async fn handle(&self, delivery: Delivery) -> Outcome {
        let Delivery {
            event,
            attempt,
            redelivered,
        } = delivery;
        let span =
            info_span!("event", id = %event.id, kind = %event.kind, order = %event.order_id, attempt, redelivered);
        let (outcome, label) = self.outcome(&event, attempt).instrument(span).await;
        self.metrics.event(event.kind.as_str(), label);
        outcome
    }
}

/// An order that is still not there after a while never will be: it committed before its event was published. Only a
/// shard restored from before that moment has lost it.
fn is_hopeless(error: &NotifyError, attempt: u32) -> bool {
    matches!(error, NotifyError::NoOrder) && attempt >= FEWEST_TRIES
}

#[cfg(test)]
mod tests {
    use broker::EventKind;

    use super::*;

    #[test]
    fn only_processed_orders_and_generated_invoices_are_told() {
        let told: Vec<EventKind> = EventKind::ALL
            .into_iter()
            .filter(|kind| occasion(*kind).is_some())
            .collect();
        assert_eq!(told, [EventKind::OrderProcessed, EventKind::InvoiceGenerated]);
    }
}
