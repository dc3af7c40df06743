//! Handing a batch over: freeze, drain, verify, commit point, activation, in the one order that is safe.

use std::time::Duration;

use tokio::time::Instant;

use super::checkpoint::reach;
use super::copy::count_freeze;
use super::error::MoveError;
use super::gate::{Gate, gate};
use super::observe::row_around;
use super::session::{ShardSession, confirm};
use super::steps::{Batch, Frozen, activate, commit_move, freeze, split_range, thaw_now};
use super::verify::{Verified, await_marker, verify};
use super::{Attempt, RangeRow, RangeState};

/// How long the target may take to apply the last of a batch that is behind its commit point.
const ROLL_FORWARD_LIMIT: Duration = Duration::from_secs(10);

/// What a hand-over may cost.
#[derive(Debug, Clone, Copy)]
pub struct HandOverLimits {
    /// The longest pause of the batch's writers before the commit point: the deadline of the freeze. 1 ms to 60 s.
    pub pause: Duration,
    /// How long to wait for a moment in which the pause would be short.
    pub gate: Duration,
    /// How far behind the source's log the target may be when the freeze begins, in bytes.
    pub apply_lag_bytes: i64,
    /// How late the members that may be promoted may flush.
    pub standby_lag: Duration,
    /// A transaction older than this that writes in the range keeps the freeze from beginning.
    pub long_holder: Duration,
}

impl HandOverLimits {
    /// For pauses of at most this long. What would take a tenth of it is waited for before, not in the pause.
    pub fn within(pause: Duration) -> Self {
        let milliseconds = i64::try_from(pause.as_millis()).unwrap_or(i64::MAX);
        Self {
            pause,
            gate: Duration::from_secs(2),
            // A tenth of the pause, for an apply worker that takes 6.5 MB a second.
            apply_lag_bytes: milliseconds.saturating_mul(650),
            standby_lag: pause / 10,
            long_holder: pause / 5,
        }
    }
}

impl Default for HandOverLimits {
    fn default() -> Self {
        Self::within(Duration::from_millis(100))
    }
}

/// How a hand-over ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandOver {
    /// The target owns the batch.
    Done {
        /// Rows that were verified in the pause; zero when somebody else did it.
        rows: u64,
        /// For how long the batch could not be written, by this process's monotonic clock: from before the freeze to
        /// after the activation. Of a hand-over that was taken up from another operator, what this one took.
        pause: Duration,
        /// How much of the pause it took to compare the rows; zero when somebody else did it.
        compared: Duration,
        /// The attempt it went over at.
        attempt: Attempt,
    },
    /// The pause was over before the commit point; the source owns the batch, thawed.
    Expired {
        /// The attempt that ran out.
        attempt: Attempt,
        /// For how long its writers were held up for nothing, by this process's monotonic clock; at most.
        pause: Duration,
    },
    /// Not now: nothing was frozen, or nothing that was not thawed.
    Busy {
        /// Why.
        why: String,
    },
    /// A step was done that a failover might forget. Call it again: it goes on from what the databases say.
    NotDurable {
        /// The step.
        step: String,
        /// Why.
        why: String,
    },
}

/// Hands a batch over from whatever state it is in; steps 5 to 9 of a move. Both sessions stay the same all along: what
/// was seen in one is acted on in it.
///
/// A dropped future leaves the batch where it is, as an operator that dies does: at worst frozen until its deadline.
///
/// # Errors
/// [`MoveError::Refused`] if the books do not allow it (observe again), [`MoveError::Differs`] if the copy is wrong.
pub async fn hand_over(
    source: &mut ShardSession,
    target: &mut ShardSession,
    batch: &Batch,
    limits: &HandOverLimits,
) -> Result<HandOver, MoveError> {
    let outcome = settle(attempt_hand_over(source, target, batch, limits).await)?;
    match outcome {
        HandOver::Expired { .. } => count_freeze(target, batch.move_id, true).await?,
        HandOver::Done { .. } => count_freeze(target, batch.move_id, false).await?,
        HandOver::Busy { .. } | HandOver::NotDurable { .. } => {}
    }
    Ok(outcome)
}

