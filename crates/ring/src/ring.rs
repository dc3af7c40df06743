use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher};

use hashring::HashRing;
use row_id::Position;

use crate::{Epoch, Ordinal, Range, Shard, Token, Tokens};

/// A published state of the ring: who owns what, and where the owners are.
#[derive(Clone, Debug, PartialEq)]
pub struct Ring {
    epoch: Epoch,
    shards: Vec<Shard>,
    tokens: Tokens,
    lookup: HashRing<Token, ByPosition>,
}

/// Why shards and tokens do not form a ring.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// Two shards have one ordinal.
    #[error("two shards have the ordinal {0}")]
    DuplicateOrdinal(Ordinal),
    /// Two shards have one name.
    #[error("two shards have the name {0}")]
    DuplicateName(String),
    /// A token belongs to a shard that is not listed.
    #[error("the token at {position} belongs to shard {ordinal}, which is not in the list of shards", position = .0.position, ordinal = .0.ordinal)]
    UnknownOwner(Token),
}

impl Ring {
    /// Puts a ring together; shards may come in any order, and may own nothing yet or any more.
    ///
    /// # Errors
    /// If a shard is listed twice, or an owner is not listed.
    pub fn new(epoch: Epoch, mut shards: Vec<Shard>, tokens: Tokens) -> Result<Self, RingError> {
        shards.sort_by_key(|shard| shard.ordinal);
        if let Some(pair) = shards.windows(2).find(|pair| pair[0].ordinal == pair[1].ordinal) {
            return Err(RingError::DuplicateOrdinal(pair[0].ordinal));
        }
        let mut names = BTreeSet::new();
        if let Some(shard) = shards.iter().find(|shard| !names.insert(&shard.name)) {
            return Err(RingError::DuplicateName(shard.name.clone()));
        }
        let listed = |ordinal: &Ordinal| shards.binary_search_by_key(ordinal, |shard| shard.ordinal).is_ok();
        if let Some(token) = tokens.as_slice().iter().find(|token| !listed(&token.ordinal)) {
            return Err(RingError::UnknownOwner(*token));
        }
        let mut lookup = HashRing::with_hasher(ByPosition);
        lookup.batch_add(tokens.as_slice().to_vec());
        Ok(Self {
            epoch,
            shards,
            tokens,
            lookup,
        })
    }

    /// How often this ring was published before.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The shards in the order of their ordinals.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Who owns what, as tokens.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// Who owns what, as ranges in their order.
    pub fn ranges(&self) -> Vec<(Range, Ordinal)> {
        self.tokens.ranges()
    }

    /// The shard with this ordinal, if it is in the ring.
    pub fn shard(&self, ordinal: Ordinal) -> Option<&Shard> {
        let index = self.shards.binary_search_by_key(&ordinal, |shard| shard.ordinal).ok()?;
        Some(&self.shards[index])
    }

    /// The shard that owns a position: that of the nearest token clockwise, the position's own included.
    pub fn locate(&self, position: Position) -> &Shard {
        self.lookup
            .get(&position)
            .and_then(|token| self.shard(token.ordinal))
            .expect("a ring has a token, and lists the owner of each: `new` has checked it")
    }
}

/// "Hashes" a position, or a token by its position, to the position itself: keys were hashed when they got their
/// position, and tokens are placed by the planner.
#[derive(Clone, Copy, Debug, PartialEq)]
struct ByPosition;

impl BuildHasher for ByPosition {
    type Hasher = Identity;

    fn build_hasher(&self) -> Identity {
        Identity(0)
    }
}

struct Identity(u64);

impl Hasher for Identity {
    fn write_u32(&mut self, number: u32) {
        self.0 = u64::from(number);
    }

    fn write(&mut self, bytes: &[u8]) {
        // Positions come by `write_u32`; this keeps the trait's promise for anything else.
        self.0 = bytes.iter().fold(self.0, |number, byte| number << 8 | u64::from(*byte));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
