//! Jobs that are being done: those of one lane one after the other, the lanes at the same time.
//!
//! A lane that takes its time (a slot waits for old transactions of the source, a shard does not answer) holds up nobody
//! else: the next look is made without it, and what it would do anew is left out until it is through.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use ring::Ordinal;
use tokio::{
    task::{Id, JoinSet},
    time::timeout,
};
use tracing::error;

use super::{
    hands::{Done, Fault, Hands, Job},
    look::ends,
};

/// How long lanes may take beyond their budget before everybody else goes on.
const GRACE: Duration = Duration::from_millis(500);

/// A job and what it came to.
pub(crate) type Outcome = (Job, Result<Done, Fault>);

/// Who gives and who takes; of work at one shard, twice that one.
type Key = (Ordinal, Ordinal);

/// The lanes that are being worked.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    working: JoinSet<Vec<Outcome>>,
    keys: HashMap<Id, Key>,
}

impl Lanes {
    /// Begins with those lanes that are not being worked already.
    pub(crate) fn begin(&mut self, hands: &Arc<dyn Hands>, lanes: Vec<Vec<Job>>) {
        for lane in lanes {
            let Some(key) = lane.first().map(|job| ends(&job.step)) else {
                continue;
            };
            if self.keys.values().all(|busy| *busy != key) {
                let task = self.working.spawn(work(Arc::clone(hands), lane));
                self.keys.insert(task.id(), key);
            }
        }
    }

    /// What has been done, when all lanes are through or `budget` and a little more is over.
    pub(crate) async fn gather(&mut self, budget: Duration) -> Vec<Outcome> {
        let began = Instant::now();
        let mut outcomes = Vec::new();
        loop {
            let left = (budget + GRACE).saturating_sub(began.elapsed());
            let Ok(Some(ended)) = timeout(left, self.working.join_next_with_id()).await else {
                return outcomes;
            };
            match ended {
                Ok((id, done)) => {
                    self.keys.remove(&id);
                    outcomes.extend(done);
                }
                Err(panic) => {
                    self.keys.remove(&panic.id());
                    error!(error = %panic, "the work on a move broke off");
                }
            }
        }
    }
}

/// Does the jobs of one lane, one after the other, until the time is up.
async fn work(hands: Arc<dyn Hands>, lane: Vec<Job>) -> Vec<Outcome> {
    let started = Instant::now();
    let mut outcomes = Vec::with_capacity(lane.len());
    for mut job in lane {
        let left = job.limits.budget.saturating_sub(started.elapsed());
        if left.is_zero() {
            break;
        }
        job.limits.budget = left;
        let outcome = hands.carry_out(&job).await;
        let failed = outcome.is_err();
        outcomes.push((job, outcome));
        if failed {
            break;
        }
    }
    outcomes
}
