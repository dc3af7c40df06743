//! The account of a rebalance: what `status.rebalance` shows. Pure, but for the clock.
//!
//! The databases say what is left to do; the account adds what they do not keep: when it began, how many rows went and
//! how long writes paused. An operator that starts anew goes on from the account in the resource's status. If that was
//! lost, only figures are lost.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use crds::{RebalanceError, RebalancePhase, RebalanceStatus};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use moves::{MoveId, RangeState, ShardView, Summary};
use ring::{Ordinal, Range};

use super::hands::Batch;
use crate::conditions::now;

/// The rate is told over this time.
const RATE_OVER: Duration = Duration::from_secs(60);
/// A summary's messages are of a readable length.
const LONGEST_MESSAGE: usize = 1_000;

/// The account.
#[derive(Clone, Debug, Default)]
pub(crate) struct Course {
    status: Option<RebalanceStatus>,
    pauses: Pauses,
    recent: VecDeque<(Instant, u64)>,
    /// What was added last, as long as nothing of it has been seen in the databases.
    added: Option<Estimate>,
}

/// What is to be done, as a new rebalance begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Estimate {
    pub(crate) shards_before: usize,
    pub(crate) shards_after: usize,
    pub(crate) moves: usize,
    pub(crate) ranges: usize,
    pub(crate) rows: u64,
    pub(crate) moved_per_million: i64,
    pub(crate) ideal_per_million: i64,
}

impl Estimate {
    /// From a plan's figures and an estimate of the rows it moves.
    pub(crate) fn of(summary: &Summary, rows: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "a part of 1")]
        let per_million = |part: f64| (part * 1e6).round() as i64;
        Self {
            shards_before: summary.shards.iter().filter(|share| share.before > 0.0).count(),
            shards_after: summary.shards.iter().filter(|share| share.after > 0.0).count(),
            moves: summary.moves,
            ranges: summary.ranges,
            rows,
            moved_per_million: per_million(summary.moved),
            ideal_per_million: per_million(summary.ideal),
        }
    }
}

/// What a plan was to the account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begun {
    /// The first of a rebalance.
    First,
    /// More than was planned before.
    More,
    /// The one that was taken in last.
    Known,
}

/// What the databases say is left to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pending {
    /// Ranges that have not changed hands.
    pub(crate) ranges: usize,
    /// Moves with such ranges.
    pub(crate) moves: usize,
}

impl Pending {
    /// Counts what is still to be imported; neighbours of one move are one range.
    pub(crate) fn of(world: &BTreeMap<Ordinal, ShardView>) -> Self {
        let mut by_move: BTreeMap<MoveId, Vec<Range>> = BTreeMap::new();
        for row in world.values().flat_map(|view| &view.rows) {
            if let (RangeState::Importing, Some(id)) = (row.state, row.move_id) {
                by_move.entry(id).or_default().push(row.range);
            }
        }
        Self {
            moves: by_move.len(),
            ranges: by_move.into_values().map(count_joined).sum(),
        }
    }
}

fn count_joined(mut ranges: Vec<Range>) -> usize {
    ranges.sort_unstable();
    let ends: BTreeSet<u64> = ranges.iter().map(|range| range.hi).collect();
    ranges.iter().filter(|range| !ends.contains(&range.lo)).count()
}

impl Course {
    /// Goes on with the account that the status holds.
    pub(crate) fn resume(status: Option<RebalanceStatus>) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    /// The account as the status shows it; `None`: nothing was ever moved.
    pub(crate) fn status(&self) -> Option<&RebalanceStatus> {
        self.status.as_ref()
    }

    /// Whether a rebalance has begun and not ended.
    pub(crate) fn is_open(&self) -> bool {
        self.status
            .as_ref()
            .is_some_and(|status| status.started_at.is_some() && status.finished_at.is_none())
    }

