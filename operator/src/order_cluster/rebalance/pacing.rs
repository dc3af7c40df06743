//! How much at once, and how fast: sizes of batches, and rows a second. It remembers nothing that counts.

use std::{
    collections::HashMap,
    num::NonZeroU64,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use moves::MoveId;

use super::hands::Batch;

/// The most rows of a batch.
pub(crate) const LARGEST_BATCH: u32 = 4_000;
/// The most rows of a move's first batch: from there it is seen what a batch costs.
const FIRST_BATCH: u32 = 1_000;
/// So few rows cost next to nothing to compare.
const FEW_ROWS: u32 = 100;
/// Comparing the rows of a batch may take this part of the longest pause, however much of it the steps take: with fewer
/// rows a pause would be hardly shorter, and there would be many more of them.
const LEAST_ROOM: u32 = 8;
/// By how much a batch grows at most with each success, and shrinks at most: growing is slow, for what is too much costs
/// a pause of writes that was for nothing.
const GROWTH: f64 = 1.25;
const SHRINKAGE: f64 = 0.25;

/// The paces of all moves.
#[derive(Debug, Default)]
pub(crate) struct Pacing(Mutex<HashMap<MoveId, Pace>>);

#[derive(Debug)]
struct Pace {
    /// None as long as nothing was tried.
    batch: Option<u32>,
    /// When the next rows may go.
    due: Instant,
}

impl Pacing {
    /// The most rows of the move's next batch, after so many freezes in a row that ran into their deadline.
    pub(crate) fn batch(&self, id: MoveId, expired_freezes: u32) -> u32 {
        // What the database remembers counts, where this process knows nothing of it.
        let halved = |rows: u32| rows.checked_shr(expired_freezes).unwrap_or(0).max(1);
        self.with(id, |pace| {
            let known = pace.batch.unwrap_or_else(|| halved(FIRST_BATCH));
            *pace.batch.insert(known.min(halved(LARGEST_BATCH)))
        })
    }

    /// A batch took too long.
    pub(crate) fn expired(&self, id: MoveId) {
        self.with(id, |pace| {
            pace.batch = Some((pace.batch.unwrap_or(FIRST_BATCH) / 2).max(1))
        });
    }

    /// A batch changed hands. The next one is as large as would take half of what a pause may take: the rest is for what
    /// a pause takes longer than the one before. Only the comparison depends on the rows; freeze, marker, commit point
    /// and activation take what they take.
    pub(crate) fn succeeded(&self, id: MoveId, last: &Batch, max_pause: Duration) {
        let steps = last.pause.saturating_sub(last.compared);
        let room = (max_pause / 2).saturating_sub(steps).max(max_pause / LEAST_ROOM);
        let factor = (room.as_secs_f64() / last.compared.as_secs_f64().max(1e-6)).clamp(SHRINKAGE, GROWTH);
        self.with(id, |pace| {
            let batch = pace.batch.unwrap_or(FIRST_BATCH);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a few thousand at most"
            )]
            let scaled = (f64::from(batch) * factor).ceil() as u32;
            pace.batch = Some(if factor < 1.0 {
                // Further down leads only what ran into its deadline.
                scaled.max(FEW_ROWS.min(batch))
            } else if last.rows.saturating_mul(2) >= u64::from(batch) {
                scaled.min(LARGEST_BATCH)
            } else {
                // A small range was over soon: that says nothing about a large batch.
                batch
            });
        });
    }

    /// Rows went: the next wait for their time.
    pub(crate) fn spent(&self, id: MoveId, rows: u64, per_second: Option<NonZeroU64>) {
        let Some(per_second) = per_second else { return };
        let now = Instant::now();
        #[expect(clippy::cast_precision_loss, reason = "a time to wait")]
        let time = Duration::from_secs_f64(rows as f64 / per_second.get() as f64);
        self.with(id, |pace| pace.due = pace.due.max(now) + time);
    }

    /// How long the next rows have to wait.
    pub(crate) fn wait(&self, id: MoveId) -> Duration {
        self.with(id, |pace| pace.due.saturating_duration_since(Instant::now()))
    }

    /// The move has ended.
    pub(crate) fn forget(&self, id: MoveId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    fn with<T>(&self, id: MoveId, work: impl FnOnce(&mut Pace) -> T) -> T {
        let mut paces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        work(paces.entry(id).or_insert_with(|| Pace {
            batch: None,
            due: Instant::now(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const ID: MoveId = MoveId(Uuid::from_u128(1));

    const MAX: Duration = Duration::from_millis(100);

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn batch(rows: u64, steps: u64, compared: u64) -> Batch {
        Batch {
            rows,
            pause: ms(steps + compared),
            compared: ms(compared),
        }
    }

    #[test]
    fn a_batch_that_ran_into_its_deadline_is_halved_down_to_one_row() {
        let pacing = Pacing::default();
        for rows in [1_000, 500, 250, 125] {
            assert_eq!(pacing.batch(ID, 0), rows);
            pacing.expired(ID);
        }
        for _ in 0..20 {
            pacing.expired(ID);
        }
        assert_eq!(pacing.batch(ID, 0), 1);
        pacing.succeeded(ID, &batch(1, 4, 1), MAX);
        assert_eq!(pacing.batch(ID, 0), 2, "there is a way up again");
    }

    #[test]
    fn batches_come_to_take_half_of_the_longest_pause_and_stay_there() {
        let pacing = Pacing::default();
        // 10 ms, and 20 us a row: half of the longest pause is 2,000 rows.
        for round in 0..50 {
            let rows = pacing.batch(ID, 0);
            let compared = Duration::from_micros(20) * rows;
            let pause = ms(10) + compared;
            assert!(pause <= ms(55), "{pause:?} in round {round}");
            let rows = rows.into();
            pacing.succeeded(ID, &Batch { rows, pause, compared }, MAX);
        }
        assert!(
            (1_900..=2_100).contains(&pacing.batch(ID, 0)),
            "{}",
            pacing.batch(ID, 0)
        );
    }

    #[test]
    fn a_batch_shrinks_quickly_and_grows_slowly() {
        let pacing = Pacing::default();
        pacing.succeeded(ID, &batch(1_000, 20, 60), MAX);
        assert_eq!(pacing.batch(ID, 0), 500);
        pacing.succeeded(ID, &batch(500, 4, 1), MAX);
        assert_eq!(pacing.batch(ID, 0), 625);
        pacing.succeeded(ID, &batch(20, 4, 1), MAX);
        assert_eq!(pacing.batch(ID, 0), 625, "a small range says nothing");
        for _ in 0..20 {
            pacing.succeeded(ID, &batch(4_000, 4, 1), MAX);
        }
        assert_eq!(pacing.batch(ID, 0), LARGEST_BATCH);
        for _ in 0..20 {
            pacing.succeeded(ID, &batch(4_000, 4, 95), MAX);
        }
        assert_eq!(pacing.batch(ID, 0), FEW_ROWS);
    }

    #[test]
    fn a_pause_that_is_not_for_its_rows_leaves_a_batch_as_large_as_is_quickly_compared() {
        let pacing = Pacing::default();
        // 90 ms, and 25 us a row: an eighth of the longest pause is 500 rows.
        for _ in 0..50 {
            let rows = pacing.batch(ID, 0);
            let compared = Duration::from_micros(25) * rows;
            let pause = ms(90) + compared;
            let rows = rows.into();
            pacing.succeeded(ID, &Batch { rows, pause, compared }, MAX);
        }
        assert!((480..=520).contains(&pacing.batch(ID, 0)), "{}", pacing.batch(ID, 0));
    }

    #[test]
    fn a_new_operator_goes_on_with_the_size_that_the_database_tells() {
        assert_eq!(Pacing::default().batch(ID, 3), 125);
        assert_eq!(Pacing::default().batch(ID, 40), 1);
    }

    #[test]
    fn rows_wait_for_their_time_only_where_there_is_a_limit() {
        let pacing = Pacing::default();
        pacing.spent(ID, 1_000, None);
        assert_eq!(pacing.wait(ID), Duration::ZERO);
        pacing.spent(ID, 1_000, NonZeroU64::new(100));
        let wait = pacing.wait(ID);
        assert!(
            wait > Duration::from_secs(9) && wait <= Duration::from_secs(10),
            "{wait:?}"
        );
        pacing.forget(ID);
        assert_eq!(pacing.wait(ID), Duration::ZERO);
    }
}
