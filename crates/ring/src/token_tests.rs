use proptest::prelude::*;

use super::*;

fn range(lo: u64, hi: u64, ordinal: u16) -> (Range, Ordinal) {
    (Range { lo, hi }, Ordinal(ordinal))
}

fn token(position: u32, ordinal: u16) -> Token {
    Token {
        position: Position::new(position),
        ordinal: Ordinal(ordinal),
    }
}

/// Rings of a few shards whose tokens lie anywhere, the edges included.
fn tokens() -> impl Strategy<Value = Tokens> {
    let position = prop_oneof![Just(0), Just(1), Just(u32::MAX), any::<u32>()];
    prop::collection::btree_map(position, 0..5u16, 1..40).prop_map(|tokens| {
        let mut ranges = Vec::new();
        let mut lo = 0;
        let over_zero = *tokens.first_key_value().unwrap().1;
        for (position, ordinal) in tokens {
            ranges.push(range(lo, u64::from(position) + 1, ordinal));
            lo = u64::from(position) + 1;
        }
        if lo < POSITIONS {
            ranges.push(range(lo, POSITIONS, over_zero));
        }
        Tokens::from_ranges(ranges).unwrap()
    })
}

#[test]
fn a_token_owns_what_is_behind_its_predecessor_up_to_itself() {
    let tokens = Tokens::new(vec![token(9, 1), token(99, 2)]).unwrap();
    assert_eq!(
        tokens.ranges(),
        [range(0, 10, 1), range(10, 100, 2), range(100, POSITIONS, 1)]
    );
}

#[test]
fn a_single_token_owns_everything_wherever_it_lies() {
    assert_eq!(
        Tokens::new(vec![token(77, 4)]).unwrap().ranges(),
        [range(0, POSITIONS, 4)]
    );
    assert_eq!(
        Tokens::from_ranges([range(0, POSITIONS, 4)]).unwrap().as_slice(),
        [token(u32::MAX, 4)]
    );
}

#[test]
fn ranges_of_neighbours_become_one_token_also_over_zero() {
    let ranges = [
        range(30, POSITIONS, 1),
        range(0, 10, 1),
        range(10, 20, 2),
        range(20, 30, 2),
    ];
    assert_eq!(
        Tokens::from_ranges(ranges).unwrap().as_slice(),
        [token(9, 1), token(29, 2)]
    );
}

#[test]
fn a_gap_is_named() {
    let gap = |ranges: &[(Range, Ordinal)]| Tokens::from_ranges(ranges.iter().copied()).unwrap_err();
    assert_eq!(gap(&[range(5, POSITIONS, 1)]), TokensError::Gap(Range { lo: 0, hi: 5 }));
    assert_eq!(
        gap(&[range(0, 5, 1), range(6, POSITIONS, 2)]),
        TokensError::Gap(Range { lo: 5, hi: 6 })
    );
    assert_eq!(gap(&[range(0, 5, 1)]), TokensError::Gap(Range { lo: 5, hi: POSITIONS }));
    assert_eq!(gap(&[]), TokensError::Gap(Range::ALL));
}

#[test]
fn an_overlap_is_named_with_both_owners() {
    let overlap = |lo, hi, first, second| {
        Err(TokensError::Overlap {
            range: Range { lo, hi },
            first: Ordinal(first),
            second: Ordinal(second),
        })
    };
    let all = range(0, POSITIONS, 1);
    assert_eq!(Tokens::from_ranges([all, all]), overlap(0, POSITIONS, 1, 1));
    assert_eq!(Tokens::from_ranges([range(7, 9, 2), all]), overlap(7, 9, 1, 2));
    assert_eq!(
        Tokens::from_ranges([range(0, 10, 1), range(9, POSITIONS, 3)]),
        overlap(9, 10, 1, 3)
    );
}

#[test]
fn what_is_no_range_is_refused() {
    for (lo, hi) in [(5, 5), (6, 5), (0, POSITIONS + 1)] {
        let error = TokensError::Invalid {
            ordinal: Ordinal(1),
            range: Range { lo, hi },
        };
        assert_eq!(Tokens::from_ranges([range(lo, hi, 1)]), Err(error));
    }
}

#[test]
fn tokens_that_are_not_in_their_one_form_are_refused() {
    let position = Position::new;
    assert_eq!(Tokens::new(vec![]), Err(TokensError::Empty));
    assert_eq!(
        Tokens::new(vec![token(1, 1), token(1, 2)]),
        Err(TokensError::Duplicate(position(1)))
    );
    assert_eq!(
        Tokens::new(vec![token(2, 1), token(1, 2)]),
        Err(TokensError::Unsorted(position(1)))
    );
    assert_eq!(
        Tokens::new(vec![token(1, 1), token(2, 1), token(3, 2)]),
        Err(TokensError::Unmerged(position(1)))
    );
    assert_eq!(
        Tokens::new(vec![token(1, 1), token(2, 2), token(3, 1)]),
        Err(TokensError::Unmerged(position(3)))
    );
    let many = (0..=MAX_TOKENS as u32)
        .map(|number| token(number, (number % 2) as u16))
        .collect();
    assert_eq!(Tokens::new(many), Err(TokensError::TooMany(MAX_TOKENS + 1)));
}

proptest! {
    #[test]
    fn ranges_give_back_the_tokens_in_any_order(tokens in tokens(), seed: u64) {
        let mut ranges = tokens.ranges();
        ranges.sort_by_key(|(range, _)| range.lo.wrapping_mul(seed | 1));
        prop_assert_eq!(Tokens::from_ranges(ranges).unwrap().shares(), tokens.shares());
        prop_assert_eq!(Tokens::from_ranges(tokens.ranges()).unwrap().ranges(), tokens.ranges());
    }

    #[test]
    fn ranges_cover_every_position_once(tokens in tokens()) {
        let mut covered = 0;
        for (range, _) in tokens.ranges() {
            prop_assert!(range.is_valid());
            prop_assert_eq!(range.lo, covered);
            covered = range.hi;
        }
        prop_assert_eq!(covered, POSITIONS);
        prop_assert_eq!(tokens.shares().values().sum::<u64>(), POSITIONS);
    }

    #[test]
    fn moves_lead_from_one_state_to_the_other(before in tokens(), after in tokens()) {
        let moves = before.moves_to(&after);
        // Cut both states at every edge; then each piece is owned after as before, or as its one move says.
        let mut edges: Vec<u64> = [before.ranges(), after.ranges()].concat().iter().map(|(range, _)| range.lo).collect();
        edges.sort_unstable();
        let owner = |ranges: &[(Range, Ordinal)], lo: u64| {
            ranges.iter().find(|(range, _)| range.contains(Position::new(lo as u32))).unwrap().1
        };
        for lo in edges {
            let (from, to) = (owner(&before.ranges(), lo), owner(&after.ranges(), lo));
            let moving: Vec<_> = moves.iter().filter(|one| one.range.contains(Position::new(lo as u32))).collect();
            match moving[..] {
                [] => prop_assert_eq!(from, to),
                [one] => prop_assert_eq!((one.from, one.to), (from, to)),
                _ => prop_assert!(false, "{lo} moves twice"),
            }
        }
        prop_assert!(moves.iter().all(|one| one.from != one.to));
        prop_assert!(moves.windows(2).all(|pair| pair[0].range.hi <= pair[1].range.lo));
    }
}
