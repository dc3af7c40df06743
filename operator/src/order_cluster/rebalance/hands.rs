//! What a mover can do in the databases: an interface, so that everything above it can be tested without any.

use std::{fmt::Debug, num::NonZeroU64, time::Duration};

use async_trait::async_trait;
use moves::{MoveId, ShardView, Step};
use store::{admin::AdminError, moves::MoveError};

use crate::order_cluster::masters::{ConnectError, Keeper};

/// The databases of a cluster's shards, as far as moves are concerned.
#[async_trait]
pub(crate) trait Hands: Debug + Send + Sync {
    /// Everything a shard's master says of ranges and moves.
    async fn observe(&self, shard: &Keeper) -> Result<ShardView, Fault>;

    /// What has to be known of a shard before anything moves from or to it.
    async fn survey(&self, shard: &Keeper) -> Result<Survey, Fault>;

    /// What keeps a leaving shard from going, in words; `None`: it holds nothing.
    async fn holdings(&self, shard: &Keeper) -> Result<Option<String>, Fault>;

    /// Does one step, or as much of it as the job's budget of time allows.
    async fn carry_out(&self, job: &Job) -> Result<Done, Fault>;

    /// Nothing is to be done for a while with these shards.
    fn rest(&self, _shards: &[&Keeper]) {}
}

/// A step with all that it takes to do it.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) step: Step,
    /// The shard that gives; of a step at one shard, that one.
    pub(crate) source: Keeper,
    /// The shard that takes; of a step at one shard, that one.
    pub(crate) target: Keeper,
    pub(crate) limits: Limits,
}

/// How much a job may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// The longest freeze of a batch.
    pub(crate) max_pause: Duration,
    /// After this time no further batch is begun.
    pub(crate) budget: Duration,
    /// Rows in a second; `None` is without limit.
    pub(crate) rows_per_second: Option<NonZeroU64>,
    /// How often in a row the move's freezes have run into their deadline.
    pub(crate) expired_freezes: u32,
}

/// What a shard's database says of itself before a move.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Survey {
    /// Size of the database.
    pub(crate) bytes: u64,
    /// Rows of all moved tables, as Postgres estimates them.
    pub(crate) rows: u64,
    /// Rows whose position lies in no range that may hold data here, in words.
    pub(crate) outside: Option<String>,
}

/// What a job came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// It is done, and there is nothing to say about it; or there was nothing to do.
    Nothing,
    /// A move was written down.
    Begun(MoveId),
    /// Its copy runs.
    Copying,
    /// Postgres copies, and nothing is to be done meanwhile.
    Awaiting,
    /// Its copy runs again, after an error of the subscription.
    Resumed,
    /// Batches changed hands.
    HandedOver(HandedOver),
    /// Ranges were undone; others had passed their commit point and were rolled forward.
    Aborted { undone: u64, rolled_forward: u64 },
    /// Rows were deleted where they do not belong any more.
    Cleaned { rows: u64 },
    /// It could not be done yet, and why; it is tried again.
    NotYet(String),
}

impl Done {
    /// Why nothing was done, if nothing was.
    pub(crate) fn waits(&self) -> Option<&str> {
        match self {
            Self::NotYet(why) => Some(why),
            Self::HandedOver(handed) if handed.batches.is_empty() && handed.expired.is_empty() => {
                handed.held_up.as_deref()
            }
            _ => None,
        }
    }
}

/// Batches of one move.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HandedOver {
    pub(crate) batches: Vec<Batch>,
    /// Freezes that ran into their deadline: for how long each held writers up.
    pub(crate) expired: Vec<Duration>,
    /// Why it did not go on to the end of its range, unless that was the budget.
    pub(crate) held_up: Option<String>,
}

/// A batch that changed hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) rows: u64,
    /// For how long nobody could write to it.
    pub(crate) pause: Duration,
    /// How much of that it took to compare the rows.
    pub(crate) compared: Duration,
}

/// Why a shard could not be asked, or a job not done. It is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("could not reach shard {shard}")]
    Unreachable {
        shard: String,
        #[source]
        source: Box<ConnectError>,
    },
    #[error("shard {shard} did not answer within {} s", .after.as_secs())]
    Silent { shard: String, after: Duration },
    #[error(transparent)]
    Step(#[from] MoveError),
    #[error(transparent)]
    Survey(Box<AdminError>),
}

impl From<AdminError> for Fault {
    fn from(error: AdminError) -> Self {
        Self::Survey(Box::new(error))
    }
}
