//! How long requests took, by kind and by phase of a run.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Buckets a power of two: a value is known to within 3 percent.
const STEPS: u64 = 64;
/// Enough for values up to 2^38 us, which is longer than any run.
const BUCKETS: usize = (STEPS as usize / 2) * 34;

/// What a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// From the master.
    StrongRead,
    /// From whichever answers first.
    SessionRead,
    /// Many orders at once, looked up or listed.
    BatchRead,
    /// A new user.
    CreateUser,
    /// A new order.
    CreateOrder,
    /// Many new orders at once.
    BatchCreate,
    /// Another version of a user.
    UpdateUser,
    /// An order processed or cancelled.
    ChangeOrder,
    /// A repeat of what was done before.
    Repeat,
}

impl Kind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::StrongRead,
        Self::SessionRead,
        Self::BatchRead,
        Self::CreateUser,
        Self::CreateOrder,
        Self::BatchCreate,
        Self::UpdateUser,
        Self::ChangeOrder,
        Self::Repeat,
    ];

    /// Whether it changes nothing.
    pub fn is_read(self) -> bool {
        matches!(self, Self::StrongRead | Self::SessionRead | Self::BatchRead)
    }
}

/// Counts of durations in buckets whose width grows with the duration.
#[derive(Debug, Clone)]
struct Histogram(Box<[u32; BUCKETS]>);

impl Default for Histogram {
    fn default() -> Self {
        Self(Box::new([0; BUCKETS]))
    }
}

impl Histogram {
    fn add(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.0[bucket(micros)] += 1;
    }

    fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0.iter()) {
            *mine += theirs;
        }
    }

    fn count(&self) -> u64 {
        self.0.iter().map(|count| u64::from(*count)).sum()
    }

    /// The upper end of the bucket that holds the value of this rank, 0 to 1.
    fn quantile(&self, rank: f64) -> Duration {
        let wanted = ((self.count() as f64 * rank).ceil() as u64).max(1);
        let mut below = 0;
        for (index, count) in self.0.iter().enumerate() {
            below += u64::from(*count);
            if below >= wanted {
                return Duration::from_micros(upper_end(index));
            }
        }
        Duration::ZERO
    }
}

/// The first 64 microseconds have a bucket each, each further power of two has 32.
fn bucket(micros: u64) -> usize {
    if micros < STEPS {
        return micros as usize;
    }
    let shift = 63 - u64::from(micros.leading_zeros()) - (STEPS.ilog2() as u64 - 1);
    let index = shift * (STEPS / 2) + (micros >> shift);
    (index as usize).min(BUCKETS - 1)
}

fn upper_end(index: usize) -> u64 {
    let (index, half) = (index as u64, STEPS / 2);
    if index < STEPS {
        return index;
    }
    let shift = index / half - 1;
    ((index - shift * half + 1) << shift) - 1
}

/// Part of a run, with what was measured in it.
#[derive(Debug, Clone)]
pub struct Phase {
    /// What the system did meanwhile.
    pub name: String,
    began: Instant,
    ended: Option<Instant>,
    taken: Vec<Histogram>,
    /// Requests that were not answered as they should, by kind.
    failed: Vec<u64>,
    /// Requests whose time came while too many others still waited for their answers; they were not sent.
    pub not_sent: u64,
}

/// Some latencies of a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantiles {
    /// How many requests were answered.
    pub count: u64,
    /// Half of them took at most this long.
    pub median: Duration,
    /// 99 of 100.
    pub p99: Duration,
    /// 999 of 1,000.
    pub p999: Duration,
    /// All of them.
    pub longest: Duration,
}

