//! How fast members answer, and how many extra queries that may cost.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// A member's 95th percentile, and its average, of the time to answer a read; both estimated in passing.
#[derive(Debug)]
pub(crate) struct Latency {
    average_us: AtomicU64,
    p95_us: AtomicU64,
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            average_us: AtomicU64::new(500),
            p95_us: AtomicU64::new(5_000),
        }
    }
}

impl Latency {
    /// Takes an answer's time into account. Races between callers lose a step now and then, which is harmless.
    pub(crate) fn record(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).min(10_000_000);
        let average = self.average_us.load(Ordering::Relaxed);
        self.average_us.store((average * 15 + took) / 16, Ordering::Relaxed);
        // A stochastic quantile: steps up 19 times as far as down, so it rests where 5 % lie above.
        let p95 = self.p95_us.load(Ordering::Relaxed);
        let step = (p95 / 200).max(1);
        let next = if took > p95 {
            p95 + step * 19
        } else {
            p95.saturating_sub(step)
        };
        self.p95_us.store(next.max(100), Ordering::Relaxed);
    }

    pub(crate) fn average(&self) -> Duration {
        Duration::from_micros(self.average_us.load(Ordering::Relaxed))
    }

    pub(crate) fn p95(&self) -> Duration {
        Duration::from_micros(self.p95_us.load(Ordering::Relaxed))
    }
}

/// Lets at most 5 % of a shard's reads ask a second member.
#[derive(Debug, Default)]
pub(crate) struct HedgeBudget {
    /// In hundredths of a query.
    saved: AtomicI64,
}

impl HedgeBudget {
    const EARNED_PER_READ: i64 = 5;
    const PRICE: i64 = 100;
    const MOST: i64 = 1_000;

    pub(crate) fn earn(&self) {
        if self.saved.load(Ordering::Relaxed) < Self::MOST {
            self.saved.fetch_add(Self::EARNED_PER_READ, Ordering::Relaxed);
        }
    }

    /// Pays for one extra query, if there is enough.
    pub(crate) fn spend(&self) -> bool {
        let paid = |saved| (saved >= Self::PRICE).then_some(saved - Self::PRICE);
        self.saved
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, paid)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_five_percent_of_reads_are_hedged() {
        let budget = HedgeBudget::default();
        let mut hedged = 0;
        for _ in 0..10_000 {
            budget.earn();
            hedged += u32::from(budget.spend());
        }
        assert_eq!(hedged, 500);
    }

    #[test]
    fn the_percentile_settles_where_five_percent_lie_above() {
        let latency = Latency::default();
        for round in 0..40_000_u64 {
            latency.record(Duration::from_micros(1_000 + (round * 7_919) % 1_000));
        }
        let p95 = latency.p95().as_micros();
        assert!((1_900..2_000).contains(&p95), "{p95}");
        assert!((1_400..1_600).contains(&latency.average().as_micros()));
    }
}
