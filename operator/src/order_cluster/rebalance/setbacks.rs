//! How long to wait after a move that had to be undone. Only in memory: an operator that starts anew tries at once.

use std::time::{Duration, Instant};

/// The wait after the first setback; it doubles with each, up to the longest.
const FIRST_WAIT: Duration = Duration::from_secs(10);
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// So many in a row are no bad luck any more: a person is told.
const MANY: u32 = 5;

/// Moves that were undone one after the other, and not because somebody asked for it.
#[derive(Debug, Default)]
pub(crate) struct Setbacks {
    count: u32,
    /// When the next move may be written down.
    until: Option<Instant>,
    /// The specification that the moves were for.
    generation: Option<i64>,
}

impl Setbacks {
    /// A move was undone; how long the next has to wait. Several undone at the same time are one setback: `None`.
    pub(crate) fn add(&mut self, now: Instant) -> Option<Duration> {
        if self.is_over(now) {
            let wait = FIRST_WAIT
                .saturating_mul(1_u32.checked_shl(self.count).unwrap_or(u32::MAX))
                .min(LONGEST_WAIT);
            self.count = self.count.saturating_add(1);
            self.until = Some(now + wait);
            return Some(wait);
        }
        None
    }

    /// How many there were in a row, if that is more than bad luck.
    pub(crate) fn many(&self) -> Option<u32> {
        (self.count >= MANY).then_some(self.count)
    }

    /// Whether a move may be written down again.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }

    /// A move came to its end: whatever was wrong has passed.
    pub(crate) fn forget(&mut self) {
        (self.count, self.until) = (0, None);
    }

    /// Another specification is another attempt.
    pub(crate) fn under(&mut self, generation: i64) {
        if self.generation.replace(generation) != Some(generation) {
            self.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn each_setback_waits_twice_as_long_up_to_five_minutes() {
        let mut setbacks = Setbacks::default();
        let mut now = Instant::now();
        assert!(setbacks.is_over(now));
        for (before, seconds) in (0..).zip([10, 20, 40, 80, 160, 300, 300]) {
            let wait = SECOND * seconds;
            assert_eq!(setbacks.many(), (before >= 5).then_some(before));
            assert_eq!(setbacks.add(now), Some(wait));
            assert_eq!(setbacks.add(now), None, "of several at the same time one counts");
            assert!(!setbacks.is_over(now + wait - SECOND));
            now += wait;
            assert!(setbacks.is_over(now));
        }
    }

    #[test]
    fn a_finished_move_and_another_specification_begin_anew() {
        let mut setbacks = Setbacks::default();
        let now = Instant::now();
        setbacks.under(1);
        setbacks.add(now);
        setbacks.under(1);
        assert!(!setbacks.is_over(now));
        setbacks.under(2);
        assert!(setbacks.is_over(now));
        setbacks.add(now);
        setbacks.forget();
        assert_eq!(setbacks.add(now), Some(FIRST_WAIT));
    }
}
