//! Where a master's log stood, look by look: by it is told how old a replica's rows are.
//!
//! A commit is acknowledged after it was flushed. So the flushed position that a look at the master finds covers every
//! commit acknowledged before that look began, and a replica that has replayed up to it shows them all. What is
//! compared is positions of one log, and no clock is asked but this process's own: how long ago a replica last heard
//! from its master tells nothing about what it has replayed since.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::token::{Lsn, Term};

/// Looks remembered, and how far they are apart: at least 1.5 seconds, however often the master is looked at.
const REMEMBERED: usize = 64;
const SPACING: Duration = Duration::from_millis(25);

/// The last looks at the master of one term.
#[derive(Debug, Clone, Default)]
pub(crate) struct Positions {
    term: Option<Term>,
    /// When a look began, and the flushed position it found; in the order of time.
    looks: VecDeque<(Instant, Lsn)>,
}

impl Positions {
    /// Remembers a look. One in another term makes the earlier ones useless: their positions are of another log.
    pub(crate) fn record(&mut self, term: Term, began: Instant, lsn: Lsn) {
        if self.term != Some(term) {
            self.term = Some(term);
            self.looks.clear();
        }
        match self.looks.back_mut() {
            // Nothing was written since: this look says the same of a later time.
            Some((last, at)) if *at == lsn => *last = began,
            _ => {
                if self.is_crowded() {
                    self.looks.pop_back();
                }
                self.looks.push_back((began, lsn));
                if self.looks.len() > REMEMBERED {
                    self.looks.pop_front();
                }
            }
        }
    }

    /// Whether who has replayed `replayed` of `term` shows every commit acknowledged until `max_age` before `now`.
    ///
    /// Some look has to have begun since then. Without one, nothing is known; so it is in the first moments of a term,
    /// and when the master was not looked at for longer than `max_age`.
    pub(crate) fn are_met_by(&self, term: Term, replayed: Lsn, max_age: Duration, now: Instant) -> bool {
        self.term == Some(term)
            && self
                .looks
                .iter()
                .any(|(began, lsn)| now.saturating_duration_since(*began) <= max_age && *lsn <= replayed)
    }

    /// Whether the last look is nearer to the one before it than need be remembered.
    fn is_crowded(&self) -> bool {
        let mut latest = self.looks.iter().rev();
        match (latest.next(), latest.next()) {
            (Some((last, _)), Some((before, _))) => last.saturating_duration_since(*before) < SPACING,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const TERM: Term = Term(3);

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    /// Looks at these milliseconds that found these positions.
    fn looks(start: Instant, looks: &[(u64, u64)]) -> Positions {
        let mut positions = Positions::default();
        for (ms, lsn) in looks {
            positions.record(TERM, at(start, *ms), Lsn(*lsn));
        }
        positions
    }

    #[test]
    fn what_was_acknowledged_before_a_look_within_the_age_is_shown_and_not_more_is_asked() {
        let start = Instant::now();
        let positions = looks(start, &[(0, 100), (500, 200), (1400, 300)]);
        let met = |lsn| positions.are_met_by(TERM, Lsn(lsn), SECOND, at(start, 1450));
        // The look at 0 ms is too old to tell; that at 500 ms covers what was acknowledged before it.
        assert!(!met(100));
        assert!(!met(199));
        assert!(met(200));
    }

    #[test]
    fn a_look_counts_to_the_very_end_of_the_age() {
        let start = Instant::now();
        let positions = looks(start, &[(0, 100)]);
        assert!(positions.are_met_by(TERM, Lsn(100), SECOND, at(start, 1000)));
        assert!(!positions.are_met_by(TERM, Lsn(100), SECOND, at(start, 1001)));
        assert!(
            !positions.are_met_by(TERM, Lsn(u64::MAX), SECOND, at(start, 1001)),
            "nobody looked at the master since"
        );
    }

    #[test]
    fn while_nothing_is_written_the_same_position_is_new_enough() {
        let start = Instant::now();
        let idle: Vec<(u64, u64)> = (0..100).map(|look| (look * 100, 100)).collect();
        let positions = looks(start, &idle);
        assert_eq!(positions.looks.len(), 1);
        assert!(positions.are_met_by(TERM, Lsn(100), SECOND, at(start, 9_950)));
        assert!(!positions.are_met_by(TERM, Lsn(99), SECOND, at(start, 9_950)));
    }

    #[test]
    fn positions_of_another_term_tell_nothing() {
        let start = Instant::now();
        let mut positions = looks(start, &[(0, 100)]);
        assert!(!positions.are_met_by(Term(2), Lsn(100), SECOND, start));
        positions.record(Term(4), at(start, 10), Lsn(50));
        assert!(!positions.are_met_by(TERM, Lsn(100), SECOND, at(start, 10)));
        assert!(positions.are_met_by(Term(4), Lsn(50), SECOND, at(start, 10)));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_reaches_far_enough_back() {
        let start = Instant::now();
        let busy: Vec<(u64, u64)> = (0..1_000).map(|look| (look * 5, look)).collect();
        let positions = looks(start, &busy);
        assert!(positions.looks.len() <= REMEMBERED);
        let (newest, lsn) = positions.looks.back().unwrap();
        assert_eq!(
            (*newest, *lsn),
            (at(start, 4_995), Lsn(999)),
            "the newest is always there"
        );
        let (oldest, _) = positions.looks.front().unwrap();
        assert!(newest.duration_since(*oldest) >= Duration::from_millis(1_500));
        // A replica that lags by half a second answers; one that lags by more than a second does not.
        let now = at(start, 5_000);
        assert!(positions.are_met_by(TERM, Lsn(900), SECOND, now));
        assert!(!positions.are_met_by(TERM, Lsn(799), SECOND, now));
    }
}
