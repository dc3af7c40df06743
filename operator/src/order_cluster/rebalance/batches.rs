//! Handing a range over, batch by batch, and deleting what is left of it.

use std::time::{Duration, Instant};

use moves::{CopyState, MoveId};
use ring::Range;
use store::moves::{
    Batch as Piece, HandOver, HandOverLimits, MoveError, ShardSession, clean_rows, copies, hand_over, mark_cleaned,
    next_cut, pre_verify, set_copy_state, term,
};
use tokio::time::sleep;

use super::{
    hands::{Batch, Done, HandedOver, Limits},
    pacing::{LARGEST_BATCH, Pacing},
};

/// How many rows are deleted in one transaction.
const CLEANED_AT_ONCE: u32 = 1_000;

/// Both ends of a move.
pub(crate) struct Ends<'a> {
    pub(crate) source: &'a mut ShardSession,
    pub(crate) target: &'a mut ShardSession,
}

/// Hands the beginning of a range over, as much as there is time for. `frozen`: the range is a batch that somebody has
/// frozen already.
pub(crate) async fn hand_over_range(
    ends: Ends<'_>,
    pacing: &Pacing,
    limits: &Limits,
    move_id: MoveId,
    range: Range,
    frozen: bool,
) -> Result<Done, MoveError> {
    let Ends { source, target } = ends;
    let began = Instant::now();
    // A session does not outlive its master, so this holds for all that is done in it: the slot is this master's.
    let copy = copies(target).await?.into_iter().find(|copy| copy.move_id == move_id);
    if copy.and_then(|copy| copy.source_term) != Some(term(source).await?) {
        return Ok(Done::NotYet(format!(
            "shard {} has another master than when the copy began",
            source.shard
        )));
    }
    let mut handed = HandedOver::default();
    let mut rest = range;
    while rest.lo < rest.hi && sleep_if_there_is_time(pacing.wait(move_id), began, limits.budget).await {
        let cut = match frozen {
            true => None,
            false => next_cut(source, rest, pacing.batch(move_id, limits.expired_freezes)).await?,
        };
        let hi = cut.unwrap_or(rest.hi);
        let piece = Piece {
            move_id,
            range: Range { lo: rest.lo, hi },
        };
        if !frozen && let Some(why) = wrong_copy(source, target, &piece).await? {
            set_copy_state(target, move_id, CopyState::Aborting, Some(&why)).await?;
            return Ok(Done::NotYet(why));
        }
        let at_most = HandOverLimits::within(limits.max_pause);
        match hand_over(source, target, &piece, &at_most).await {
            Ok(HandOver::Done {
                rows, pause, compared, ..
            }) => {
                let batch = Batch { rows, pause, compared };
                handed.batches.push(batch);
                // One that was found frozen was cut by somebody else.
                if !frozen {
                    pacing.succeeded(move_id, &batch, limits.max_pause);
                }
                pacing.spent(move_id, rows, limits.rows_per_second);
                rest.lo = hi;
            }
            Ok(HandOver::Expired { pause, .. }) => {
                pacing.expired(move_id);
                handed.expired.push(pause);
                break;
            }
            Ok(HandOver::Busy { why }) => {
                handed.held_up = Some(why);
                break;
            }
            Ok(HandOver::NotDurable { step, why }) => {
                handed.held_up = Some(format!("{step}: {why}"));
                break;
            }
            Err(MoveError::Refused { operation, why, .. }) => {
                // Somebody else was faster, or has given the move up: the next look tells.
                handed.held_up = Some(format!("could not {operation}: {why}"));
                break;
            }
            Err(wrong @ MoveError::Differs { .. }) => {
                let why = wrong.to_string();
                set_copy_state(target, move_id, CopyState::Aborting, Some(&why)).await?;
                handed.held_up = Some(why);
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Done::HandedOver(handed))
}

/// Looks for rows that differ before anybody's writes are held up; what was found, in words.
async fn wrong_copy(
    source: &mut ShardSession,
    target: &mut ShardSession,
    piece: &Piece,
) -> Result<Option<String>, MoveError> {
    match pre_verify(source, target, piece, LARGEST_BATCH).await {
        Ok(found) if found.differing.is_empty() => Ok(None),
        Ok(found) => Ok(Some(format!(
            "{} rows in {} were not copied as they are, the first in {}",
            found.differing.len(),
            piece.range,
            found.differing.first().map_or("?", |(relation, _)| relation)
        ))),
        // The gate of the hand-over waits for that, and says so.
        Err(MoveError::Busy { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Deletes what a range left on a shard, as much as there is time for, at half the speed that is possible: the shard has
/// other work to do.
pub(crate) async fn clean_range(
    session: &mut ShardSession,
    pacing: &Pacing,
    limits: &Limits,
    piece: &Piece,
) -> Result<Done, MoveError> {
    let began = Instant::now();
    let mut rows = 0;
    while sleep_if_there_is_time(pacing.wait(piece.move_id), began, limits.budget).await {
        let started = Instant::now();
        let deleted = clean_rows(session, piece, CLEANED_AT_ONCE).await?;
        if deleted == 0 {
            return match mark_cleaned(session, piece).await? {
                true => Ok(Done::Cleaned { rows }),
                false => Ok(Done::NotYet(format!("rows came back into {}", piece.range))),
            };
        }
        rows += deleted;
        pacing.spent(piece.move_id, deleted, limits.rows_per_second);
        sleep(started.elapsed()).await;
    }
    Ok(Done::Cleaned { rows })
}

/// Sleeps, unless that takes longer than there is time. Whether there still is some.
async fn sleep_if_there_is_time(wait: Duration, began: Instant, budget: Duration) -> bool {
    let left = budget.saturating_sub(began.elapsed());
    if wait.is_zero() {
        return !left.is_zero();
    }
    sleep(wait.min(left)).await;
    wait < left
}
