//! Publishing what was left in the outboxes: of crashed processes, of times without a broker, of full queues. Several
//! instances poll beside each other: the store gives each event to one of them at a time, and only of ranges the shard
//! owns.

use std::sync::Arc;
use std::time::Duration;

use broker::Publisher;
use futures::stream::{self, StreamExt};
use ring::Ordinal;
use store::{Store, StoreError};

use super::delivery;
use crate::metrics::Metrics;

const BATCH: u16 = 256;
/// Longer than publishing a batch can take; a poller that dies lets its events go at its end.
const HOLD: Duration = Duration::from_secs(30);
const IN_FLIGHT: usize = 32;
const IDLE: Duration = Duration::from_secs(1);
const AFTER_FAILURE: Duration = Duration::from_secs(3);

/// Publishes what waits on a shard.
#[derive(Clone)]
pub struct OutboxPoller {
    /// The shards.
    pub store: Store,
    /// The broker.
    pub publisher: Publisher,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl OutboxPoller {
    /// One batch of one shard; the time until the next.
    pub async fn run(self, shard: Ordinal) -> Duration {
        // Without a broker, taking events would only keep them from others.
        if !self.publisher.health().is_connected() {
            return IDLE;
        }
        match self.publish_batch(shard).await {
            Ok(Batch { taken, failed: 0 }) if taken == usize::from(BATCH) => Duration::ZERO,
            Ok(Batch { failed: 0, .. }) => IDLE,
            Ok(Batch { .. }) => AFTER_FAILURE,
            Err(error) => {
                tracing::warn!(error = telemetry::chain(&error), %shard, "cannot poll the outbox");
                AFTER_FAILURE
            }
        }
    }

    async fn publish_batch(&self, shard: Ordinal) -> Result<Batch, StoreError> {
        let events = self.store.take_events(shard, BATCH, HOLD).await?;
        let taken = events.len();
        let results: Vec<_> = stream::iter(events)
            .map(|event| async move {
                (
                    event.event_id,
                    delivery::publish(&self.publisher, &self.metrics, "poller", &event).await,
                )
            })
            .buffer_unordered(IN_FLIGHT)
            .collect()
            .await;
        let (mut confirmed, mut failed) = (Vec::new(), Vec::new());
        for (event, result) in results {
            match result {
                Ok(event) => confirmed.push(event),
                Err(error) => {
                    tracing::debug!(error = telemetry::chain(&error), %event, "not published, the next poll tries again");
                    failed.push(event);
                }
            }
        }
        delivery::forget(&self.store, &confirmed).await;
        if !failed.is_empty() {
            tracing::warn!(%shard, failed = failed.len(), "events could not be published; they stay in the outbox");
            self.store.release_events(&failed).await?;
        }
        Ok(Batch {
            taken,
            failed: failed.len(),
        })
    }
}

struct Batch {
    taken: usize,
    failed: usize,
}