/// Finishes a batch that the source has given away: drains and verifies again if it must, and activates.
///
/// # Errors
/// [`MoveError::Refused`] if the source has not given it away, or the target does not import it.
pub async fn roll_forward(
    source: &mut ShardSession,
    target: &mut ShardSession,
    batch: &Batch,
) -> Result<HandOver, MoveError> {
    let began = Instant::now();
    let row = known(source, batch).await?;
    if !is_given_away(&row, batch) {
        return Err(refused(source, batch, &row));
    }
    settle(finish(source, target, batch, &row, began).await)
}

/// Two errors are outcomes: nothing is wrong, only not done.
fn settle(outcome: Result<HandOver, MoveError>) -> Result<HandOver, MoveError> {
    match outcome {
        Err(MoveError::Busy { why, .. }) => Ok(HandOver::Busy { why }),
        Err(MoveError::NotDurable { operation, why, .. }) => Ok(HandOver::NotDurable { step: operation, why }),
        other => other,
    }
}

async fn attempt_hand_over(
    source: &mut ShardSession,
    target: &mut ShardSession,
    batch: &Batch,
    limits: &HandOverLimits,
) -> Result<HandOver, MoveError> {
    let began = Instant::now();
    let row = known(source, batch).await?;
    match row.state {
        RangeState::Moved | RangeState::Cleaned if is_given_away(&row, batch) => {
            return finish(source, target, batch, &row, began).await;
        }
        // Another operator's, or our own of before: its attempt is as good as a new one, once it is durable.
        RangeState::Frozen if row.move_id == Some(batch.move_id) && row.range == batch.range && !row.expired => {
            confirm(source).await?;
            let frozen = Frozen {
                attempt: row.attempt,
                generation: row.generation,
            };
            return go_through(source, target, batch, frozen, began, limits).await;
        }
        RangeState::Frozen if row.move_id == Some(batch.move_id) && row.expired => {
            let frozen = Batch {
                range: row.range,
                ..*batch
            };
            thaw_now(source, &frozen, row.attempt).await?;
        }
        RangeState::Owned => {}
        _ => return Err(refused(source, batch, &row)),
    }
    if let Gate::Shut(why) = gate(source, target, batch, limits).await? {
        return Ok(HandOver::Busy { why });
    }
    carve(source, batch).await?;
    let began = Instant::now();
    let frozen = freeze(source, batch, target.shard, &target.hosts, limits.pause).await?;
    go_through(source, target, batch, frozen, began, limits).await
}

/// From a durable freeze to the activation. Whatever goes wrong before the commit point, the range is thawed at once.
async fn go_through(
    source: &mut ShardSession,
    target: &mut ShardSession,
    batch: &Batch,
    frozen: Frozen,
    began: Instant,
    limits: &HandOverLimits,
) -> Result<HandOver, MoveError> {
    reach("frozen").await;
    let attempt = frozen.attempt;
    let verified = match drain_and_verify(source, target, batch, attempt, began + limits.pause).await {
        Ok(Some(verified)) => verified,
        Ok(None) => {
            thaw_now(source, batch, attempt).await?;
            let pause = began.elapsed();
            return Ok(HandOver::Expired { attempt, pause });
        }
        Err(error) => {
            // Best effort: if it fails, the deadline does it.
            if let Err(error) = thaw_now(source, batch, attempt).await {
                tracing::debug!(error = error.in_full(), "a freeze is left to its deadline");
            }
            return Err(error);
        }
    };
    reach("verified").await;
    if !commit_move(source, batch, attempt).await? {
        // Thawed at its deadline, or frozen anew by another operator.
        let pause = began.elapsed();
        return Ok(HandOver::Expired { attempt, pause });
    }
    reach("committed").await;
    // That the commit point was passed at this attempt is what the source has just said.
    if !activate(target, batch, attempt, frozen.generation).await? {
        // What was verified has been taken back by a failover, which durable steps exclude, or by hand.
        let row = known(source, batch).await?;
        return finish(source, target, batch, &row, began).await;
    }
    reach("activated").await;
    Ok(HandOver::Done {
        rows: verified.rows,
        pause: began.elapsed(),
        compared: verified.took,
        attempt,
    })
}