    pub(crate) fn phase(&self) -> Option<RebalancePhase> {
        self.status.as_ref().map(|status| status.phase)
    }

    /// Opens an account, or adds to the one that is open: a specification that changed meanwhile has led to more moves.
    pub(crate) fn begin(&mut self, estimate: &Estimate) -> Begun {
        // The rows are guessed anew at each look.
        let same = |added: &Estimate| Estimate { rows: 0, ..*added } == Estimate { rows: 0, ..*estimate };
        if self.is_open() && self.added.as_ref().is_some_and(same) {
            return Begun::Known;
        }
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
        if !self.is_open() {
            self.open();
        }
        self.added = Some(*estimate);
        let status = self.status.get_or_insert_default();
        let begun = match status.ranges_total {
            0 => Begun::First,
            _ => Begun::More,
        };
        if begun == Begun::First {
            status.shards_before = count(estimate.shards_before);
        }
        status.shards_after = count(estimate.shards_after);
        status.moves_total += number(estimate.moves);
        status.ranges_total += number(estimate.ranges);
        status.rows_total += i64::try_from(estimate.rows).unwrap_or(i64::MAX / 2);
        status.keys_moved_per_million += estimate.moved_per_million;
        status.keys_ideal_per_million += estimate.ideal_per_million;
        begun
    }

    fn open(&mut self) {
        *self = Self::resume(Some(RebalanceStatus {
            started_at: Some(now()),
            ..RebalanceStatus::default()
        }));
    }

    /// Takes over what the databases say is left. Moves that no account knows of open one.
    pub(crate) fn observed(&mut self, pending: &Pending) {
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        if !self.is_open() {
            if pending.ranges == 0 {
                return;
            }
            self.open();
        }
        if pending.ranges > 0 {
            self.added = None;
        }
        let status = self.status.get_or_insert_default();
        let (ranges, moves) = (number(pending.ranges), number(pending.moves));
        status.ranges_total = status.ranges_total.max(ranges);
        status.moves_total = status.moves_total.max(moves);
        status.ranges_done = status.ranges_total - ranges;
        status.moves_done = status.moves_total - moves;
    }

    /// Ranges that are not going to change hands any more; `first`: the first of their move.
    pub(crate) fn undone(&mut self, ranges: u64, first: bool) {
        if let Some(status) = &mut self.status
            && ranges > 0
        {
            let ranges = i64::try_from(ranges).unwrap_or(i64::MAX);
            status.ranges_total = status.ranges_total.saturating_sub(ranges).max(0);
            status.moves_total = status.moves_total.saturating_sub(first.into()).max(0);
        }
    }

    /// A batch changed hands.
    pub(crate) fn handed_over(&mut self, batch: &Batch, at: Instant) {
        self.pauses.add(batch.pause);
        self.recent.push_back((at, batch.rows));
        let (longest, median) = (self.pauses.longest(), self.pauses.median());
        let Some(status) = &mut self.status else { return };
        status.rows_done += i64::try_from(batch.rows).unwrap_or(i64::MAX / 2);
        // The estimate was too low.
        status.rows_total = status.rows_total.max(status.rows_done);
        status.longest_pause_milliseconds = status.longest_pause_milliseconds.max(longest);
        status.median_pause_milliseconds = median;
    }

    /// How fast it goes and when it will be over, as far as that can be told now. An account that is closed stays as it is.
    pub(crate) fn estimate(&mut self, at: Instant) {
        if !self.is_open() {
            return;
        }
        let rate = self.rate(at);
        let Some(status) = &mut self.status else { return };
        let left = status.rows_total - status.rows_done;
        if rate != status.rows_per_second || left == 0 {
            status.rows_per_second = rate;
            status.estimated_end = (rate > 0 && left > 0).then(|| later(left / rate)).flatten();
        }
    }

