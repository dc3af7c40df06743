//! Looks after rows that nobody holds: those whose sender died, and those whose event was lost.

use std::{sync::Arc, time::Duration};

use ring::Ordinal;
use store::{Store, StoreError};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{courier::Settled, metrics::Metrics, notify::Notify};

/// Rows looked at on one shard in one sweep.
const AT_ONCE: u16 = 100;

/// Sweeps every shard of the ring in turn, until it is told to stop.
pub struct Sweeper {
    /// The shards.
    pub store: Store,
    /// Sends what was left queued.
    pub notify: Arc<Notify>,
    /// Counts.
    pub metrics: Metrics,
    /// Between two sweeps; with jitter, so that replicas of the notifier do not sweep in step.
    pub interval: Duration,
    /// How old a queued row must be.
    pub overdue_after: Duration,
    /// How long a lease must be over: its sender may be recording the outcome right now.
    pub lost_after: Duration,
}

impl Sweeper {
    /// Sweeps until `stop`; a row in hand is finished first.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            let wait = self.interval.mul_f64(rand::random_range(0.5..1.5));
            tokio::select! {
                () = sleep(wait) => {}
                () = stop.cancelled() => return,
            }
            for shard in self.store.shards() {
                if stop.is_cancelled() {
                    return;
                }
                if let Err(error) = self.sweep(shard, &stop).await {
                    self.metrics.swept("failed", 1);
                    warn!(shard = %shard, error = telemetry::chain(&error), "could not look for messages that were left behind");
                }
            }
        }
    }

    async fn sweep(&self, shard: Ordinal, stop: &CancellationToken) -> Result<(), StoreError> {
        let lost = self.store.settle_lost_sendings(shard, self.lost_after, AT_ONCE).await?;
        if lost > 0 {
            warn!(shard = %shard, rows = lost, "messages whose sender was lost are unknown now");
            self.metrics.swept("unknown", lost);
        }
        for row in self
            .store
            .overdue_notifications(shard, self.overdue_after, AT_ONCE)
            .await?
        {
            if stop.is_cancelled() {
                return Ok(());
            }
            match self.notify.of_row(&row).await {
                Ok(Settled::Done) => {
                    info!(shard = %shard, "a message that was left queued is settled");
                    self.metrics.swept("sent_on", 1);
                }
                // Told by the courier already.
                Ok(Settled::TryAgain { .. }) => {}
                Err(error) => {
                    warn!(shard = %shard, error = telemetry::chain(&error), "a message that was left queued stays so")
                }
            }
        }
        Ok(())
    }
}