impl Phase {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            began: Instant::now(),
            ended: None,
            taken: vec![Histogram::default(); Kind::ALL.len()],
            failed: vec![0; Kind::ALL.len()],
            not_sent: 0,
        }
    }

    /// How long it lasted, or lasts.
    pub fn duration(&self) -> Duration {
        self.ended.unwrap_or_else(Instant::now) - self.began
    }

    /// Answered requests a second.
    pub fn throughput(&self) -> f64 {
        let answered: u64 = self.taken.iter().map(Histogram::count).sum();
        answered as f64 / self.duration().as_secs_f64().max(1e-9)
    }

    /// Requests that were not answered as they should.
    pub fn failed(&self) -> u64 {
        self.failed.iter().sum()
    }

    /// Latencies of the kinds that `which` picks.
    pub fn quantiles(&self, which: impl Fn(Kind) -> bool) -> Quantiles {
        let mut all = Histogram::default();
        for (kind, taken) in Kind::ALL.into_iter().zip(&self.taken) {
            if which(kind) {
                all.merge(taken);
            }
        }
        Quantiles {
            count: all.count(),
            median: all.quantile(0.5),
            p99: all.quantile(0.99),
            p999: all.quantile(0.999),
            longest: all.quantile(1.0),
        }
    }
}

/// All phases of a run; requests belong to the one in which their time came.
#[derive(Debug)]
pub struct Latency(Mutex<Vec<Phase>>);

impl Latency {
    /// Begins with a phase of this name.
    pub fn new(first: &str) -> Self {
        Self(Mutex::new(vec![Phase::new(first)]))
    }

    /// Ends the present phase and begins another.
    pub fn begin(&self, name: &str) {
        let mut phases = self.lock();
        if let Some(last) = phases.last_mut() {
            last.ended = Some(Instant::now());
        }
        phases.push(Phase::new(name));
    }

    /// Number of the present phase.
    pub(super) fn now(&self) -> usize {
        self.lock().len() - 1
    }

    pub(super) fn answered(&self, phase: usize, kind: Kind, took: Duration) {
        if let Some(phase) = self.lock().get_mut(phase) {
            phase.taken[kind as usize].add(took);
        }
    }

    pub(super) fn failed(&self, phase: usize, kind: Kind) {
        if let Some(phase) = self.lock().get_mut(phase) {
            phase.failed[kind as usize] += 1;
        }
    }

    pub(super) fn not_sent(&self) {
        if let Some(phase) = self.lock().last_mut() {
            phase.not_sent += 1;
        }
    }

    /// What was measured so far.
    pub fn phases(&self) -> Vec<Phase> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Phase>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket_within_a_few_percent() {
        let mut last = 0;
        for micros in (0..40).flat_map(|power| [1_u64 << power, (1 << power) + (1 << power) / 3]) {
            let micros = micros.min(1 << 36);
            let index = bucket(micros);
            let end = upper_end(index);
            assert!(end >= micros, "{micros} lies above the end {end} of its bucket");
            assert!(
                (end - micros) as f64 <= micros as f64 * 0.04 + 1.0,
                "{micros}: {end} is far off"
            );
            assert!(index >= last);
            last = index;
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn neighbouring_values_never_go_back_a_bucket() {
        for micros in 0..100_000_u64 {
            let step = bucket(micros + 1) - bucket(micros);
            assert!(step <= 1, "{micros}");
        }
    }

    #[test]
    fn quantiles_are_those_of_the_values_put_in() {
        let latency = Latency::new("before");
        for millis in 1..=1_000 {
            latency.answered(0, Kind::StrongRead, Duration::from_millis(millis));
        }
        latency.answered(0, Kind::CreateUser, Duration::from_secs(60));
        latency.failed(0, Kind::CreateUser);
        let phase = &latency.phases()[0];
        let reads = phase.quantiles(Kind::is_read);
        let close = |found: Duration, wanted: f64| (found.as_secs_f64() / wanted - 1.0).abs() < 0.04;
        assert_eq!(reads.count, 1_000);
        assert!(
            close(reads.median, 0.5) && close(reads.p99, 0.99) && close(reads.longest, 1.0),
            "{reads:?}"
        );
        assert!(close(phase.quantiles(|kind| !kind.is_read()).median, 60.0));
        assert_eq!(phase.failed(), 1);
    }
}
