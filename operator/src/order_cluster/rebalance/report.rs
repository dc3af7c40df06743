//! What a mover tells the reconciler. Pure.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use crds::RebalanceStatus;
use ring::{Ordinal, Tokens};

/// What was seen longer ago is not told as the present.
const FRESH: Duration = Duration::from_secs(10);

/// The newest report of a mover.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Report {
    pub(crate) standing: Standing,
    /// The account, for the status.
    pub(crate) course: Option<RebalanceStatus>,
    pub(crate) seen: Option<Seen>,
    /// Leaving shards that hold nothing any more.
    pub(crate) empty: BTreeSet<Ordinal>,
    /// Whether the rebalance has been aborted as asked.
    pub(crate) aborted: bool,
}

/// What was seen of the ring, and when.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) tokens: Tokens,
    pub(crate) in_flight: bool,
    pub(crate) at: Instant,
}

/// How a mover stands to what is asked of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It has not looked yet, or has nothing to do.
    #[default]
    Idle,
    /// Keys move.
    Moving,
    /// Something stands in the way. Whether a person has to act.
    Waiting { why: String, person: bool },
    /// `spec.rebalance.paused` holds it.
    Paused,
    /// It was aborted, and waits for the specification to change.
    Aborted,
}

impl Report {
    /// Takes back what need not hold under other orders: who was seen to hold nothing may be about to get something, and
    /// an abort may have been asked for anew.
    pub(crate) fn forget_what_orders_decide(&mut self) {
        self.empty.clear();
        self.aborted = false;
    }

    /// Who owns what, and whether ranges are on their way, if that was seen just now.
    pub(crate) fn truth(&self) -> Option<(Tokens, bool)> {
        let seen = self.seen.as_ref().filter(|seen| seen.at.elapsed() < FRESH)?;
        Some((seen.tokens.clone(), seen.in_flight))
    }

    /// Whether the reconciler has to act on this after it knew `before`, rather than only show it some time.
    pub(crate) fn calls_for_action_after(&self, before: &Self) -> bool {
        let phase = |report: &Self| report.course.as_ref().map(|course| course.phase);
        self.standing != before.standing
            || self.empty != before.empty
            || self.aborted != before.aborted
            || phase(self) != phase(before)
    }

    /// Whether anything is different that is published or shown.
    pub(crate) fn differs_from(&self, before: &Self) -> bool {
        let tokens = |report: &Self| report.seen.as_ref().map(|seen| seen.tokens.clone());
        self.calls_for_action_after(before) || self.course != before.course || tokens(self) != tokens(before)
    }
}
