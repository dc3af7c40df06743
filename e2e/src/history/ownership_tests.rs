//! Books of shards as they may and may not be seen.

use super::Kind;
use super::ownership::{BookRow, RangeState, Sample, check, check_whole};
use super::placement::{self, Owners};
use super::record::{Moment, Span};

use RangeState::{Cleaned, Frozen, Importing, Moved, Owned};

const ALL: u64 = 1 << 32;

fn row(lo: u64, hi: u64, generation: i64, state: RangeState) -> BookRow {
    BookRow {
        lo,
        hi,
        generation,
        state,
        peer: None,
    }
}

fn look(shard: u16, start: u64, end: u64, rows: &[BookRow]) -> Sample {
    let span = Span {
        start: Moment(start),
        end: Moment(end),
    };
    Sample {
        shard,
        span,
        rows: rows.into(),
    }
}

fn kinds(samples: &[Sample]) -> Vec<Kind> {
    let mut kinds: Vec<Kind> = check(samples).into_iter().map(|violation| violation.kind).collect();
    kinds.dedup();
    kinds
}

#[test]
fn a_range_that_goes_and_comes_back_in_parts_is_in_order() {
    let samples = [
        look(0, 0, 1, &[row(0, ALL, 1, Owned)]),
        look(1, 2, 3, &[row(0, 100, 1, Importing)]),
        look(0, 4, 5, &[row(0, 50, 1, Frozen), row(50, ALL, 1, Owned)]),
        look(0, 6, 7, &[row(0, 50, 1, Moved), row(50, ALL, 1, Owned)]),
        look(1, 8, 9, &[row(0, 50, 2, Owned), row(50, 100, 1, Importing)]),
        look(0, 10, 11, &[row(0, 100, 1, Cleaned), row(100, ALL, 1, Owned)]),
        look(1, 12, 13, &[row(0, 100, 2, Owned)]),
        look(0, 14, 15, &[row(0, 100, 2, Importing), row(100, ALL, 1, Owned)]),
        look(1, 16, 17, &[row(0, 100, 2, Moved)]),
        look(0, 18, 19, &[row(0, 100, 3, Owned), row(100, ALL, 1, Owned)]),
        look(1, 20, 21, &[row(0, 100, 2, Cleaned)]),
    ];
    assert_eq!(kinds(&samples), []);
}

#[test]
fn looks_at_the_same_time_may_come_in_either_order() {
    // The source was asked first and answered last: what it says may be older than what the target says.
    let samples = [
        look(0, 0, 1, &[row(0, ALL, 1, Owned)]),
        look(1, 5, 6, &[row(0, ALL, 2, Owned)]),
        look(0, 4, 7, &[row(0, ALL, 1, Frozen)]),
    ];
    assert_eq!(kinds(&samples), []);
}

#[test]
fn an_owner_that_goes_on_after_another_took_over_is_found() {
    for state in [Owned, Frozen] {
        let samples = [
            look(0, 0, 1, &[row(0, ALL, 1, Owned)]),
            look(1, 2, 3, &[row(0, 10, 2, Owned)]),
            look(0, 4, 5, &[row(0, 10, 1, state), row(10, ALL, 1, Owned)]),
        ];
        assert_eq!(kinds(&samples), [Kind::TwoOwners], "{state:?}");
    }
}

#[test]
fn two_owners_of_one_generation_are_found_even_in_looks_at_the_same_time() {
    let samples = [
        look(0, 0, 9, &[row(0, ALL, 2, Owned)]),
        look(1, 1, 8, &[row(7, 8, 2, Owned)]),
    ];
    assert_eq!(kinds(&samples), [Kind::TwoOwners]);
}

#[test]
fn a_source_that_has_forgotten_what_it_gave_away_is_found() {
    let before = [
        look(0, 0, 1, &[row(0, ALL, 4, Owned)]),
        look(1, 2, 3, &[row(0, 10, 5, Owned)]),
    ];
    let forgotten = look(0, 4, 5, &[row(10, ALL, 4, Owned)]);
    let too_low = look(0, 4, 5, &[row(0, 10, 3, Moved), row(10, ALL, 4, Owned)]);
    for last in [forgotten, too_low] {
        let samples = [&before[..], &[last]].concat();
        assert_eq!(kinds(&samples), [Kind::NotHandedOver]);
    }
}

#[test]
fn a_generation_that_goes_back_at_its_owner_is_found() {
    let samples = [
        look(0, 0, 1, &[row(0, ALL, 4, Owned)]),
        look(0, 2, 3, &[row(0, ALL, 3, Owned)]),
    ];
    assert_eq!(kinds(&samples), [Kind::NotHandedOver]);
}

#[test]
fn in_the_end_every_position_has_exactly_one_owner() {
    let ends = |zero: &[BookRow], one: &[BookRow]| -> Vec<Kind> {
        let found = check_whole([(0, zero), (1, one)]);
        found.into_iter().map(|violation| violation.kind).collect()
    };
    let rest = row(10, ALL, 1, Owned);
    assert_eq!(ends(&[row(0, 10, 1, Owned)], std::slice::from_ref(&rest)), []);
    assert_eq!(
        ends(&[row(0, 9, 1, Owned)], std::slice::from_ref(&rest)),
        [Kind::NotHandedOver]
    );
    assert_eq!(
        ends(&[row(0, 10, 1, Moved)], std::slice::from_ref(&rest)),
        [Kind::NotHandedOver]
    );
    assert_eq!(
        ends(&[row(0, 11, 1, Owned)], std::slice::from_ref(&rest)),
        [Kind::TwoOwners]
    );
    assert_eq!(ends(&[row(0, 11, 1, Owned)], &[]), [Kind::NotHandedOver]);
}

fn thirds(shards: [u16; 3]) -> Owners {
    let third = |number: u64| number * ALL / 3;
    (0..3)
        .map(|at| (third(at), third(at + 1), shards[at as usize]))
        .collect()
}

#[test]
fn what_goes_to_a_new_shard_has_to_move() {
    let half = ALL / 2;
    let before: Owners = vec![(0, half, 0), (half, ALL, 1)];
    let sixth = ALL / 6;
    let after: Owners = vec![
        (0, sixth, 2),
        (sixth, half, 0),
        (half, ALL - sixth, 1),
        (ALL - sixth, ALL, 2),
    ];
    let (moved, found) = placement::check(&before, &after);
    assert_eq!(found, []);
    assert!((moved.moved - moved.ideal).abs() < 1e-6 && (moved.ideal - 1.0 / 3.0).abs() < 1e-9);
}

#[test]
fn a_move_between_shards_that_stay_is_found_and_so_is_moving_too_much() {
    let (before, after) = (thirds([0, 1, 2]), thirds([1, 0, 3]));
    let (moved, found) = placement::check(&before, &after);
    assert!((moved.moved - 1.0).abs() < 1e-6);
    let kinds: Vec<Kind> = found.iter().map(|violation| violation.kind).collect();
    assert_eq!(kinds, [Kind::MovedInVain; 3]);
}
