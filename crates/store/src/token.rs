//! Read tokens: what a client sends back so that it never sees less than it has seen.

use std::fmt;
use std::str::FromStr;

use ring::{Generation, Ordinal};

/// A position in a shard's write-ahead log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

/// Postgres' timeline: it grows by each promotion, so it is the term of a master.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u32);

/// What an answer covered: everything up to `lsn` of `term` on `shard`, for ranges of at most `generation`.
///
/// Its text form is opaque to clients and carries a checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReadToken {
    /// The shard that answered.
    pub shard: Ordinal,
    /// The term of the master whose log `lsn` counts.
    pub term: Term,
    /// The position in that log.
    pub lsn: Lsn,
    /// The generation of the range read or written; of several, the highest.
    pub generation: Generation,
}

/// The tokens a client holds, at most one a shard (the newest of each is kept). Text form: tokens joined by `.`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadTokens {
    tokens: Vec<ReadToken>,
}

impl ReadTokens {
    /// Most tokens one client may send.
    pub const LIMIT: usize = 64;

    /// Adds a token; of two for one shard the newer (term, then position) stays, with the higher generation of both.
    pub fn add(&mut self, token: ReadToken) {
        let _ = token;
        unimplemented!()
    }

    /// All tokens held.
    pub fn as_slice(&self) -> &[ReadToken] {
        &self.tokens
    }
}

impl fmt::Display for ReadToken {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        unimplemented!()
    }
}

impl FromStr for ReadToken {
    type Err = TokenError;

    fn from_str(_text: &str) -> Result<Self, TokenError> {
        unimplemented!()
    }
}

impl fmt::Display for ReadTokens {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        unimplemented!()
    }
}

impl FromStr for ReadTokens {
    type Err = TokenError;

    fn from_str(_text: &str) -> Result<Self, TokenError> {
        unimplemented!()
    }
}

/// Why a token was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not of the form this version writes.
    #[error("the read token is malformed: send back a token exactly as an answer gave it, or none")]
    Malformed,
    /// Its checksum does not fit.
    #[error("the read token's checksum is wrong: send back a token exactly as an answer gave it, or none")]
    Checksum,
    /// More than [`ReadTokens::LIMIT`].
    #[error("{found} read tokens were sent, at most {limit} are taken: send back only what the last answers gave", limit = ReadTokens::LIMIT)]
    TooMany {
        /// How many came.
        found: usize,
    },
}
