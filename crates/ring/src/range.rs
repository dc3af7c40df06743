use std::fmt;

use row_id::{POSITIONS, Position, Uuid};
use serde::{Deserialize, Serialize};

/// The positions `lo <= p < hi`, with `0 <= lo < hi <= 2^32`. An arc over zero is two ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Range {
    /// The first position within.
    pub lo: u64,
    /// The first position behind; 2^32 where the range reaches the end.
    pub hi: u64,
}

impl Range {
    /// Every position there is.
    pub const ALL: Self = Self { lo: 0, hi: POSITIONS };

    /// Whether this is a range of at least one position within the ring.
    pub const fn is_valid(self) -> bool {
        self.lo < self.hi && self.hi <= POSITIONS
    }

    /// How many positions are in it.
    #[expect(clippy::len_without_is_empty, reason = "a range is never empty")]
    pub const fn len(self) -> u64 {
        self.hi - self.lo
    }

    /// Whether the position is in it.
    pub const fn contains(self, position: Position) -> bool {
        let position = position.get() as u64;
        self.lo <= position && position < self.hi
    }

    /// The lowest id of the range: `id >= lowest_id`. No row has it.
    pub const fn lowest_id(self) -> Uuid {
        Position::new(self.lo as u32).lowest_id()
    }

    /// The lowest id behind the range: `id < end_id`, or no upper bound where the range reaches 2^32.
    pub const fn end_id(self) -> Option<Uuid> {
        if self.hi < POSITIONS {
            Some(Position::new(self.hi as u32).lowest_id())
        } else {
            None
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{:08x}, {:08x})", self.lo, self.hi)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_lo_and_not_hi() {
        let range = Range { lo: 16, hi: 32 };
        let inside = [15, 16, 31, 32].map(|position| range.contains(Position::new(position)));
        assert_eq!(inside, [false, true, true, false]);
        assert_eq!(range.len(), 16);
    }

    #[test]
    fn only_the_last_range_has_no_upper_id() {
        assert_eq!(
            Range { lo: 0, hi: 1 << 31 }.end_id(),
            Some(Position::new(1 << 31).lowest_id())
        );
        assert_eq!(
            Range {
                lo: 1 << 31,
                hi: POSITIONS
            }
            .end_id(),
            None
        );
        assert!(Range::ALL.contains(Position::new(u32::MAX)));
    }

    #[test]
    fn empty_and_outlying_ranges_are_not_valid() {
        assert!(Range::ALL.is_valid());
        assert!(!Range { lo: 5, hi: 5 }.is_valid());
        assert!(!Range { lo: 6, hi: 5 }.is_valid());
        assert!(
            !Range {
                lo: 0,
                hi: POSITIONS + 1
            }
            .is_valid()
        );
    }
}
