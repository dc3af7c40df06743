//! Moves of ranges between two shards: the steps that `docs/moving-keys.md` explains, over the databases of both.
//!
//! * A [`ShardSession`] is a connection to the master of one shard, and knows who else may become master: a step counts
//!   when all of them have it.
//! * Each function of this module is one step, named as the database function behind it; all may be repeated, and
//!   called by two operators at once. [`hand_over`] and [`abort_range`] are the two sequences whose order matters for
//!   safety, so they are here and not with the operator.
//! * [`observe`] reads what a database says about moves, for `moves::next_steps`.
//!
//! What a step does and refuses is decided in SQL, under the range's lock: `migrations/0007_move_steps.sql`.

mod abort;
mod checkpoint;
mod cleaning;
mod copy;
mod error;
mod gate;
mod hand_over;
mod lost_copy;
mod observe;
mod remnants;
mod replication;
mod session;
mod steps;
mod verify;

pub use ::moves::{
    Attempt, CopyRow, CopyState, ImportRange, MoveId, RangeRow, RangeState, ShardView, SlotRow, SubscriptionRow,
    TableCopy, Timeline, WalStatus,
};
pub use abort::{Aborted, abort_range};
pub use cleaning::{clean_rows, mark_cleaned};
pub use copy::{begin_import, copies, forget_copy, note_error, resume_copy, set_copy_state, set_source_term};
pub use error::MoveError;
pub use gate::{Gate, gate};
pub use hand_over::{HandOver, HandOverLimits, hand_over, roll_forward};
pub use lost_copy::lost_table;
pub use observe::{observe, term};
pub use remnants::{Remnant, remnants, rows_outside};
pub use replication::{
    CopyProgress, Publisher, copy_progress, drop_move_slot, drop_publication, drop_replication, drop_subscription,
    ensure_publication, ensure_slot, ensure_subscription,
};
pub use session::{ShardSession, confirm};
pub use steps::{
    Batch, Frozen, activate, commit_move, freeze, leave_import, mark_verified, merge_ranges, next_cut, split_range,
    thaw_now,
};
pub use verify::{PreVerified, Verified, await_marker, pre_verify, verify};

#[cfg(test)]
pub(crate) use checkpoint::{Rule, at_checkpoint, without};
#[cfg(test)]
pub(crate) use gate::catch_up;
