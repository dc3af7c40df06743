//! One operator acts at a time: a Lease, held and renewed.
//!
//! The protocol is that of Kubernetes' own components. No clock of two machines is compared: a candidate takes the Lease
//! over when it has not seen it change for its whole duration, by the candidate's own monotonic clock; the holder stops
//! acting when its last renewal began longer ago than [`RENEW_DEADLINE`], by its own. As the deadline is shorter than
//! the duration, the holder has stopped before anyone takes over. The [`Fence`] in the API client stops it even when the
//! process was paused and knows nothing yet.

use std::time::{Duration, Instant};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use telemetry::chain;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{api_gate::Fence, config::Config};

/// How long a Lease that is not renewed keeps others out.
const DURATION: Duration = Duration::from_secs(15);
/// How long after the start of its last successful renewal the holder still acts.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// How often it is renewed, and how often candidates look. Also the limit of one request.
const PERIOD: Duration = Duration::from_secs(2);

/// A candidate for the Lease, or its holder.
pub(crate) struct Election {
    api: Api<Lease>,
    /// Name of the Lease, in the operator's namespace.
    name: String,
    identity: String,
    fence: Fence,
    /// The Lease as last seen to change, and when.
    seen: Option<(Option<String>, Instant)>,
}

/// Why one attempt to take or renew the Lease failed.
#[derive(Debug, thiserror::Error)]
enum AttemptError {
    #[error("could not read or write the Lease")]
    Api(#[from] kube::Error),
    #[error("the API server did not answer within {} s", PERIOD.as_secs())]
    Timeout(#[from] tokio::time::error::Elapsed),
}

/// What one attempt came to.
#[derive(Debug, PartialEq, Eq)]
enum Attempt {
    Held,
    HeldBy(String),
}

impl Election {
    /// `client` must be one without the gate: the Lease is what opens it.
    pub(crate) fn new(client: Client, config: &Config, fence: Fence) -> Self {
        Self {
            api: Api::namespaced(client, &config.namespace),
            name: config.lease_name.clone(),
            identity: config.identity.clone(),
            fence,
            seen: None,
        }
    }

    /// Waits until this process holds the Lease. False when `stop` came first.
    pub(crate) async fn acquire(&mut self, stop: &CancellationToken) -> bool {
        let mut told = None;
        while !stop.is_cancelled() {
            let started = Instant::now();
            match self.attempt().await {
                Ok(Attempt::Held) => {
                    self.fence.open_until(started + RENEW_DEADLINE);
                    info!(identity = self.identity, "leading");
                    return true;
                }
                Ok(Attempt::HeldBy(holder)) => {
                    if told.as_ref() != Some(&holder) {
                        info!(holder, "another operator leads; waiting");
                        told = Some(holder);
                    }
                }
                Err(error) => warn!(error = chain(&error), "could not ask for the Lease"),
            }
            stop.run_until_cancelled(sleep(PERIOD)).await;
        }
        false
    }

    /// Renews the Lease until it is lost, which closes the fence and returns, or until `stop`, which leaves it open:
    /// the controllers may still finish what they do before [`Election::release`].
    pub(crate) async fn hold(&mut self, stop: &CancellationToken) {
        let mut renewed = Instant::now();
        loop {
            stop.run_until_cancelled(sleep(PERIOD)).await;
            if stop.is_cancelled() {
                return;
            }
            let started = Instant::now();
            match self.attempt().await {
                Ok(Attempt::Held) => {
                    renewed = started;
                    self.fence.open_until(started + RENEW_DEADLINE);
                }
                Ok(Attempt::HeldBy(holder)) => {
                    warn!(holder, "another operator took the Lease");
                    break;
                }
                Err(error) => warn!(error = chain(&error), "could not renew the Lease"),
            }
            if renewed.elapsed() >= RENEW_DEADLINE {
                warn!("the Lease could not be renewed in time");
                break;
            }
        }
        self.fence.close();
    }

    /// Gives the Lease up, so that the next operator need not wait for its end. Only after the last write.
    pub(crate) async fn release(&self) {
        self.fence.close();
        let given_up = async {
            let Some(mut lease) = self.api.get_opt(&self.name).await? else {
                return Ok(());
            };
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() == Some(&self.identity) {
                spec.holder_identity = None;
                self.api.replace(&self.name, &PostParams::default(), &lease).await?;
            }
            Ok::<_, kube::Error>(())
        };
        match timeout(PERIOD, given_up).await {
            Ok(Ok(())) => info!("gave the Lease up"),
            Ok(Err(error)) => warn!(error = chain(&error), "could not give the Lease up; it ends by itself"),
            Err(_) => warn!("could not give the Lease up in time; it ends by itself"),
        }
    }

    async fn attempt(&mut self) -> Result<Attempt, AttemptError> {
        timeout(PERIOD, self.take_or_renew()).await?
    }

    async fn take_or_renew(&mut self) -> Result<Attempt, AttemptError> {
        let Some(lease) = self.api.get_opt(&self.name).await? else {
            return self.settle(self.api.create(&PostParams::default(), &self.first()).await);
        };
        let version = lease.metadata.resource_version.clone();
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != version) {
            self.seen = Some((version, Instant::now()));
        }
        let unchanged = self.seen.as_ref().map_or(Duration::ZERO, |(_, since)| since.elapsed());
        match decide(lease.spec.as_ref(), &self.identity, unchanged) {
            Decision::Wait(holder) => Ok(Attempt::HeldBy(holder)),
            Decision::Write(spec) => {
                // The resource version in it makes this a compare-and-swap.
                let lease = Lease {
                    spec: Some(spec),
                    ..lease
                };
                self.settle(self.api.replace(&self.name, &PostParams::default(), &lease).await)
            }
        }
    }

    /// A conflict is an answer: somebody else was faster.
    fn settle(&self, written: Result<Lease, kube::Error>) -> Result<Attempt, AttemptError> {
        match written {
            Ok(_) => Ok(Attempt::Held),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Attempt::HeldBy("somebody faster".to_owned())),
            Err(error) => Err(error.into()),
        }
    }

