use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use row_id::{POSITIONS, Position};

use crate::{Ordinal, Range};

/// How many tokens a ring may have: 480 kB packed, which leaves room in a ConfigMap for the list of 1,000 shards.
/// Plans for 1,000 shards have about 64,000, and up to 70,000 after many changes of very unequal weights.
pub const MAX_TOKENS: usize = 80_000;

/// The owner of the positions after the previous token, up to and including its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token {
    /// The last position it owns.
    pub position: Position,
    /// The shard it belongs to.
    pub ordinal: Ordinal,
}

impl Hash for Token {
    /// A token hashes to its position alone: that is its place in the look-up.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.position.hash(state);
    }
}

/// Who owns what: tokens in the order of their positions, no two at one position, and no two neighbours of one shard
/// (they would be one token). Every position has exactly one owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens(Vec<Token>);

/// Why tokens or ranges do not say exactly once who owns each position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokensError {
    /// There are none.
    #[error("there are no tokens, so nobody owns anything")]
    Empty,
    /// More than a ring may have.
    #[error("there are {0} tokens, a ring may have {MAX_TOKENS}")]
    TooMany(usize),
    /// Two tokens at one position: who owns the positions before them would be undefined.
    #[error("two tokens have the position {0}")]
    Duplicate(Position),
    /// A token at a lower position than the one before it.
    #[error("the token at {0} comes after one with a higher position")]
    Unsorted(Position),
    /// A token followed by one of the same shard: the two are one.
    #[error("the token at {0} is followed by one of the same shard; both must be merged into one")]
    Unmerged(Position),
    /// Not a range of positions.
    #[error("shard {ordinal} says it owns {range}, which is no range within the ring")]
    Invalid {
        /// Who said so.
        ordinal: Ordinal,
        /// What it said.
        range: Range,
    },
    /// Positions that nobody owns.
    #[error("no shard owns {0}")]
    Gap(Range),
    /// Positions that are owned twice.
    #[error("both shard {first} and shard {second} own {range}")]
    Overlap {
        /// What both own.
        range: Range,
        /// The owner whose range begins first.
        first: Ordinal,
        /// The other owner.
        second: Ordinal,
    },
}

/// A range that changes hands between two states of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// What moves.
    pub range: Range,
    /// Its owner before.
    pub from: Ordinal,
    /// Its owner after.
    pub to: Ordinal,
}

impl Tokens {
    /// Takes tokens that are already sorted and merged, as an encoded ring has them.
    ///
    /// # Errors
    /// If they are none, too many, or not in the one form in which tokens are written.
    pub fn new(tokens: Vec<Token>) -> Result<Self, TokensError> {
        let first = tokens.first().ok_or(TokensError::Empty)?;
        if tokens.len() > MAX_TOKENS {
            return Err(TokensError::TooMany(tokens.len()));
        }
        for (token, next) in tokens.iter().zip(&tokens[1..]) {
            if token.position == next.position {
                return Err(TokensError::Duplicate(token.position));
            }
            if token.position > next.position {
                return Err(TokensError::Unsorted(next.position));
            }
            if token.ordinal == next.ordinal {
                return Err(TokensError::Unmerged(token.position));
            }
        }
        match &tokens[..] {
            [_, .., last] if last.ordinal == first.ordinal => Err(TokensError::Unmerged(last.position)),
            _ => Ok(Self(tokens)),
        }
    }

    /// Builds the tokens from what the shards say they own, in any order.
    ///
    /// # Errors
    /// If a position has no owner, or two; the error names the lowest such range.
    pub fn from_ranges(ranges: impl IntoIterator<Item = (Range, Ordinal)>) -> Result<Self, TokensError> {
        let mut ranges: Vec<(Range, Ordinal)> = ranges.into_iter().collect();
        if let Some(&(range, ordinal)) = ranges.iter().find(|(range, _)| !range.is_valid()) {
            return Err(TokensError::Invalid { ordinal, range });
        }
        ranges.sort_unstable();
        let mut tokens = Vec::with_capacity(ranges.len());
        let mut covered = 0;
        let mut last = None;
        for (range, ordinal) in ranges {
            if range.lo > covered {
                return Err(TokensError::Gap(Range {
                    lo: covered,
                    hi: range.lo,
                }));
            }
            if let Some(first) = last
                && range.lo < covered
            {
                let range = Range {
                    lo: range.lo,
                    hi: covered.min(range.hi),
                };
                return Err(TokensError::Overlap {
                    range,
                    first,
                    second: ordinal,
                });
            }
            tokens.push(Token {
                position: Position::new((range.hi - 1) as u32),
                ordinal,
            });
            (covered, last) = (range.hi, Some(ordinal));
        }
        if covered < POSITIONS {
            return Err(TokensError::Gap(Range {
                lo: covered,
                hi: POSITIONS,
            }));
        }
        Self::new(merge(tokens))
    }

    /// The tokens in the order of their positions.
    pub fn as_slice(&self) -> &[Token] {
        &self.0
    }

    /// The ranges in their order, from 0 to 2^32; the arc over zero is two of them.
    pub fn ranges(&self) -> Vec<(Range, Ordinal)> {
        let mut ranges = Vec::with_capacity(self.0.len() + 1);
        let mut lo = 0;
        for token in &self.0 {
            let hi = u64::from(token.position.get()) + 1;
            ranges.push((Range { lo, hi }, token.ordinal));
            lo = hi;
        }
        if lo < POSITIONS {
            let over_zero = self.0[0].ordinal;
            match ranges.len() {
                1 => ranges = vec![(Range::ALL, over_zero)],
                _ => ranges.push((Range { lo, hi: POSITIONS }, over_zero)),
            }
        }
        ranges
    }

    /// How many positions each shard owns; a shard without any is not listed.
    pub fn shares(&self) -> BTreeMap<Ordinal, u64> {
        let mut shares = BTreeMap::new();
        for (range, ordinal) in self.ranges() {
            *shares.entry(ordinal).or_default() += range.len();
        }
        shares
    }

    /// What must move to get from these tokens to `next`, in the order of positions.
    pub fn moves_to(&self, next: &Self) -> Vec<Move> {
        let (before, after) = (self.ranges(), next.ranges());
        let (mut before, mut after) = (before.iter().peekable(), after.iter().peekable());
        let mut moves: Vec<Move> = Vec::new();
        let mut lo = 0;
        while let (Some(&&(old, from)), Some(&&(new, to))) = (before.peek(), after.peek()) {
            let hi = old.hi.min(new.hi);
            if from != to {
                match moves.last_mut() {
                    Some(last) if last.range.hi == lo && (last.from, last.to) == (from, to) => last.range.hi = hi,
                    _ => moves.push(Move {
                        range: Range { lo, hi },
                        from,
                        to,
                    }),
                }
            }
            before.next_if(|(range, _)| range.hi == hi);
            after.next_if(|(range, _)| range.hi == hi);
            lo = hi;
        }
        moves
    }
}

/// Merges neighbours of one shard, also over zero, in tokens that cover the ring to 2^32.
fn merge(mut tokens: Vec<Token>) -> Vec<Token> {
    // Of two neighbours the later one owns what both owned.
    let mut merged: Vec<Token> = Vec::with_capacity(tokens.len());
    for token in tokens.drain(..) {
        match merged.last_mut() {
            Some(last) if last.ordinal == token.ordinal => *last = token,
            _ => merged.push(token),
        }
    }
    if let [first, .., last] = &merged[..]
        && first.ordinal == last.ordinal
    {
        merged.pop();
    }
    merged
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
