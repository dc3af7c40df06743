use moves::{Attempt, MoveId, RangeRow, Timeline};
use row_id::Uuid;

use super::*;

fn row(range: Range, state: RangeState) -> RangeRow {
    RangeRow {
        range_id: 1,
        range,
        generation: Generation(1),
        state,
        move_id: None,
        attempt: Attempt(0),
        verified_attempt: None,
        target: None,
        expired: false,
    }
}

fn book(rows: Vec<RangeRow>) -> ShardBook {
    ShardBook {
        weight: Weight::ONE,
        view: Ok(ShardView {
            ordinal: Ordinal(0),
            term: Timeline(1),
            rows,
            copies: Vec::new(),
            slots: Vec::new(),
            subscriptions: Vec::new(),
            publications: Vec::new(),
        }),
    }
}

fn insert(books: &mut BTreeMap<Ordinal, ShardBook>, ordinal: u16, rows: Vec<RangeRow>) {
    let mut book = book(rows);
    if let Ok(view) = &mut book.view {
        view.ordinal = Ordinal(ordinal);
    }
    books.insert(Ordinal(ordinal), book);
}

fn empty_books(shards: u16) -> BTreeMap<Ordinal, ShardBook> {
    let mut books = BTreeMap::new();
    for ordinal in 0..shards {
        insert(&mut books, ordinal, Vec::new());
    }
    books
}

fn claims_of(truth: Truth) -> BTreeMap<Ordinal, Vec<Range>> {
    match truth {
        Truth::Founding { claims, .. } => claims,
        other => panic!("not a beginning: {other:?}"),
    }
}

fn claim(books: &mut BTreeMap<Ordinal, ShardBook>, ordinal: u16, ranges: &[Range]) {
    let rows = ranges.iter().map(|range| row(*range, RangeState::Owned)).collect();
    insert(books, ordinal, rows);
}

fn broken(truth: Truth) -> String {
    match truth {
        Truth::Broken(why) => why,
        other => panic!("not broken: {other:?}"),
    }
}

#[test]
fn shards_that_never_owned_anything_are_given_everything_once() {
    let claims = claims_of(truth(&empty_books(3)));
    assert_eq!(claims.len(), 3);
    let all = claims
        .iter()
        .flat_map(|(ordinal, ranges)| ranges.iter().map(|range| (*range, *ordinal)));
    assert!(Tokens::from_ranges(all).is_ok());
}

#[test]
fn after_any_part_of_the_beginning_the_rest_of_the_same_plan_follows() {
    let plan = claims_of(truth(&empty_books(4)));
    // Every subset of shards that were told their part before the operator died.
    for told in 0u16..16 {
        let mut books = empty_books(4);
        for ordinal in (0..4).filter(|ordinal| told & (1 << ordinal) != 0) {
            claim(&mut books, ordinal, &plan[&Ordinal(ordinal)]);
        }
        match truth(&books) {
            Truth::Owned { tokens, in_flight } => {
                assert!(!in_flight);
                assert_eq!(told, 15);
                assert_eq!(tokens.ranges().len(), plan.values().map(Vec::len).sum::<usize>());
            }
            Truth::Founding { claims, .. } => {
                let left: BTreeMap<_, _> = plan
                    .clone()
                    .into_iter()
                    .filter(|(ordinal, _)| told & (1 << ordinal.get()) == 0)
                    .collect();
                assert_eq!(claims, left);
            }
            other => panic!("{told:04b}: {other:?}"),
        }
    }
}

#[test]
fn a_book_that_cannot_be_read_is_awaited_unless_the_others_own_everything() {
    let mut books = empty_books(3);
    for (ordinal, ranges) in claims_of(truth(&empty_books(2))) {
        claim(&mut books, ordinal.get(), &ranges);
    }
    books.get_mut(&Ordinal(2)).unwrap().view = Err("no answer".to_owned());
    assert!(matches!(truth(&books), Truth::Owned { in_flight: true, .. }));
    books.get_mut(&Ordinal(1)).unwrap().view = Err("no answer".to_owned());
    assert_eq!(
        truth(&books),
        Truth::Unread(BTreeMap::from(
            [1, 2].map(|ordinal| (Ordinal(ordinal), "no answer".to_owned()))
        ))
    );
}