async fn drain_and_verify(
    source: &mut ShardSession,
    target: &mut ShardSession,
    batch: &Batch,
    attempt: Attempt,
    deadline: Instant,
) -> Result<Option<Verified>, MoveError> {
    if !await_marker(target, batch, attempt, deadline).await? {
        return Ok(None);
    }
    reach("drained").await;
    match verify(source, target, batch, attempt).await? {
        Some(verified) if Instant::now() < deadline => Ok(Some(verified)),
        Some(_) => Ok(None),
        None => Err(MoveError::Refused {
            shard: target.shard,
            operation: batch.named("mark as verified"),
            why: "it does not import the range by this move, or has verified a later attempt".to_owned(),
        }),
    }
}

/// Behind the commit point there is only forward. What the source says was only read, so it is confirmed first.
async fn finish(
    source: &mut ShardSession,
    target: &mut ShardSession,
    batch: &Batch,
    row: &RangeRow,
    began: Instant,
) -> Result<HandOver, MoveError> {
    confirm(source).await?;
    let (mut rows, mut compared) = (0, Duration::ZERO);
    if !activate(target, batch, row.attempt, row.generation).await? {
        // Nobody writes at the source any more, so that what was frozen is still there to be compared.
        if !await_marker(target, batch, row.attempt, Instant::now() + ROLL_FORWARD_LIMIT).await? {
            return Ok(HandOver::Busy {
                why: format!("shard {} has not applied the end of the batch yet", target.shard),
            });
        }
        let verified = verify(source, target, batch, row.attempt).await?;
        if let Some(verified) = verified {
            (rows, compared) = (verified.rows, verified.took);
        }
        if verified.is_none() || !activate(target, batch, row.attempt, row.generation).await? {
            return Err(MoveError::Refused {
                shard: target.shard,
                operation: batch.named("activate"),
                why: format!(
                    "shard {} has given it away at attempt {}, and it is neither imported by this move nor owned here",
                    source.shard, row.attempt
                ),
            });
        }
    }
    Ok(HandOver::Done {
        rows,
        pause: began.elapsed(),
        compared,
        attempt: row.attempt,
    })
}

/// Makes the batch exactly one row of the source's book.
async fn carve(source: &mut ShardSession, batch: &Batch) -> Result<(), MoveError> {
    for cut in [batch.range.lo, batch.range.hi] {
        let row = known(source, batch).await?;
        if row.range.lo < cut && cut < row.range.hi {
            split_range(source, row.range, cut).await?;
        }
    }
    Ok(())
}

/// The source's row that holds all of the batch.
async fn known(source: &mut ShardSession, batch: &Batch) -> Result<RangeRow, MoveError> {
    row_around(source, batch.range)
        .await?
        .ok_or_else(|| MoveError::Refused {
            shard: source.shard,
            operation: batch.named("hand over"),
            why: "no single range of its book holds the batch".to_owned(),
        })
}

pub(super) fn is_given_away(row: &RangeRow, batch: &Batch) -> bool {
    matches!(row.state, RangeState::Moved | RangeState::Cleaned)
        && row.move_id == Some(batch.move_id)
        && row.range == batch.range
}

fn refused(source: &ShardSession, batch: &Batch, row: &RangeRow) -> MoveError {
    let by = row
        .move_id
        .map_or_else(|| "no move".to_owned(), |by| format!("move {by}"));
    MoveError::Refused {
        shard: source.shard,
        operation: batch.named("hand over"),
        why: format!("{} is {:?} there, by {by}", row.range, row.state),
    }
}
