//! A model of how one range of keys changes hands between two shards, and a search through every state it can come to.
//!
//! What is modelled, and as small as it can be: two shards, each a master and the standby that would be promoted; one move
//! at a time over a logical replication stream; two operators, each of which may be stopped anywhere and go on much later
//! with what it knew then, and which do what a router does too (finish a hand-over it has met, thaw what has expired);
//! clients that insert and delete rows. At every point a commit may be visible and not flushed at the standby, a shard may
//! fail over and lose what was not, and the stream may lag.
//!
//! What is checked ([`State::violation`]) in every state: no two owners; what a target owns its source has given away; every
//! acknowledged write is there. And on the graph of all states ([`search`]): from each of them the range can become writable
//! again, and the move can come to an end with nothing left over.
//!
//! Each rule of the protocol is a switch ([`Rules`]). With one off, or two, the search has to find the damage: this is how
//! we know that it would see it.
//!
//! `docs/moving-keys.md` explains the protocol in the same order and the same words.

mod clients;
mod operator;
mod protocol;
mod search;
mod state;

pub use protocol::{Bounds, Model, Rules};
pub use search::{Outcome, search};
pub use state::{Book, Hold, Item, Node, State, Stream};
