//! The consistent-hash ring: which shard owns which position, and how that changes with as few moves as can be.
//!
//! Pure: no I/O, no clock, no randomness. The same input gives the same ring on every machine.
//!
//! - [`Tokens`] say who owns what. A token owns the positions after the token before it, up to and including itself.
//! - [`plan`] finds the tokens for a set of shards and weights, starting from the tokens there are.
//! - [`Ring`] is tokens, shards and an [`Epoch`]: what the programs look keys up in.
//! - [`encode`] and [`decode`] carry a ring through a ConfigMap; a damaged encoding is refused.

mod counters;
mod encoding;
mod plan;
mod range;
mod ring;
mod shard;
mod token;

pub use counters::{Epoch, Generation};
pub use encoding::{DecodeError, EncodedRing, FORMAT, decode, encode};
pub use plan::{MAX_SHARDS, PlanError, Weight, plan};
pub use range::Range;
pub use ring::{Ring, RingError};
pub use row_id::{POSITIONS, Position};
pub use shard::{Ordinal, Shard, ShardState};
pub use token::{MAX_TOKENS, Move, Token, Tokens, TokensError};
