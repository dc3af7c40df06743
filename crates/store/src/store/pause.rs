//! How long a caller waits between two tries.
//!
//! Each try costs the shard something: a login, a transaction, a look at a book. Callers that wait for a shard in trouble
//! must not keep it there, and whoever waits already will not mind an eighth more. So a pause grows with the time that the
//! caller has waited: a freeze of some milliseconds is noticed at once, and a failover of seconds is asked for a few dozen
//! times, where it is not told of before.

use std::time::{Duration, Instant};

use ring::Ordinal;

use super::Inner;
use super::place::Way;

/// The first pauses of who meets a range that is being handed over, which takes some milliseconds.
const SHORT: Duration = Duration::from_millis(6);
/// The first pauses of who meets a shard that cannot serve.
const LONG: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_millis(500);
/// A pause is at most this part of the time waited so far, beyond the first ones.
const PART: u32 = 8;

/// The pause of who has waited for so long; half of it to one and a half times, so that callers do not come back together.
fn pause(least: Duration, waited: Duration) -> Duration {
    spread((waited / PART).clamp(least, LONGEST), rand::random_range(0.5..1.5))
}

fn spread(pause: Duration, factor: f64) -> Duration {
    pause.mul_f64(factor)
}

/// Until a range that is being handed over is asked for again.
pub(super) async fn a_moment(waited: Duration) {
    tokio::time::sleep(pause(SHORT, waited)).await;
}

impl Inner {
    /// Until a shard is asked again that could not serve a try begun at `tried`, or a master is seen that was none then.
    pub(super) async fn await_better(&self, shard: Ordinal, tried: Instant, way: &Way, deadline: Instant) {
        let until = deadline.min(Instant::now() + pause(LONG, way.waited()));
        let news = async {
            match self.shards.get(shard) {
                Some(shard) => shard.new_master(tried).await,
                None => std::future::pending().await,
            }
        };
        let _ = tokio::time::timeout_at(until.into(), news).await;
    }

    /// Until a ring tells more of a position that nobody knows, or its last shard is asked again.
    pub(super) async fn await_ring(&self, way: &Way) {
        let mut ring = self.places.watch();
        ring.mark_unchanged();
        let _ = tokio::time::timeout(pause(LONG, way.waited()), ring.changed()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The moments of tries of a caller who always waits as long as `factor` says.
    fn tries(least: Duration, factor: f64) -> Vec<Duration> {
        let mut waited = Duration::ZERO;
        std::iter::from_fn(|| {
            waited += spread((waited / PART).clamp(least, LONGEST), factor);
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
}
