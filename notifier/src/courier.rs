//! Sends one row: claim it, put the message together, hand it over, record what came of it.
//!
//! The row is `sending` from right before the message itself leaves until the outcome is recorded; connecting and whatever
//! else may be repeated is done before. Should this process die in between, nobody knows whether the message was taken,
//! and so the row becomes `unknown` when its lease is over.

use std::{num::NonZeroU32, time::Duration};

use chrono::{DateTime, Utc};
use futures::FutureExt;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use store::{
    Store, StoreError,
    notifications::{Claimed, Lease, NotificationId, SendOutcome},
};
use tokio::time::{Instant, sleep, timeout};
use tracing::{error, info, warn};

use crate::{
    handover::{Begin, Handover, Reason},
    metrics::Metrics,
};

/// How long a claim lasts. Above [`TURN_LIMIT`], every limit of a sending, and time to record the outcome.
const LEASE: Duration = Duration::from_secs(150);
/// The longest wait for the provider's rate limit.
const TURN_LIMIT: Duration = Duration::from_secs(20);
/// How long recording an outcome is tried at least. Until the lease is over nobody else settles the row, so that long it is
/// tried in any case.
const RECORD_LIMIT: Duration = Duration::from_secs(40);

/// What became of a row, as far as this courier is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Nothing is left to do: sent, failed, unknown, or all of that before.
    Done,
    /// It is to be tried again later.
    TryAgain {
        /// Why.
        reason: String,
    },
}

/// When the event happened that the message tells of, and when trying ends.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// When it happened.
    pub happened: DateTime<Utc>,
    /// Since when it is tried. An event may have waited for days at a broker or for a notifier: its messages are tried no
    /// less for that.
    pub since: DateTime<Utc>,
    /// How long it is tried.
    pub for_as_long_as: Duration,
}

impl Patience {
    /// How long ago it happened; zero if this clock is behind.
    #[must_use]
    pub fn age(&self) -> Duration {
        elapsed(self.happened)
    }

    /// Whether the next try is the last.
    #[must_use]
    pub fn is_over(&self) -> bool {
        elapsed(self.since) > self.for_as_long_as
    }
}

fn elapsed(since: DateTime<Utc>) -> Duration {
    (Utc::now() - since).to_std().unwrap_or_default()
}

/// Sends rows of one channel within its rate.
pub struct Courier {
    channel: &'static str,
    store: Store,
    rate: DefaultDirectRateLimiter,
    metrics: Metrics,
}

impl Courier {
    /// A courier for a channel (`email`, `sms`) that hands over at most `per_second` messages a second.
    #[must_use]
    pub fn new(channel: &'static str, store: Store, per_second: NonZeroU32, metrics: Metrics) -> Self {
        Self {
            channel,
            store,
            rate: RateLimiter::direct(Quota::per_second(per_second)),
            metrics,
        }
    }

    /// Sends a row unless it has been, or another process is at it.
    ///
    /// `compose` puts the message together. `send` hands it over: it awaits the [`Begin`] at the point from which a loss is
    /// ambiguous, and passes its error on.
    ///
    /// # Errors
    /// When the shard cannot be asked; the row is as it was.
    pub async fn deliver<M, S: Future<Output = Result<Handover, StoreError>>>(
        &self,
        id: NotificationId,
        patience: Patience,
        compose: impl FnOnce() -> Result<M, Handover>,
        send: impl FnOnce(M, Begin) -> S,
    ) -> Result<Settled, StoreError> {
        let lease = match self.store.claim_notification(id, LEASE).await? {
            Claimed::Ours(lease) => lease,
            Claimed::Settled(_) => return Ok(Settled::Done),
            Claimed::Busy { .. } => {
                return Ok(Settled::TryAgain {
                    reason: "another process is sending it".to_owned(),
                });
            }
        };
        let claimed = Instant::now();
        let handover = match self.prepare(compose).await {
            Ok(message) => match self.hand_over(send(message, self.begin(lease))).await {
                Ok(handover) => handover,
                // The row may say `sending` by now, but nothing was handed over, and only this process knows.
                Err(error @ StoreError::OutcomeUnknown { .. }) => {
                    Handover::NotTaken(Reason::new("not-begun", error.to_string()))
                }
                Err(error) => return Err(error),
            },
            Err(handover) => handover,
        };
        let outcome = handover.outcome(patience.is_over());
        self.metrics.recorded(self.channel, &handover, &outcome, patience.age());
        self.tell(id, &outcome, claimed.elapsed());
        let until = (claimed + LEASE).max(Instant::now() + RECORD_LIMIT);
        self.record(&lease, outcome, until).await
    }

