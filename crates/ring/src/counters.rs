use std::fmt;

use serde::{Deserialize, Serialize};

/// How often the ring was published. Readers never go back to a lower one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The number of this epoch.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The epoch of the next publication.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// How often a range changed hands. Of two claims to a range, the higher generation is right.
///
/// Another counter than [`Epoch`]: a ring is published for many reasons, and a range moves before it is published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub i64);

impl Generation {
    /// The number of this generation, as the databases store it.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The generation after the range's next change of hands.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
