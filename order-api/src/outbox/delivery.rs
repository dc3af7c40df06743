//! One event to the broker, and back to the outbox that it has arrived.

use broker::{Event, PublishError, Publisher};
use row_id::EventId;
use store::Store;
use store::outbox::OutboxEvent;

use crate::metrics::{EventLabels, Metrics};

/// The event as it travels.
fn message(event: &OutboxEvent) -> Event {
    Event::new(
        event.event_id,
        event.kind,
        event.sequence,
        event.user_id,
        event.order_id,
        event.invoice_id,
        event.occurred_at,
    )
}

/// Publishes and counts; the id when the broker has confirmed it.
pub(super) async fn publish(
    publisher: &Publisher,
    metrics: &Metrics,
    way: &'static str,
    event: &OutboxEvent,
) -> Result<EventId, PublishError> {
    let result = publisher.publish(&message(event)).await;
    let outcome = result.as_ref().map_or_else(PublishError::reason, |()| "published");
    metrics.events.get_or_create(&EventLabels { way, outcome }).inc();
    result.map(|()| event.event_id)
}

/// Forgets confirmed events. When that fails they are published a second time, which consumers recognise.
pub(super) async fn forget(store: &Store, confirmed: &[EventId]) {
    if confirmed.is_empty() {
        return;
    }
    if let Err(error) = store.mark_published(confirmed).await {
        tracing::warn!(
            error = telemetry::chain(&error),
            events = confirmed.len(),
            "cannot mark events as published; they will be published again"
        );
    }
}
