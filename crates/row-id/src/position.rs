use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

/// How many positions the ring has; positions are 0 to this, exclusive.
pub const POSITIONS: u64 = 1 << 32;

/// A place on the ring. It decides which shard a row lives on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(u32);

impl Position {
    /// The position with this number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number of this position.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The position of a key: the high 32 bits of its XXH3-64. The one hash by which anything is placed on the ring.
    pub fn of(key: &[u8]) -> Self {
        Self((xxh3_64(key) >> 32) as u32)
    }

    /// The lowest id of this position: `id >= lo.lowest_id() AND id < hi.lowest_id()` is the range `[lo, hi)` in SQL.
    ///
    /// It is a bound to compare with and no row's id (its version is 0).
    pub const fn lowest_id(self) -> Uuid {
        Uuid::from_u128((self.0 as u128) << 96)
    }
}

impl fmt::Display for Position {
    /// Eight hexadecimal digits, as an id begins.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From a second implementation (the xxHash project's C code); the first is also in its published test vectors.
    /// The lengths take each of the algorithm's branches: 0, 1-3, 4-8, 9-16, 17-128, 129-240 and over 240 bytes.
    #[test]
    fn positions_are_the_high_half_of_xxh3() {
        let ramp: Vec<u8> = (0..=255).collect();
        let golden = [
            (&b""[..], 0x2d06_8005),
            (&ramp[..1], 0xc44b_dff4),
            (&ramp[..3], 0x5f42_99fc),
            (&ramp[..8], 0x3a1c_2d7c),
            (&ramp[..16], 0x8355_e3a6),
            (&ramp[..100], 0x004e_4f92),
            (&ramp[..200], 0xf42a_8864),
            (&ramp[..256], 0x9408_a443),
        ];
        for (key, position) in golden {
            assert_eq!(Position::of(key), Position::new(position), "of {} bytes", key.len());
        }
    }

    #[test]
    fn the_lowest_id_begins_with_the_position_and_ends_with_zeros() {
        let id = Position::new(0x0102_03ff).lowest_id();
        assert_eq!(id.to_string(), "010203ff-0000-0000-0000-000000000000");
    }
}
