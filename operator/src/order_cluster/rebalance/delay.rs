//! Moves that could go on and do not.

use std::time::{Duration, Instant};

/// After so long somebody is told: what steps wait for, a standby that flushes slowly or a session that holds a lock,
/// passes within seconds or not by itself.
const LONG: Duration = Duration::from_secs(600);
/// What was not met again for so long has passed. A step is through, one way or the other, in much less.
const PASSED: Duration = Duration::from_secs(180);

/// Why every step that could be done had to wait.
#[derive(Debug, Default)]
pub(crate) struct Delay(Option<Waiting>);

#[derive(Debug)]
struct Waiting {
    since: Instant,
    /// When that was seen last.
    last: Instant,
    why: String,
}

impl Waiting {
    fn has_passed(&self, now: Instant) -> bool {
        now.duration_since(self.last) >= PASSED
    }
}

impl Delay {
    /// Takes in a round: whether anything went forward, and why something did not.
    pub(crate) fn round(&mut self, progressed: bool, waited: Option<String>, now: Instant) {
        match (progressed, waited) {
            (true, _) => self.0 = None,
            (false, Some(why)) => {
                let before = self.0.take().filter(|before| !before.has_passed(now));
                let since = before.map_or(now, |before| before.since);
                self.0 = Some(Waiting { since, last: now, why });
            }
            // There was nothing that could be done, or nothing is through yet: Postgres copies.
            (false, None) => {
                self.0.take_if(|before| before.has_passed(now));
            }
        }
    }

    /// What holds everything up, if it has for long.
    pub(crate) fn is_long(&self, now: Instant) -> Option<String> {
        let Waiting { since, why, .. } = self.0.as_ref()?;
        let minutes = LONG.as_secs() / 60;
        (now.duration_since(*since) >= LONG).then(|| format!("no key has moved for {minutes} minutes and more: {why}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_that_wait_for_long_are_told_of_until_one_goes_forward() {
        let (mut delay, began) = (Delay::default(), Instant::now());
        let after = |seconds| began + Duration::from_secs(seconds);
        let waited = || Some("a standby flushes slowly".to_owned());
        for seconds in (0..600).step_by(150) {
            delay.round(false, waited(), after(seconds));
            delay.round(false, None, after(seconds + 100));
        }
        assert_eq!(delay.is_long(after(599)), None);
        delay.round(false, waited(), after(600));
        assert!(
            delay
                .is_long(after(600))
                .is_some_and(|why| why.ends_with("a standby flushes slowly"))
        );
        delay.round(true, waited(), after(601));
        assert_eq!(delay.is_long(after(1_300)), None);
    }

    #[test]
    fn what_has_passed_does_not_make_a_long_copy_a_delay() {
        let (mut delay, began) = (Delay::default(), Instant::now());
        delay.round(false, Some("a session was cut off".to_owned()), began);
        for seconds in (0..3_600).step_by(30) {
            delay.round(false, None, began + Duration::from_secs(seconds));
        }
        assert_eq!(delay.is_long(began + Duration::from_secs(3_600)), None);
    }
}
