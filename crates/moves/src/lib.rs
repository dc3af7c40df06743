//! Moving keys between shards: what is to move, and what is the next thing to do about it.
//!
//! Pure: no I/O, no clock, no randomness. The record of a move is in the databases of its two shards; an operator reads
//! all of them into [`ShardView`]s, asks [`next_steps`], does what it says, and looks again. So it never matters who began
//! a move, nor whether he is still there.
//!
//! - [`plan`] compares the ring there is with the ring that is wanted: the moves, pair by pair. The plan can be printed,
//!   and is what is executed.
//! - [`truth`] says which shard owns what while moves are under way.
//! - [`next_steps`] says what to do next, for every state the databases can be in.
//!
//! `docs/moving-keys.md` explains the protocol whose steps these are.

mod leftovers;
mod next;
mod pair;
mod plan;
mod row;
mod steps;
mod summary;
mod truth;
mod view;

pub use next::next_steps;
pub use plan::{PairMove, RebalancePlan, plan};
pub use ring::PlanError;
pub use row::{Attempt, MoveId, NotAMoveName, RangeRow, RangeState, Timeline};
pub use steps::{Blocked, ImportRange, MAX_EXPIRED_FREEZES, MAX_MOVES_OF_A_SHARD, MAX_RESUMES, Step, Steps, Why, Wish};
pub use summary::{Share, Summary, summary};
pub use truth::{Gap, truth};
pub use view::{CopyRow, CopyState, ShardView, SlotRow, SubscriptionRow, TableCopy, WalStatus};
