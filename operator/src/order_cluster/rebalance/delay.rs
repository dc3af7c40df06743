//! Moves that could go on and do not.

use std::time::{Duration, Instant};

/// After so long somebody is told: what steps wait for, a standby that flushes slowly or a session that holds a lock,
/// passes within seconds or not by itself.
const LONG: Duration = Duration::from_secs(600);

/// Since when, and why, every step that could be done had to wait.
#[derive(Debug, Default)]
pub(crate) struct Delay(Option<(Instant, String)>);

impl Delay {
    /// Takes in a round: whether anything went forward, and why something did not.
    pub(crate) fn round(&mut self, progressed: bool, waited: Option<String>, now: Instant) {
        match (progressed, waited) {
            (true, _) => self.0 = None,
            (false, Some(why)) => {
                let since = self.0.take().map_or(now, |(since, _)| since);
                self.0 = Some((since, why));
            }
            // There was nothing that could be done: Postgres copies.
            (false, None) => {}
        }
    }

    /// What holds everything up, if it has for long.
    pub(crate) fn is_long(&self, now: Instant) -> Option<String> {
        let (since, why) = self.0.as_ref()?;
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
        delay.round(false, waited(), began);
        delay.round(false, None, after(300));
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
}
