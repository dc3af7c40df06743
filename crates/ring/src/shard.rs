use std::fmt;

use serde::{Deserialize, Serialize};

/// The number of a shard within its cluster. Never used again after the shard has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ordinal(pub u16);

impl Ordinal {
    /// The number itself.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Ordinal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a shard is in its life, as far as the ring is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShardState {
    /// Reachable, and about to take its first ranges.
    Joining,
    /// Owns what its weight asks for.
    Active,
    /// Hands its ranges to the others.
    Leaving,
}

/// A shard as a ring lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    /// Name of the `OrderShard`, such as `shop-0`.
    pub name: String,
    /// Its number.
    pub ordinal: Ordinal,
    /// Its state.
    pub state: ShardState,
    /// Its members as `host:port`, master and replicas alike; which is which is found out by asking.
    pub hosts: Vec<String>,
}
