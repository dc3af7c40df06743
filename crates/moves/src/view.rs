//! What one shard's database says about moves. Plain data; `store::moves::observe` fills it.

use ring::Ordinal;
use serde::{Deserialize, Serialize};

use crate::{MoveId, RangeRow, Timeline};

/// Everything a shard's master says about moves, read in one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardView {
    /// The shard.
    pub ordinal: Ordinal,
    /// The timeline of the master that was asked.
    pub term: Timeline,
    /// Its book of ranges, in the order of `lo`.
    pub rows: Vec<RangeRow>,
    /// Rows of `ringwright.copies`: the moves this shard is the target of.
    pub copies: Vec<CopyRow>,
    /// Replication slots of moves: this shard is their source.
    pub slots: Vec<SlotRow>,
    /// Subscriptions of moves: this shard is their target.
    pub subscriptions: Vec<SubscriptionRow>,
    /// Publications of moves: this shard is their source.
    pub publications: Vec<MoveId>,
}

/// A row of `ringwright.copies`, at the target: a move from its beginning until its replication is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyRow {
    /// The move.
    pub move_id: MoveId,
    /// The shard it copies from.
    pub source: Ordinal,
    /// The source's timeline, written down just before the slot is made; none before that.
    pub source_term: Option<Timeline>,
    /// How far it is.
    pub state: CopyState,
    /// How many freezes in a row ran into their deadline; back to 0 when a batch has changed hands.
    pub expired_freezes: u32,
    /// How often its subscription was switched on again after an error; back to 0 when a batch has changed hands. The most
    /// there is where the database cannot count it yet: then the first error ends the copy.
    pub resumes: u32,
    /// What went wrong last, in words.
    pub last_error: Option<String>,
}

/// How far a move is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CopyState {
    /// Its replication is not complete: not begun, or begun by somebody who did not get to the end.
    Waiting,
    /// Publication, slot and subscription are there. From here on, one that is missing makes the copy void.
    Copying,
    /// It is being undone. There is no way back from this.
    Aborting,
}

/// A replication slot of a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotRow {
    /// The move.
    pub move_id: MoveId,
    /// Whether somebody streams from it.
    pub active: bool,
    /// Whether the log it needs is there.
    pub wal_status: WalStatus,
    /// Whether Postgres has given it up (`invalidation_reason` is not null).
    pub invalidated: bool,
    /// Whether it hands a change out only after the source's standbys have it.
    pub failover: bool,
}

/// `pg_replication_slots.wal_status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WalStatus {
    /// All within `max_wal_size`.
    Reserved,
    /// More than `max_wal_size`, kept for the slot.
    Extended,
    /// About to be removed: past `max_slot_wal_keep_size`.
    Unreserved,
    /// Removed.
    Lost,
}

/// A subscription of a move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionRow {
    /// The move.
    pub move_id: MoveId,
    /// Whether it runs: it switches itself off at the first error.
    pub enabled: bool,
    /// Its tables, and how far each is.
    pub tables: Vec<TableCopy>,
    /// Errors of its workers so far (`pg_stat_subscription_stats`).
    pub errors: i64,
}

impl SubscriptionRow {
    /// Whether every table has been copied, and follows the source.
    pub fn is_ready(&self) -> bool {
        !self.tables.is_empty() && self.tables.iter().all(|table| table.ready)
    }
}

/// One table of a subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableCopy {
    /// Its name with the schema.
    pub table: String,
    /// Whether its copy is complete and it follows the source (`srsubstate` is `r`).
    pub ready: bool,
}
