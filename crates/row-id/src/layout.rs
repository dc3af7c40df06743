//! Packing and unpacking the bits that the crate's documentation tabulates.

use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};
use uuid::{Uuid, Variant};

use crate::Position;

/// Bits that are free beside position, version and variant.
const FREE: u32 = 90;
/// Of the free bits, those that are random when the others are a time.
const RANDOM: u32 = 42;
const MILLIS_MASK: u64 = (1 << 48) - 1;

/// Puts 90 bits around version and variant: 16 before the version, 12 before the variant, 62 behind it.
fn assemble(position: Position, free: u128) -> Uuid {
    let high = (free >> 74) & 0xffff;
    let middle = (free >> 62) & 0xfff;
    let low = free & ((1 << 62) - 1);
    let position = u128::from(position.get());
    Uuid::from_u128(position << 96 | high << 80 | 0x8 << 76 | middle << 64 | 0b10 << 62 | low)
}

/// The 90 free bits of an id, the reverse of [`assemble`].
fn free_bits(id: Uuid) -> u128 {
    let id = id.as_u128();
    let high = (id >> 80) & 0xffff;
    let middle = (id >> 64) & 0xfff;
    let low = id & ((1 << 62) - 1);
    high << 74 | middle << 62 | low
}

/// An id of a position, a time and entropy; only the lowest 48 and 42 bits of the latter two are used.
pub(crate) fn timed(position: Position, unix_millis: u64, random: u64) -> Uuid {
    let random = u128::from(random) & ((1 << RANDOM) - 1);
    assemble(position, u128::from(unix_millis & MILLIS_MASK) << RANDOM | random)
}

/// An id of a position, now.
pub(crate) fn now(position: Position) -> Uuid {
    // A clock before 1970 is a broken clock; ids then sort first, and stay unique by their entropy.
    let unix_millis = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64);
    timed(position, unix_millis, rand::random())
}

/// A user id: the position is filled in from the other twelve bytes.
pub(crate) fn self_positioned(id: Uuid) -> Uuid {
    assemble(own_position(id), free_bits(id))
}

/// The position that a user id with these other twelve bytes must have.
pub(crate) fn own_position(id: Uuid) -> Position {
    Position::of(&id.as_bytes()[4..])
}

/// An id of a position and the hash of some content.
///
/// The content is chosen by strangers (idempotency keys, addresses), and whoever could make two contents collide could
/// block another's. So these bits come from SHA-256 and not from the fast hash that places rows.
pub(crate) fn hashed(position: Position, content: &[u8]) -> Uuid {
    let digest = Sha256::digest(content);
    let mut head = [0; 16];
    head.copy_from_slice(&digest[..16]);
    assemble(position, u128::from_be_bytes(head) >> (128 - FREE))
}

/// The position an id begins with.
pub(crate) fn position(id: Uuid) -> Position {
    Position::new((id.as_u128() >> 96) as u32)
}

/// The time in an id, in unix milliseconds.
pub(crate) fn millis(id: Uuid) -> u64 {
    (free_bits(id) >> RANDOM) as u64
}

/// Whether version and variant are those of an id of this system.
pub(crate) fn is_ours(id: Uuid) -> bool {
    id.get_version_num() == 8 && id.get_variant() == Variant::RFC4122
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bits_lie_where_the_table_says() {
        // 0x0195_c3e8_a4b5 ms = 2025-03-23; the random bits are all ones, then all zeros.
        let ones = timed(Position::new(0x8a3c_01f2), 0x0195_c3e8_a4b5, u64::MAX);
        assert_eq!(ones.to_string(), "8a3c01f2-0195-8c3e-a292-d7ffffffffff");
        let zeros = timed(Position::new(0x8a3c_01f2), 0x0195_c3e8_a4b5, 0);
        assert_eq!(zeros.to_string(), "8a3c01f2-0195-8c3e-a292-d40000000000");
        assert_eq!(
            timed(Position::new(0), 0, 0).to_string(),
            "00000000-0000-8000-8000-000000000000"
        );
        assert_eq!(
            timed(Position::new(u32::MAX), u64::MAX, u64::MAX).to_string(),
            "ffffffff-ffff-8fff-bfff-ffffffffffff"
        );
    }

    proptest! {
        #[test]
        fn position_and_time_are_read_back(position: u32, unix_millis in 0..=MILLIS_MASK, random: u64) {
            let id = timed(Position::new(position), unix_millis, random);
            prop_assert!(is_ours(id));
            prop_assert_eq!(super::position(id).get(), position);
            prop_assert_eq!(millis(id), unix_millis);
        }

        #[test]
        fn free_bits_survive_the_packing(position: u32, free in 0..1u128 << FREE) {
            prop_assert_eq!(free_bits(assemble(Position::new(position), free)), free);
        }

        #[test]
        fn ids_sort_by_position_and_then_by_time(
            a in (0..4u32, 0..=MILLIS_MASK, any::<u64>()), b in (0..4u32, 0..=MILLIS_MASK, any::<u64>()),
        ) {
            let (first, second) = (timed(Position::new(a.0), a.1, a.2), timed(Position::new(b.0), b.1, b.2));
            if (a.0, a.1) < (b.0, b.1) {
                prop_assert!(first < second);
            }
        }

        #[test]
        fn a_range_of_positions_is_a_range_of_ids(position: u32, lo: u32, hi: u32, unix_millis: u64, random: u64) {
            let id = timed(Position::new(position), unix_millis, random);
            let within = Position::new(lo).lowest_id() <= id && id < Position::new(hi).lowest_id();
            prop_assert_eq!(within, lo <= position && position < hi);
        }
    }
}
