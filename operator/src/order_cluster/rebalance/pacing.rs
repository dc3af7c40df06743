//! How much at once, and how fast: sizes of batches, and rows a second. It remembers nothing that counts.

use std::{
    collections::HashMap,
    num::NonZeroU64,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use moves::MoveId;

/// The most rows of a batch.
pub(crate) const LARGEST_BATCH: u32 = 4_000;
/// By how many rows a batch that was made smaller grows again with each success: far slower than it shrinks, for what is
/// too much costs a pause of writes that was for nothing.
const GROWTH: u32 = 250;

/// The paces of all moves.
#[derive(Debug, Default)]
pub(crate) struct Pacing(Mutex<HashMap<MoveId, Pace>>);

#[derive(Debug)]
struct Pace {
    batch: u32,
    /// When the next rows may go.
    due: Instant,
}

impl Pacing {
    /// The most rows of the move's next batch, after so many freezes in a row that ran into their deadline.
    pub(crate) fn batch(&self, id: MoveId, expired_freezes: u32) -> u32 {
        self.with(id, |pace| {
            // What the database remembers counts, where this process knows nothing of it.
            let known = LARGEST_BATCH.checked_shr(expired_freezes).unwrap_or(0).max(1);
            pace.batch = pace.batch.min(known).max(1);
            pace.batch
        })
    }

    /// A batch took too long.
    pub(crate) fn expired(&self, id: MoveId) {
        self.with(id, |pace| pace.batch = (pace.batch / 2).max(1));
    }

    /// A batch changed hands.
    pub(crate) fn succeeded(&self, id: MoveId) {
        self.with(id, |pace| pace.batch = (pace.batch + GROWTH).min(LARGEST_BATCH));
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
            batch: LARGEST_BATCH,
            due: Instant::now(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const ID: MoveId = MoveId(Uuid::from_u128(1));

    #[test]
    fn a_batch_is_halved_down_to_one_row_and_grows_slowly() {
        let pacing = Pacing::default();
        assert_eq!(pacing.batch(ID, 0), 4_000);
        for rows in [2_000, 1_000, 500] {
            pacing.expired(ID);
            assert_eq!(pacing.batch(ID, 0), rows);
        }
        pacing.succeeded(ID);
        assert_eq!(pacing.batch(ID, 0), 750);
        for _ in 0..20 {
            pacing.expired(ID);
        }
        assert_eq!(pacing.batch(ID, 0), 1);
        for _ in 0..20 {
            pacing.succeeded(ID);
        }
        assert_eq!(pacing.batch(ID, 0), 4_000);
    }

    #[test]
    fn a_new_operator_goes_on_with_the_size_that_the_database_tells() {
        assert_eq!(Pacing::default().batch(ID, 3), 500);
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
