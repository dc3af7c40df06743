//! What others left behind: claims whose creator died between the steps, and idempotency keys past their time.

use std::sync::Arc;
use std::time::Duration;

use ring::Ordinal;
use store::contacts::{ClaimJanitor, KeyJanitor};
use store::{Store, idempotency};

use crate::metrics::Metrics;

/// Creating a user takes milliseconds; a claim pending for this long has nobody working on it.
const CLAIMS_PENDING_FOR: Duration = Duration::from_secs(60);
const CLAIMS_EVERY: Duration = Duration::from_secs(15);
const CLAIMS_AT_ONCE: u16 = 100;
const KEYS_EVERY: Duration = Duration::from_secs(60);
const KEYS_AT_ONCE: u32 = 2_000;

/// Settles abandoned claims of one shard; the time until the next run.
pub async fn settle_claims(store: Store, metrics: Arc<Metrics>, shard: Ordinal) -> Duration {
    let janitor = ClaimJanitor {
        older_than: CLAIMS_PENDING_FOR,
        limit: CLAIMS_AT_ONCE,
    };
    match janitor.run(&store, shard).await {
        Ok(settled) => {
            metrics.janitor("claim_held", settled.held);
            metrics.janitor("claim_released", settled.released);
            if settled.held + settled.released > 0 {
                tracing::info!(%shard, held = settled.held, released = settled.released, "settled abandoned claims");
            }
        }
        Err(error) => tracing::warn!(error = telemetry::chain(&error), %shard, "cannot settle claims"),
    }
    CLAIMS_EVERY
}

/// Sweeps old idempotency keys of one shard; the time until the next run.
pub async fn sweep_keys(store: Store, metrics: Arc<Metrics>, shard: Ordinal) -> Duration {
    let janitor = KeyJanitor {
        older_than: idempotency::KEPT,
        limit: KEYS_AT_ONCE,
    };
    match janitor.run(&store, shard).await {
        Ok(swept) => {
            metrics.janitor("key_swept", swept);
            // A full run means there is more: go on, but leave the shard room for orders.
            if swept >= u64::from(KEYS_AT_ONCE) {
                Duration::from_secs(1)
            } else {
                KEYS_EVERY
            }
        }
        Err(error) => {
            tracing::warn!(error = telemetry::chain(&error), %shard, "cannot sweep idempotency keys");
            KEYS_EVERY
        }
    }
}