    /// A freeze ran into its deadline: nothing changed hands, and writers waited all the same.
    pub(crate) fn expired(&mut self, pause: Duration) {
        if let Some(status) = &mut self.status {
            status.longest_pause_milliseconds = status.longest_pause_milliseconds.max(milliseconds(pause));
        }
    }

    /// Rows in a second, over the last minute.
    fn rate(&mut self, at: Instant) -> i64 {
        while self
            .recent
            .front()
            .is_some_and(|(then, _)| at.duration_since(*then) > RATE_OVER)
        {
            self.recent.pop_front();
        }
        let rows: u64 = self.recent.iter().map(|(_, rows)| rows).sum();
        let Some((first, _)) = self.recent.front() else {
            return 0;
        };
        let seconds = at.duration_since(*first).as_secs().max(1);
        i64::try_from(rows / seconds).unwrap_or(i64::MAX)
    }

    /// What is being done now. An account that is closed stays as it is.
    pub(crate) fn set_phase(&mut self, phase: RebalancePhase) {
        if self.is_open()
            && let Some(status) = &mut self.status
        {
            status.phase = phase;
        }
    }

    /// Something went wrong; the same again only counts as new when it changed.
    pub(crate) fn failed(&mut self, message: &str, action: &str) {
        let Some(status) = &mut self.status else { return };
        let message = message[..message.floor_char_boundary(LONGEST_MESSAGE)].to_owned();
        let known = status.last_error.as_ref();
        if known.is_none_or(|known| known.message != message || known.action != action) {
            status.last_error = Some(RebalanceError {
                at: now(),
                message,
                action: action.to_owned(),
            });
        }
    }

    /// Something stands in the way of a rebalance that has not begun: an account is opened for it to be seen.
    pub(crate) fn blocked(&mut self, message: &str, action: &str) {
        if !self.is_open() {
            self.open();
        }
        self.set_phase(RebalancePhase::Blocked);
        self.failed(message, action);
    }

    /// Closes the account.
    pub(crate) fn close(&mut self, phase: RebalancePhase) {
        if !self.is_open() {
            return;
        }
        let Some(status) = &mut self.status else { return };
        status.phase = phase;
        status.estimated_end = None;
        let end = now();
        if let Some(start) = &status.started_at {
            let seconds = end.0.duration_since(start.0).as_secs().max(1);
            status.rows_per_second = status.rows_done / seconds;
        }
        status.finished_at = Some(end);
        if phase == RebalancePhase::Finished {
            // The estimate has served its purpose.
            status.rows_total = status.rows_done;
        }
    }

    /// Remembers that a person asked to give up what this generation of the specification asks for.
    pub(crate) fn abort_of(&mut self, generation: i64) {
        self.status.get_or_insert_default().aborted_generation = Some(generation);
    }
}

/// Now and so many seconds.
fn later(seconds: i64) -> Option<Time> {
    let now = now().0.as_second();
    Timestamp::from_second(now.checked_add(seconds)?).ok().map(Time)
}

/// Up to the next whole millisecond: a pause is never told as none.
fn milliseconds(pause: Duration) -> i64 {
    i64::try_from(pause.as_micros().div_ceil(1000)).unwrap_or(i64::MAX)
}

/// How often writes paused for how many milliseconds.
#[derive(Clone, Debug, Default)]
struct Pauses(BTreeMap<i64, u64>);

impl Pauses {
    fn add(&mut self, pause: Duration) {
        *self.0.entry(milliseconds(pause)).or_default() += 1;
    }

    fn longest(&self) -> i64 {
        self.0.last_key_value().map_or(0, |(pause, _)| *pause)
    }

    fn median(&self) -> i64 {
        let half = self.0.values().sum::<u64>().div_ceil(2);
        let mut seen = 0;
        let found = self.0.iter().find(|(_, count)| {
            seen += *count;
            seen >= half
        });
        found.map_or(0, |(pause, _)| *pause)
    }
}

#[cfg(test)]
#[path = "course_tests.rs"]
mod tests;