    fn first(&self) -> Lease {
        Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(taken(&self.identity, 0)),
        }
    }
}

/// What to do about the Lease as it is.
#[derive(Debug, PartialEq)]
enum Decision {
    /// Leave it: somebody holds it.
    Wait(String),
    /// Write this.
    Write(LeaseSpec),
}

/// `unchanged` is for how long this process has seen the Lease as it is.
fn decide(spec: Option<&LeaseSpec>, identity: &str, unchanged: Duration) -> Decision {
    let empty = LeaseSpec::default();
    let spec = spec.unwrap_or(&empty);
    let holder = spec.holder_identity.as_deref().unwrap_or_default();
    let transitions = spec.lease_transitions.unwrap_or(0);
    if holder == identity {
        return Decision::Write(LeaseSpec {
            renew_time: Some(MicroTime(Timestamp::now())),
            ..spec.clone()
        });
    }
    let duration = spec
        .lease_duration_seconds
        .and_then(|s| u64::try_from(s).ok())
        .map_or(DURATION, Duration::from_secs);
    if holder.is_empty() || unchanged >= duration {
        Decision::Write(taken(identity, transitions.saturating_add(1)))
    } else {
        Decision::Wait(holder.to_owned())
    }
}

fn taken(identity: &str, transitions: i32) -> LeaseSpec {
    let now = MicroTime(Timestamp::now());
    LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
        acquire_time: Some(now.clone()),
        renew_time: Some(now),
        lease_transitions: Some(transitions),
        ..LeaseSpec::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec_of(decision: Decision) -> LeaseSpec {
        match decision {
            Decision::Write(spec) => spec,
            Decision::Wait(holder) => panic!("waited for {holder}"),
        }
    }

    #[test]
    fn a_lease_held_by_another_is_taken_only_after_it_has_not_changed_for_its_duration() {
        let held = taken("a", 3);
        assert_eq!(
            decide(Some(&held), "b", DURATION - Duration::from_millis(1)),
            Decision::Wait("a".to_owned())
        );
        let spec = spec_of(decide(Some(&held), "b", DURATION));
        assert_eq!(spec.holder_identity.as_deref(), Some("b"));
        assert_eq!(spec.lease_transitions, Some(4));
    }

    #[test]
    fn a_lease_that_was_given_up_is_taken_at_once() {
        let given_up = LeaseSpec {
            holder_identity: None,
            ..taken("a", 0)
        };
        assert_eq!(
            spec_of(decide(Some(&given_up), "b", Duration::ZERO))
                .holder_identity
                .as_deref(),
            Some("b")
        );
    }

    #[test]
    fn the_holder_renews_without_a_transition() {
        let held = taken("a", 3);
        let spec = spec_of(decide(Some(&held), "a", Duration::ZERO));
        assert_eq!(spec.lease_transitions, Some(3));
        assert_eq!(spec.acquire_time, held.acquire_time);
        assert!(spec.renew_time >= held.renew_time);
    }

    #[test]
    fn the_holder_stops_before_anyone_takes_over() {
        // A request that began just before the deadline is over one PERIOD later.
        assert!(RENEW_DEADLINE + PERIOD < DURATION);
    }
}
