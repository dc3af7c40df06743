//! What can be done next.

use std::collections::{BTreeMap, BTreeSet};

use ring::{Generation, Ordinal, PlanError, Range, Weight};
use serde::Serialize;

use crate::{Attempt, Gap, MoveId, Timeline};

/// A move whose freezes ran into their deadline this often in a row is undone. The batch is halved each time, so that by
/// then a single position has been tried, and more than once.
pub const MAX_EXPIRED_FREEZES: u32 = 16;

/// A subscription that was switched on again this often, and no batch has changed hands since, is given up with its move:
/// what it meets does not pass by itself.
pub const MAX_RESUMES: u32 = 8;

/// How many moves a shard takes part in at the same time, as source or target, however many there may be in all: each takes
/// up to five replication slots at its source and five workers at its target while it copies tables.
pub const MAX_MOVES_OF_A_SHARD: usize = 4;

/// What shall be so, by the resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// All shards there are, also those that shall own nothing. As long as one of them has not been looked at, nothing is
    /// swept up, deleted or begun: what is known of a move stands in the database of its target alone.
    pub shards: BTreeSet<Ordinal>,
    /// The shards that shall own keys, and how much each.
    pub may_own: BTreeMap<Ordinal, Weight>,
    /// How many moves copy at the same time; at least 1.
    pub max_parallel: usize,
    /// Moves that copy are finished; none is begun.
    pub paused: bool,
    /// What has not changed hands yet stays where it is; none is begun.
    pub abort: bool,
    /// Shards whose masters answer no commit without a standby. There a subscription must never be mistaken for one, so
    /// their slots are failover slots: these hand a change out only after the standbys have it.
    pub strict: BTreeSet<Ordinal>,
}

/// The next things to do; they do not depend on each other, so they may be done at the same time and in any order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// What to do.
    pub steps: Vec<Step>,
    /// What cannot be done, and why.
    pub blocked: Vec<Blocked>,
}

impl Steps {
    /// Whether there is nothing left to do: the ring is as wished (or the rebalance is held), and no move left anything
    /// behind.
    pub fn is_done(&self) -> bool {
        self.steps.is_empty() && self.blocked.is_empty()
    }
}

/// One thing to do. Each may be done twice, or by two operators at once, without harm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Step {
    /// Write a move down at its target, under an id that is made for it: `begin_import`. No copy begins while one of a
    /// plan's moves has not been written down.
    ///
    /// First `confirm` at the source, in the session in which its book was read: it may be `owned` there by an activation
    /// that a failover can still take back, and the target, cleaned, would be what proves it.
    Begin {
        /// Where the keys are.
        source: Ordinal,
        /// Where they go.
        target: Ordinal,
        /// The ranges, cut so that each has one generation and one attempt.
        ranges: Vec<ImportRange>,
    },
    /// Set the replication of a move up, whatever of it is there: publication at the source; `source_term` at the target
    /// (durable); slot at the source; subscription at the target; last of all the state `copying`.
    Copy {
        /// The move.
        move_id: MoveId,
        /// Where the publication and the slot are.
        source: Ordinal,
        /// Where the subscription is.
        target: Ordinal,
        /// The timeline of the source that was seen; if another one is found while the slot is made, look again.
        source_term: Timeline,
        /// Whether the slot has to be a failover slot: see [`Wish::strict`].
        failover: bool,
        /// All ranges of the move: the row filter.
        ranges: Vec<Range>,
    },
    /// Wait until every table has been copied, and see whether that can still come: `lost_table`.
    AwaitCopy {
        /// The move.
        move_id: MoveId,
        /// Where the keys are.
        source: Ordinal,
        /// Where they go.
        target: Ordinal,
    },
    /// The subscription met an error and switched itself off; slot, publication and source are as they were, so nothing is
    /// lost: switch it on again, `resume_copy`. It goes on from where it was, and a table whose first copy had not ended is
    /// copied anew. Each time is counted at the target, and waits longer than the last.
    Resume {
        /// The move.
        move_id: MoveId,
        /// Where the slot is.
        source: Ordinal,
        /// Where the subscription is.
        target: Ordinal,
        /// The timeline of the slot; if the source is on another one, look again.
        source_term: Timeline,
    },
    /// Cut one `owned` row of the source's book at these positions, so that rows and moves have the same edges:
    /// `split_range`.
    Split {
        /// The source.
        shard: Ordinal,
        /// The row.
        range: Range,
        /// Positions within it, ascending.
        cuts: Vec<u64>,
    },
    /// Hand over the beginning of a range, as many rows as one batch may have. `range` is one row of the source's book
    /// within one row of the target's.
    HandOver {
        /// The move.
        move_id: MoveId,
        /// Where the keys are.
        source: Ordinal,
        /// Where they go.
        target: Ordinal,
        /// What is left of the row. While `frozen`, exactly the batch that is under way.
        range: Range,
        /// Whether somebody has frozen it already for this move: go on with that batch, do not cut it.
        frozen: bool,
    },
    /// The source has given the range away and the target has not taken it: activate, by what the source says.
    RollForward {
        /// The move.
        move_id: MoveId,
        /// Who gave it.
        source: Ordinal,
        /// Who has to take it.
        target: Ordinal,
        /// One row of the source's book.
        range: Range,
    },
    /// Undo what has not changed hands: first the state `aborting` (durable), then each range.
    Abort {
        /// The move.
        move_id: MoveId,
        /// Where the keys stay.
        source: Ordinal,
        /// What must not import them any more.
        target: Ordinal,
        /// Rows of the target's book. At the source each may be several rows, or a part of one.
        ranges: Vec<Range>,
        /// Why.
        why: Why,
    },
    /// No rebalance holds this freeze any more: the target does not import the range. Make it `owned` again, now.
    Thaw {
        /// The shard that owns the range.
        shard: Ordinal,
        /// The move that froze it.
        move_id: MoveId,
        /// One row of the shard's book.
        range: Range,
        /// The attempt of the freeze.
        attempt: Attempt,
    },
    /// Every range of the move has its owner: drop the subscription, then the slot, then the publication, and at the end
    /// the row of `copies`. What is not there is fine.
    DropReplication {
        /// The move.
        move_id: MoveId,
        /// Where publication and slot are.
        source: Ordinal,
        /// Where the subscription is.
        target: Ordinal,
    },
    /// Delete the rows of a range this shard does not own any more, then `mark_cleaned`.
    Clean {
        /// The shard: the source of a move, or the target of one that was undone.
        shard: Ordinal,
        /// The move.
        move_id: MoveId,
        /// One row of the shard's book.
        range: Range,
    },
    /// Drop what no move knows: its subscription first.
    Sweep {
        /// The shard.
        shard: Ordinal,
        /// Subscriptions here.
        subscriptions: Vec<MoveId>,
        /// Slots here.
        slots: Vec<MoveId>,
        /// Publications here.
        publications: Vec<MoveId>,
    },
    /// Neighbouring rows of the shard's book can be one: `merge_ranges`.
    Merge {
        /// The shard.
        shard: Ordinal,
    },
}

