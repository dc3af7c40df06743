//! How much waits in the outboxes, as metrics: their growth is how a broker that takes nothing shows.

use std::sync::Arc;
use std::time::Duration;

use ring::Ordinal;
use store::Store;

use crate::metrics::{Metrics, ShardLabels};

const EVERY: Duration = Duration::from_secs(10);

/// Looks at the backlog of one shard; the time until the next look.
pub async fn measure(store: Store, metrics: Arc<Metrics>, shard: Ordinal) -> Duration {
    let labels = ShardLabels {
        shard: u32::from(shard.get()),
    };
    match store.outbox_backlog(shard).await {
        Ok(backlog) => {
            metrics.outbox_events.get_or_create(&labels).set(backlog.count);
            let oldest = backlog.oldest.map_or(0.0, |age| age.as_secs_f64());
            metrics.outbox_oldest.get_or_create(&labels).set(oldest);
        }
        // A value that is not known is not shown: an old one would hide an outage.
        Err(error) => {
            tracing::debug!(error = telemetry::chain(&error), %shard, "cannot measure the outbox");
            metrics.outbox_events.remove(&labels);
            metrics.outbox_oldest.remove(&labels);
        }
    }
    EVERY
}
