use proptest::prelude::*;

use super::*;
use crate::{ShardState, Weight, plan};

fn shard(ordinal: u16) -> Shard {
    Shard {
        name: format!("shop-{ordinal}"),
        ordinal: Ordinal(ordinal),
        state: ShardState::Active,
        hosts: vec![],
    }
}

fn tokens(tokens: &[(u32, u16)]) -> Tokens {
    let token = |&(position, ordinal)| Token {
        position: Position::new(position),
        ordinal: Ordinal(ordinal),
    };
    Tokens::new(tokens.iter().map(token).collect()).unwrap()
}

#[test]
fn a_position_belongs_to_the_nearest_token_clockwise() {
    let ring = Ring::new(Epoch(1), vec![shard(0), shard(1)], tokens(&[(100, 0), (200, 1)])).unwrap();
    let owner = |position| ring.locate(Position::new(position)).ordinal.get();
    let owners = [0, 99, 100, 101, 199, 200, 201, u32::MAX].map(owner);
    assert_eq!(owners, [0, 0, 0, 1, 1, 1, 0, 0]);
}

#[test]
fn a_ring_refuses_shards_and_tokens_that_do_not_belong_together() {
    let two = tokens(&[(100, 0), (200, 1)]);
    let ring = |shards| Ring::new(Epoch(1), shards, two.clone()).map(|_| ());
    assert_eq!(
        ring(vec![shard(1), shard(0), shard(7)]),
        Ok(()),
        "a shard may own nothing yet"
    );
    assert_eq!(
        ring(vec![shard(0), shard(1), shard(0)]),
        Err(RingError::DuplicateOrdinal(Ordinal(0)))
    );
    let namesake = Shard {
        ordinal: Ordinal(2),
        ..shard(0)
    };
    assert_eq!(
        ring(vec![shard(0), shard(1), namesake]),
        Err(RingError::DuplicateName("shop-0".into()))
    );
    let unknown = Token {
        position: Position::new(200),
        ordinal: Ordinal(1),
    };
    assert_eq!(ring(vec![shard(0)]), Err(RingError::UnknownOwner(unknown)));
}

proptest! {
    #[test]
    fn looking_up_agrees_with_the_ranges(shards in 1..50u16, anywhere: Vec<u32>) {
        let ordinals: Vec<_> = (0..shards).map(|ordinal| (Ordinal(ordinal), Weight::ONE)).collect();
        let ring = Ring::new(Epoch(1), (0..shards).map(shard).collect(), plan(None, &ordinals).unwrap()).unwrap();
        let ranges = ring.ranges();
        for (range, owner) in &ranges {
            for position in [range.lo, (range.lo + range.hi) / 2, range.hi - 1] {
                prop_assert_eq!(ring.locate(Position::new(position as u32)).ordinal, *owner);
            }
        }
        for position in anywhere.into_iter().map(Position::new) {
            let owner = ranges.iter().find(|(range, _)| range.contains(position)).unwrap().1;
            prop_assert_eq!(ring.locate(position).ordinal, owner);
        }
    }
}
