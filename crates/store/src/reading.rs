//! How a read is asked for and answered.

use std::time::Duration;

use crate::config::ReadRace;
use crate::token::{ReadToken, ReadTokens};

/// What a read must see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Consistency {
    /// Everything these tokens cover; master or replica, whichever answers first.
    Session(ReadTokens),
    /// The newest acknowledged write. Answered by the master of the newest term this process knows.
    ///
    /// Not there yet: the lease of design "strong reads" (`StrongProof::Lease` is reserved for it). Until then a
    /// strong read makes a synchronous commit in its session after the read, which proves that the master was still
    /// acknowledged by its standby, at the cost of one round trip.
    Strong,
}

/// How one read is to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadAt {
    /// What it must see.
    pub consistency: Consistency,
    /// How master and replica are raced; `None` takes the configured default.
    pub race: Option<ReadRace>,
    /// Longest staleness without a token; `None` takes the configured default.
    pub max_staleness: Option<Duration>,
}

impl ReadAt {
    /// A session read with the tokens the client sent.
    pub fn session(tokens: ReadTokens) -> Self {
        Self {
            consistency: Consistency::Session(tokens),
            race: None,
            max_staleness: None,
        }
    }

    /// A strong read.
    pub fn strong() -> Self {
        Self {
            consistency: Consistency::Strong,
            race: None,
            max_staleness: None,
        }
    }
}

impl Default for ReadAt {
    fn default() -> Self {
        Self::session(ReadTokens::default())
    }
}

/// A value and the token of the state it was read from or written into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<T> {
    /// What was read.
    pub value: T,
    /// What the client sends back to see at least this.
    pub token: ReadToken,
}
