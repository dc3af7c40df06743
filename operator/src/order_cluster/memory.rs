//! What the operator remembers of a cluster between reconciles. All of it can be lost: it only saves work.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Mutex,
    time::{Duration, Instant},
};

use ring::{Ordinal, Tokens, Weight};

/// A ring that was compared with the shards' books is compared again after this time: somebody may have changed a book
/// by hand, which no watch tells.
const TRUST: Duration = Duration::from_secs(600);
/// The least time between two publications of a ring.
const PUBLISH_PERIOD: Duration = Duration::from_secs(2);
/// Limits of the wait after failures, which doubles with each.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What is remembered of every cluster, by uid.
#[derive(Debug)]
pub(crate) struct Memory {
    clusters: Mutex<HashMap<String, Remembered>>,
    publish_period: Duration,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            clusters: Mutex::default(),
            publish_period: PUBLISH_PERIOD,
        }
    }
}

#[derive(Debug, Default)]
struct Remembered {
    /// Digest of the ring that agreed with the books, and when.
    verified: Option<(String, Instant)>,
    published: Option<Instant>,
    failures: u32,
    told: HashSet<String>,
    /// A ring, the shards that shall own it, and whether nothing has to move for that.
    balance: Option<(Tokens, BTreeMap<Ordinal, Weight>, bool)>,
}

impl Memory {
    /// One with another least time between two rings.
    #[cfg(test)]
    pub(crate) fn publishing_every(publish_period: Duration) -> Self {
        Self {
            publish_period,
            ..Self::default()
        }
    }

    /// Whether nothing has to move for `owners` to own the ring: planning a large ring takes its time.
    pub(crate) fn is_balanced(&self, uid: &str, tokens: &Tokens, owners: &BTreeMap<Ordinal, Weight>) -> bool {
        let known = self.with(uid, |cluster| {
            let known = cluster.balance.as_ref();
            known
                .filter(|(ring, shards, _)| ring == tokens && shards == owners)
                .map(|known| known.2)
        });
        known.unwrap_or_else(|| {
            let shards: Vec<(Ordinal, Weight)> = owners.iter().map(|(ordinal, weight)| (*ordinal, *weight)).collect();
            let balanced = moves::plan(tokens, &shards).is_ok_and(|plan| plan.moves.is_empty());
            self.with(uid, |cluster| {
                cluster.balance = Some((tokens.clone(), owners.clone(), balanced))
            });
            balanced
        })
    }

    /// Whether the ring with this digest agreed with the books lately.
    pub(crate) fn trusts(&self, uid: &str, digest: &str) -> bool {
        self.with(uid, |cluster| {
            cluster
                .verified
                .as_ref()
                .is_some_and(|(verified, at)| verified == digest && at.elapsed() < TRUST)
        })
    }

    /// The ring with this digest agrees with the books.
    pub(crate) fn verified(&self, uid: &str, digest: &str) {
        self.with(uid, |cluster| {
            // The time stands while the digest does: trust has to end, however often it is asked for.
            if cluster
                .verified
                .as_ref()
                .is_none_or(|(verified, at)| verified != digest || at.elapsed() >= TRUST)
            {
                cluster.verified = Some((digest.to_owned(), Instant::now()));
            }
        });
    }

    /// How long the next publication has to wait.
    pub(crate) fn publish_after(&self, uid: &str) -> Option<Duration> {
        let since = self.with(uid, |cluster| cluster.published)?;
        self.publish_period
            .checked_sub(since.elapsed())
            .filter(|left| !left.is_zero())
    }

    /// A ring was published.
    pub(crate) fn published(&self, uid: &str) {
        self.with(uid, |cluster| cluster.published = Some(Instant::now()));
    }

    /// Whether this is said for the first time.
    pub(crate) fn first_time(&self, uid: &str, saying: &str) -> bool {
        self.with(uid, |cluster| cluster.told.insert(saying.to_owned()))
    }

    /// How long to wait after one more failure.
    pub(crate) fn failed(&self, uid: &str) -> Duration {
        let failures = self.with(uid, |cluster| {
            cluster.failures = cluster.failures.saturating_add(1);
            cluster.failures
        });
        let (least, most) = BACKOFF;
        least.saturating_mul(1 << (failures - 1).min(10)).min(most)
    }

    /// A reconcile went through.
    pub(crate) fn succeeded(&self, uid: &str) {
        self.with(uid, |cluster| cluster.failures = 0);
    }

    /// The cluster is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.clusters
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .remove(uid);
    }

    fn with<T>(&self, uid: &str, look: impl FnOnce(&mut Remembered) -> T) -> T {
        let mut clusters = self.clusters.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        look(clusters.entry(uid.to_owned()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute_and_begin_anew_after_a_success() {
        let memory = Memory::default();
        let waits: Vec<u64> = (0..8).map(|_| memory.failed("a").as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        memory.succeeded("a");
        assert_eq!(memory.failed("a").as_secs(), 1);
    }

    #[test]
    fn only_the_ring_that_was_verified_is_trusted() {
        let memory = Memory::default();
        assert!(!memory.trusts("a", "1"));
        memory.verified("a", "1");
        assert!(memory.trusts("a", "1"));
        assert!(!memory.trusts("a", "2"));
        assert!(!memory.trusts("b", "1"));
    }
}