    fn begin(&self, lease: Lease) -> Begin {
        let store = self.store.clone();
        async move { store.begin_sending(&lease).await }.boxed()
    }

    async fn prepare<M>(&self, compose: impl FnOnce() -> Result<M, Handover>) -> Result<M, Handover> {
        let message = compose()?;
        if timeout(TURN_LIMIT, self.rate.until_ready()).await.is_err() {
            let detail = format!("no turn within {}s at the configured rate", TURN_LIMIT.as_secs());
            return Err(Handover::NotTaken(Reason::new("own-rate-limit", detail)));
        }
        Ok(message)
    }

    async fn hand_over<T>(&self, sending: impl Future<Output = T>) -> T {
        let began = Instant::now();
        self.metrics.sending_began(self.channel);
        let handover = sending.await;
        self.metrics.sending_ended(self.channel, began.elapsed());
        handover
    }

    /// Records an outcome, however long the shard is away within reason: an outcome that is lost leaves a message that
    /// was sent as `unknown`.
    async fn record(&self, lease: &Lease, outcome: SendOutcome, until: Instant) -> Result<Settled, StoreError> {
        let settled = match &outcome {
            SendOutcome::Retry { reason } => Settled::TryAgain { reason: reason.clone() },
            _ => Settled::Done,
        };
        loop {
            let error = match self.store.record_outcome(lease, outcome.clone()).await {
                Ok(()) => return Ok(settled),
                // An earlier try of ours whose answer was lost, or a sweeper after the lease ended: it is settled.
                Err(StoreError::LeaseLost(_)) => return Ok(settled),
                Err(error) => error,
            };
            let Some(wait) = error.retry_after().filter(|_| Instant::now() < until) else {
                error!(
                    channel = self.channel,
                    error = telemetry::chain(&error),
                    "could not record what came of a sending, it will be unknown"
                );
                return Err(error);
            };
            warn!(
                channel = self.channel,
                error = telemetry::chain(&error),
                "recording what came of a sending again"
            );
            sleep(wait.max(Duration::from_millis(200))).await;
        }
    }

    fn tell(&self, id: NotificationId, outcome: &SendOutcome, took: Duration) {
        let (channel, took_ms) = (self.channel, took.as_millis() as u64);
        let id = match id {
            NotificationId::Email(id) => id.to_string(),
            NotificationId::Sms(id) => id.to_string(),
        };
        match outcome {
            SendOutcome::Sent { provider_reference } => info!(channel, id, took_ms, provider_reference, "sent"),
            SendOutcome::Retry { reason } => warn!(channel, id, took_ms, reason, "not sent, to be tried again"),
            SendOutcome::Failed { reason } => warn!(channel, id, took_ms, reason, "failed"),
            SendOutcome::Unknown { reason } => warn!(channel, id, took_ms, reason, "may have been sent, not repeated"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_ends_after_its_time() {
        let since = Utc::now() - chrono::TimeDelta::hours(2);
        let patience = |hours: u64| Patience {
            happened: since - chrono::TimeDelta::hours(100),
            since,
            for_as_long_as: Duration::from_secs(hours * 3600),
        };
        assert!(patience(1).is_over());
        assert!(!patience(3).is_over());
        let tomorrow = Utc::now() + chrono::TimeDelta::hours(24);
        assert_eq!(
            Patience {
                happened: tomorrow,
                since: tomorrow,
                for_as_long_as: Duration::ZERO
            }
            .age(),
            Duration::ZERO
        );
    }

    #[test]
    fn a_lease_outlasts_everything_done_under_it() {
        let smtp = crate::email::SmtpLimits::default();
        let begin = store::StoreConfig::new("test", "").write_deadline;
        // Three commands, and one to see whether a kept connection stands.
        let longest_email = smtp.connect + smtp.command * 4 + begin + smtp.content;
        assert!(LEASE >= TURN_LIMIT + longest_email.max(crate::sms::LONGEST_SENDING) + Duration::from_secs(30));
    }
}
