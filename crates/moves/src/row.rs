//! A row of a shard's book of ranges, and the numbers in it.

use std::fmt;
use std::str::FromStr;

use ring::{Generation, Ordinal, Range};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How publication, slot and subscription of a move begin; its id follows as 32 hexadecimal digits.
const NAME_PREFIX: &str = "ringwright_move_";

/// One copy from one shard to another. Never used again: what is copied once more has another id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MoveId(pub Uuid);

impl MoveId {
    /// What publication, slot and subscription of the move are called.
    pub fn replication_name(self) -> String {
        format!("{NAME_PREFIX}{}", self.0.as_simple())
    }

    /// The move a publication, slot or subscription belongs to.
    ///
    /// # Errors
    /// If the name is not one that [`MoveId::replication_name`] gives: it is somebody else's, and none of our business.
    pub fn from_replication_name(name: &str) -> Result<Self, NotAMoveName> {
        name.strip_prefix(NAME_PREFIX)
            .and_then(|digits| Uuid::try_parse(digits).ok())
            .map(Self)
            // One spelling only: a name that is found again has to be the name that was made.
            .filter(|id| id.replication_name() == name)
            .ok_or_else(|| NotAMoveName(name.to_owned()))
    }
}

impl fmt::Display for MoveId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

impl FromStr for MoveId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        Uuid::parse_str(text).map(Self)
    }
}

/// The name of a publication, slot or subscription that is not a move's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the name of a move's publication, slot or subscription")]
pub struct NotAMoveName(String);

/// How often a range was frozen, over all its moves: it never starts again, so an old operator's attempt is never taken
/// for a new one's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Attempt(pub i64);

impl Attempt {
    /// The number, as the databases store it.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The attempt of the next freeze.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A Postgres timeline: it grows with each promotion, so it says whether a shard's master is still the one of before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timeline(pub u32);

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// State of a range in one shard's book.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RangeState {
    /// Written and read here.
    Owned,
    /// Read here; writes wait for the end of a hand-over.
    Frozen,
    /// Given away: its rows are still here, and are to be deleted. Also at the target of a move that was undone.
    Moved,
    /// Given away, and no row is left.
    Cleaned,
    /// Being copied to here.
    Importing,
}

impl RangeState {
    /// Whether the shard owns the range: `owned` and `frozen`.
    pub const fn is_here(self) -> bool {
        matches!(self, Self::Owned | Self::Frozen)
    }
}

/// A row of `ringwright.range_owners`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RangeRow {
    /// The row's own number, never used again; the name of its lock.
    pub range_id: i64,
    /// The positions it speaks of.
    pub range: Range,
    /// How often the range changed hands.
    pub generation: Generation,
    /// What holds of it here.
    pub state: RangeState,
    /// The move it takes part in, or took part in last.
    pub move_id: Option<MoveId>,
    /// How often it was frozen. Of an importing range: the attempt it had when the move began.
    pub attempt: Attempt,
    /// Of an importing range: the attempt at which its rows were found equal to the source's.
    pub verified_attempt: Option<Attempt>,
    /// The shard it goes or went to; of an importing range, the shard it comes from; of one whose import was undone, the
    /// shard it came from.
    pub target: Option<Ordinal>,
    /// Of a frozen range: whether its deadline has passed, or its clock stands before the freeze.
    pub expired: bool,
}
