//! The ring of a cluster that holds nothing yet.

use row_id::POSITIONS;

use super::TOKENS_PER_SHARD;
use crate::{Ordinal, Range};

/// Deals the ring out in rounds, in each of which every shard gets a 64th of its fair share. The order is shuffled each
/// round: so a shard that leaves has many different neighbours, and they are whom its ranges can go to without a cut.
pub(super) fn lay_out(shares: &[(Ordinal, u64)]) -> Vec<(Range, Ordinal)> {
    let mut ranges = Vec::new();
    let mut order: Vec<usize> = (0..shares.len()).collect();
    let mut random = SplitMix(0);
    let mut lo = 0;
    let (mut first, mut last) = (None, None);
    for round in 0..TOKENS_PER_SHARD {
        shuffle(&mut order, &mut random);
        if order.len() > 1 && Some(order[0]) == last {
            let end = order.len() - 1;
            order.swap(0, end);
        }
        first = first.or(Some(order[0]));
        last = order.last().copied();
        if round == TOKENS_PER_SHARD - 1 && order.len() > 2 && first == last {
            let end = order.len() - 1;
            order.swap(1, end);
        }
        for &index in &order {
            let (ordinal, share) = shares[index];
            let len = share * (round + 1) / TOKENS_PER_SHARD - share * round / TOKENS_PER_SHARD;
            ranges.push((Range { lo, hi: lo + len }, ordinal));
            lo += len;
        }
    }
    debug_assert_eq!(lo, POSITIONS, "the fair shares add up to the ring");
    ranges
}

/// Fisher and Yates; the slight bias of the remainder does not matter here.
fn shuffle(order: &mut [usize], random: &mut SplitMix) {
    for end in (1..order.len()).rev() {
        order.swap(end, (random.next() % (end as u64 + 1)) as usize);
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers on every machine and in every version.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
