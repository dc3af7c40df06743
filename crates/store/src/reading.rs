//! How a read is asked for and answered.

use std::time::Duration;

use crate::config::ReadRace;
use crate::token::{ReadToken, ReadTokens};

/// What a read must see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Consistency {
    /// Everything these tokens cover; master or replica, whichever answers first.
    Session(ReadTokens),
    /// The newest acknowledged write: answered by the master of the newest term this process knows.
    ///
    /// **Not there yet: the lease.** Without it, a master that was cut off a moment ago, and does not know yet that
    /// another was promoted, can answer a strong read for up to 7 seconds with what was true before the promotion. The
    /// lease (the start of this process's last synchronous commit on that master, and a promotion that waits it out)
    /// closes that gap; it changes nothing in this signature.
    ///
    /// Tokens make it no older than a session read would be: a master of an older term than theirs may not answer.
    Strong(ReadTokens),
}

impl Consistency {
    /// Whether only a master may answer.
    pub fn is_strong(&self) -> bool {
        matches!(self, Self::Strong(_))
    }

    /// The client's tokens.
    pub fn tokens(&self) -> &ReadTokens {
        match self {
            Self::Session(tokens) | Self::Strong(tokens) => tokens,
        }
    }
}

/// How one read is to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadAt {
    /// What it must see.
    pub consistency: Consistency,
    /// How master and replica are raced; `None` takes the configured default.
    pub race: Option<ReadRace>,
    /// Longest staleness of a replica's answer; `None` takes the configured default.
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

    /// A strong read of whoever has no token.
    pub fn strong() -> Self {
        Self::strong_after(ReadTokens::default())
    }

    /// A strong read with the tokens the client sent.
    pub fn strong_after(tokens: ReadTokens) -> Self {
        Self {
            consistency: Consistency::Strong(tokens),
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
