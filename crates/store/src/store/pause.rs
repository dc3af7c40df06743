//! How long a caller waits between two tries.
//!
//! Each try costs the shard something: a login, a transaction, a look at a book. Callers that wait for a shard in trouble
//! must not keep it there, and whoever waits already will not mind some part of that time more. So a pause grows with the
//! time for which the same thing has stood in the caller's way: a freeze of some milliseconds is noticed at once, and a
//! failover of seconds is asked for a few dozen times, where it is not told of before.

use std::time::{Duration, Instant};

use ring::{Epoch, Ordinal};

use super::Inner;
use super::place::Way;

/// The first pauses of who meets a range that is being handed over, which takes some milliseconds.
const SHORT: Duration = Duration::from_millis(6);
/// The first pauses of who meets a shard that cannot serve.
const LONG: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_millis(500);
/// Beyond the first ones, a pause is this part of the time waited so far, on average.
const PART: u32 = 8;
/// Nobody gives up without a try so shortly before the deadline.
const LAST_TRY: Duration = Duration::from_millis(100);

/// What stands in a caller's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// The range is being handed over.
    HandOver,
    /// The shard cannot serve.
    Shard,
    /// Nobody knows who has the position.
    Ring,
}

/// The pause of who has waited for so long. `factor` is drawn from 0.5 to 1.5, so that callers do not come back together.
fn pause(least: Duration, waited: Duration, factor: f64) -> Duration {
    (waited / PART).clamp(least, LONGEST).mul_f64(factor)
}

/// When a pause ends that begins now: before the deadline, if there is time for another try before it.
fn end(pause: Duration, now: Instant, deadline: Instant) -> Instant {
    match deadline.checked_sub(LAST_TRY) {
        Some(last) if now < last => last.min(now + pause),
        _ => deadline.min(now + pause),
    }
}

fn next_try(least: Duration, waited: Duration, deadline: Instant) -> tokio::time::Instant {
    let factor = rand::random_range(0.5..1.5);
    end(pause(least, waited, factor), Instant::now(), deadline).into()
}

/// Until something that takes some milliseconds is asked for again, by who has waited for so long.
pub(super) async fn a_moment(waited: Duration, deadline: Instant) {
    tokio::time::sleep_until(next_try(SHORT, waited, deadline)).await;
}

/// Until a range is asked for again that is being handed over.
pub(super) async fn await_hand_over(way: &mut Way, deadline: Instant) {
    a_moment(way.waited(Obstacle::HandOver), deadline).await;
}

impl Inner {
    /// Until a shard is asked again that could not serve a try begun at `tried`, or a master is seen that was none then, or
    /// another ring, by which it may be another shard's to serve.
    pub(super) async fn await_better(&self, shard: Ordinal, tried: Instant, way: &mut Way, deadline: Instant) {
        let until = next_try(LONG, way.waited(Obstacle::Shard), deadline);
        let master = async {
            match self.shards.get(shard) {
                Some(shard) => shard.new_master(tried).await,
                None => std::future::pending().await,
            }
        };
        let news = async {
            tokio::select! {
                () = master => {}
                () = self.another_ring(|epoch| way.is_under(epoch)) => {}
            }
        };
        if tokio::time::timeout_at(until, news).await.is_ok() {
            way.clear();
        }
    }

    /// Until there is another ring than the one that led nowhere, or the position is asked for again.
    pub(super) async fn await_ring(&self, way: &mut Way, deadline: Instant) {
        let until = next_try(LONG, way.waited(Obstacle::Ring), deadline);
        let another = self.another_ring(|epoch| way.is_under(epoch));
        let _ = tokio::time::timeout_at(until, another).await;
    }

    /// Returns when there is another ring than the one that is known.
    pub(super) async fn another_ring(&self, is_known: impl Fn(Epoch) -> bool) {
        if self
            .places
            .watch()
            .wait_for(|ring| !is_known(ring.epoch()))
            .await
            .is_err()
        {
            // Nobody tells of rings any more, so there is none to come.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The moments of tries of a caller who draws the same factor each time.
    fn tries(least: Duration, factor: f64) -> Vec<Duration> {
        let mut waited = Duration::ZERO;
        std::iter::from_fn(|| {
            waited += pause(least, waited, factor);
            Some(waited)
        })
        .take_while(|waited| *waited < Duration::from_secs(8))
        .collect()
    }

    #[test]
    fn in_a_failover_a_caller_asks_some_dozens_of_times_and_comes_at_most_a_little_late() {
        for factor in [0.5, 1.0, 1.5] {
            let tries = tries(LONG, factor);
            assert!((15..80).contains(&tries.len()), "{} tries", tries.len());
            for pair in tries.windows(2) {
                let late = pair[1] - pair[0];
                assert!(
                    late <= Duration::from_millis(750) && late <= LONG.mul_f64(1.5).max(pair[0] / 5),
                    "{pair:?}"
                );
            }
        }
    }

    #[test]
    fn a_hand_over_is_noticed_within_milliseconds() {
        let tries = tries(SHORT, 1.0);
        let late = tries
            .windows(2)
            .find(|pair| pair[1] > Duration::from_millis(57))
            .unwrap();
        assert!(late[1] - late[0] < Duration::from_millis(9), "{late:?}");
    }

    #[test]
    fn nobody_sleeps_past_the_deadline_or_through_the_last_try() {
        let now = Instant::now();
        let after = |milliseconds| now + Duration::from_millis(milliseconds);
        let long = Duration::from_millis(400);
        assert_eq!(end(long, now, after(1000)), after(400));
        assert_eq!(end(long, now, after(450)), after(350), "the last try");
        assert_eq!(end(long, now, after(80)), after(80), "it was");
    }
}