/// A range as `begin_import` writes it down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ImportRange {
    /// The positions.
    pub range: Range,
    /// The source's generation.
    pub generation: Generation,
    /// The source's attempt.
    pub attempt: Attempt,
}

/// Why a move is undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "reason", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Why {
    /// Somebody has decided so before, and written it down.
    #[error("{}", .last_error.as_deref().unwrap_or("it was given up"))]
    Decided {
        /// What was written down.
        last_error: Option<String>,
    },
    /// The resource asks for it.
    #[error("the rebalance was aborted by request")]
    Requested,
    /// The specification has changed: the target is to give its keys up.
    #[error("shard {target} shall not own keys any more")]
    TargetLeaves {
        /// The target.
        target: Ordinal,
    },
    /// The source has another master: the slot was the old one's.
    #[error("shard {source_shard} has failed over (timeline {was}, now {now}), so the copy may lack rows")]
    SourceFailedOver {
        /// The source.
        source_shard: Ordinal,
        /// When the slot was made.
        was: Timeline,
        /// Now.
        now: Timeline,
    },
    /// Something that the copy rests on is gone.
    #[error("the {what} of the move is missing, so the copy may lack rows")]
    Missing {
        /// Publication, slot or subscription.
        what: &'static str,
    },
    /// The source has come to accept no write without a standby, and the slot is from before.
    #[error(
        "shard {source_shard} accepts no write without a standby any more, and the slot of the move hands changes out before the standbys have them"
    )]
    HandsOutEarly {
        /// The source.
        source_shard: Ordinal,
    },
    /// The source does not keep the log any longer.
    #[error(
        "the source keeps no more log for the slot (max_slot_wal_keep_size): the copy is slower than the source's writes"
    )]
    LogLost,
    /// The subscription met an error and switched itself off, again and again.
    #[error("the subscription met an error and stopped, after it had been switched on again {resumes} times; the target's log tells the error{}", .last_error.as_ref().map(|error| format!(" ({error})")).unwrap_or_default())]
    SubscriptionFailed {
        /// How often it was switched on again since a batch last changed hands.
        resumes: u32,
        /// What the operator knows of it.
        last_error: Option<String>,
    },
    /// Its freezes ran into their deadline, one after the other.
    #[error("{freezes} freezes in a row ran into their deadline")]
    FreezesExpire {
        /// How many.
        freezes: u32,
    },
    /// Two operators planned at the same time, from different specifications: a range can go to one shard only.
    #[error("move {with} takes the same keys to another shard")]
    Conflict {
        /// The move that stays.
        with: MoveId,
    },
    /// The source does not own the range, nor has it given it away by this move.
    #[error("shard {source_shard} does not own what it is asked for")]
    NotTheOwner {
        /// The source.
        source_shard: Ordinal,
    },
}

/// Why something cannot be done now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Blocked {
    /// Nobody knows who owns some positions: nothing is deleted, and nothing new is planned.
    #[error(transparent)]
    Truth(#[from] Gap),
    /// There is no plan for these shards and weights.
    #[error("the ring cannot be planned")]
    Plan(#[from] PlanError),
    /// A shard is needed that was not looked at.
    #[error("shard {needed} takes part in a move, and is not among the shards that were read")]
    NotObserved {
        /// The shard.
        needed: Ordinal,
    },
}
