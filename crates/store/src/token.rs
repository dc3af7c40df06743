//! Read tokens: what a client sends back so that it never sees less than it has seen.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::{Generation, Ordinal};
use sha2::{Digest, Sha256};

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
    /// Past [`Self::LIMIT`] shards, the token that was added first goes.
    pub fn add(&mut self, token: ReadToken) {
        if let Some(held) = self.tokens.iter_mut().find(|held| held.shard == token.shard) {
            let generation = held.generation.max(token.generation);
            if (token.term, token.lsn) > (held.term, held.lsn) {
                *held = token;
            }
            held.generation = generation;
            return;
        }
        if self.tokens.len() == Self::LIMIT {
            self.tokens.remove(0);
        }
        self.tokens.push(token);
    }

    /// All tokens held.
    pub fn as_slice(&self) -> &[ReadToken] {
        &self.tokens
    }
}

/// First byte of a token: the version of its layout.
const LAYOUT: u8 = 1;
const CONTENT: usize = 1 + 2 + 4 + 8 + 8;
const CHECKSUM: usize = 4;

impl fmt::Display for ReadToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::with_capacity(CONTENT + CHECKSUM);
        bytes.push(LAYOUT);
        bytes.extend(self.shard.0.to_be_bytes());
        bytes.extend(self.term.0.to_be_bytes());
        bytes.extend(self.lsn.0.to_be_bytes());
        bytes.extend(self.generation.0.to_be_bytes());
        let checksum = checksum(&bytes);
        bytes.extend(checksum);
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for ReadToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Malformed)?;
        let (content, found) = bytes.split_at_checked(CONTENT).ok_or(TokenError::Malformed)?;
        if found.len() != CHECKSUM {
            return Err(TokenError::Malformed);
        }
        if found != checksum(content) {
            return Err(TokenError::Checksum);
        }
        let mut rest = content;
        if take(&mut rest)? != [LAYOUT] {
            return Err(TokenError::Malformed);
        }
        Ok(Self {
            shard: Ordinal(u16::from_be_bytes(take(&mut rest)?)),
            term: Term(u32::from_be_bytes(take(&mut rest)?)),
            lsn: Lsn(u64::from_be_bytes(take(&mut rest)?)),
            generation: Generation(i64::from_be_bytes(take(&mut rest)?)),
        })
    }
}

/// Against slips of copying, not against forgers: a forged token only makes a client's own read staler or slower.
fn checksum(content: &[u8]) -> [u8; CHECKSUM] {
    let digest = Sha256::digest(content);
    [digest[0], digest[1], digest[2], digest[3]]
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], TokenError> {
    let (head, tail) = rest.split_first_chunk().ok_or(TokenError::Malformed)?;
    *rest = tail;
    Ok(*head)
}

impl fmt::Display for ReadTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, token) in self.tokens.iter().enumerate() {
            if index > 0 {
                f.write_str(".")?;
            }
            token.fmt(f)?;
        }
        Ok(())
    }
}

impl FromStr for ReadTokens {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let mut tokens = Self::default();
        if text.is_empty() {
            return Ok(tokens);
        }
        let found = text.split('.').count();
        if found > Self::LIMIT {
            return Err(TokenError::TooMany { found });
        }
        for token in text.split('.') {
            tokens.add(token.parse()?);
        }
        Ok(tokens)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn token(shard: u16, term: u32, lsn: u64, generation: i64) -> ReadToken {
        ReadToken {
            shard: Ordinal(shard),
            term: Term(term),
            lsn: Lsn(lsn),
            generation: Generation(generation),
        }
    }

    #[test]
    fn a_token_is_read_back_from_its_text() {
        for original in [
            token(0, 1, 0, 0),
            token(u16::MAX, u32::MAX, u64::MAX, i64::MAX),
            token(3, 7, 0x1234_5678, 9),
        ] {
            let text = original.to_string();
            assert_eq!(text.len(), 36);
            assert_eq!(text.parse(), Ok(original));
        }
    }

    #[test]
    fn every_changed_character_is_refused() {
        let text = token(3, 7, 0x1234_5678, 9).to_string();
        for index in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(changed.parse::<ReadToken>().is_err(), "{changed}");
        }
        for wrong in [
            "",
            "x",
            "====",
            &text[1..],
            &format!("{text}A"),
            &format!("{text}{text}"),
        ] {
            assert!(wrong.parse::<ReadToken>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn of_two_tokens_of_a_shard_the_newer_stays_with_the_higher_generation() {
        let mut tokens = ReadTokens::default();
        tokens.add(token(1, 2, 50, 9));
        tokens.add(token(1, 2, 40, 1));
        tokens.add(token(2, 1, 1, 1));
        tokens.add(token(1, 3, 10, 1));
        assert_eq!(tokens.as_slice(), [token(1, 3, 10, 9), token(2, 1, 1, 1)]);
        assert_eq!(tokens.to_string().parse(), Ok(tokens));
        assert_eq!("".parse(), Ok(ReadTokens::default()));
    }

    #[test]
    fn too_many_tokens_are_refused() {
        let many: Vec<String> = (0..65).map(|shard| token(shard, 1, 1, 1).to_string()).collect();
        assert_eq!(
            many.join(".").parse::<ReadTokens>(),
            Err(TokenError::TooMany { found: 65 })
        );
    }
}