#[test]
fn ranges_that_moved_are_as_the_books_say_not_as_any_plan_would_have_it() {
    let half = 1 << 31;
    let mut books = empty_books(2);
    let (low, high) = (
        Range { lo: 0, hi: half },
        Range {
            lo: half,
            hi: ring::POSITIONS,
        },
    );
    insert(
        &mut books,
        0,
        vec![row(low, RangeState::Frozen), row(high, RangeState::Cleaned)],
    );
    insert(
        &mut books,
        1,
        vec![row(high, RangeState::Owned), row(low, RangeState::Importing)],
    );
    let Truth::Owned { tokens, in_flight } = truth(&books) else {
        panic!("{books:?}")
    };
    assert!(in_flight);
    assert_eq!(tokens.ranges(), [(low, Ordinal(0)), (high, Ordinal(1))]);
}

#[test]
fn a_gap_after_data_was_owned_is_nobodys_to_fill() {
    let plan = claims_of(truth(&empty_books(3)));
    // Shard 0 has gained one more range since: its book is not that of the beginning.
    let mut books = empty_books(3);
    let mut ranges = plan[&Ordinal(0)].clone();
    ranges.push(plan[&Ordinal(1)][0]);
    claim(&mut books, 0, &ranges);
    let why = broken(truth(&books));
    assert!(why.contains("shard 0 has owned other ranges"), "{why}");
    assert!(why.contains("no shard owns"), "{why}");
}

#[test]
fn a_range_of_a_later_generation_is_not_part_of_a_beginning() {
    let plan = claims_of(truth(&empty_books(2)));
    let mut books = empty_books(2);
    claim(&mut books, 0, &plan[&Ordinal(0)]);
    if let Ok(view) = &mut books.get_mut(&Ordinal(0)).unwrap().view {
        view.rows[0].generation = Generation(2);
    }
    broken(truth(&books));
}

#[test]
fn two_owners_of_one_range_stop_everything() {
    let mut books = empty_books(2);
    claim(&mut books, 0, &[Range::ALL]);
    claim(&mut books, 1, &[Range { lo: 0, hi: 16 }]);
    let why = broken(truth(&books));
    assert!(why.contains("own [00000000, 00000010)"), "{why}");
}

#[test]
fn weights_are_part_of_the_plan() {
    let mut books = empty_books(2);
    books.get_mut(&Ordinal(1)).unwrap().weight = Weight::new(3).unwrap();
    let claims = claims_of(truth(&books));
    let held = |ordinal: u16| claims[&Ordinal(ordinal)].iter().map(|range| range.len()).sum::<u64>();
    let ratio = held(1) as f64 / held(0) as f64;
    assert!((2.9..3.1).contains(&ratio), "{ratio}");
}

#[test]
fn between_the_commit_point_and_the_activation_a_range_is_its_targets() {
    let half = 1 << 31;
    let (low, high) = (
        Range { lo: 0, hi: half },
        Range {
            lo: half,
            hi: ring::POSITIONS,
        },
    );
    let of_move = |range, state, other: u16| RangeRow {
        move_id: Some(MoveId(Uuid::from_u128(1))),
        target: Some(Ordinal(other)),
        ..row(range, state)
    };
    let mut books = empty_books(2);
    let source = vec![row(low, RangeState::Owned), of_move(high, RangeState::Moved, 1)];
    insert(&mut books, 0, source);
    insert(&mut books, 1, vec![of_move(high, RangeState::Importing, 0)]);
    let Truth::Owned { tokens, in_flight } = truth(&books) else {
        panic!("{books:?}")
    };
    assert!(in_flight);
    assert_eq!(tokens.ranges(), [(low, Ordinal(0)), (high, Ordinal(1))]);
}
