//! Single states, and the answer to each.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use ring::{Generation, Ordinal, POSITIONS, Range, Tokens, Weight};
use uuid::Uuid;

use super::databases::Databases;
use super::operator::{Life, carry_out, execute};
use crate::{
    Attempt, Blocked, CopyRow, CopyState, MAX_EXPIRED_FREEZES, MAX_MOVES_OF_A_SHARD, MAX_RESUMES, MoveId, RangeRow,
    RangeState, ShardView, SlotRow, Step, SubscriptionRow, TableCopy, Timeline, WalStatus, Why, Wish, next_steps,
};

pub(super) const S: Ordinal = Ordinal(0);
pub(super) const T: Ordinal = Ordinal(1);

pub(super) fn wish(ordinals: impl IntoIterator<Item = u16>) -> Wish {
    Wish {
        shards: BTreeSet::new(),
        may_own: ordinals
            .into_iter()
            .map(|ordinal| (Ordinal(ordinal), Weight::ONE))
            .collect(),
        max_parallel: 2,
        paused: false,
        abort: false,
        strict: BTreeSet::new(),
    }
}

/// Shard 0 owns everything.
fn alone() -> Databases {
    let mut databases = Databases::owning(&Tokens::from_ranges([(Range::ALL, S)]).unwrap(), [S]);
    databases.join(T);
    databases
}

pub(super) fn steps(databases: &Databases, wish: &Wish) -> Vec<Step> {
    let steps = next_steps(&databases.shards, wish);
    assert_eq!(steps.blocked, []);
    steps.steps
}

/// Does everything that is to do, once.
fn work(databases: &mut Databases, wish: &Wish) {
    for step in steps(databases, wish) {
        carry_out(databases, &step);
    }
}

/// Shard 0 gives a half to shard 1: begun, its replication set up, and copied.
pub(super) fn copied() -> (Databases, MoveId) {
    let (mut databases, wish) = (alone(), wish([0, 1]));
    for _ in 0..3 {
        work(&mut databases, &wish);
    }
    let copy = databases.shards[&T].copies[0].clone();
    assert_eq!(copy.state, CopyState::Copying);
    assert!(databases.shards[&T].subscriptions[0].is_ready());
    (databases, copy.move_id)
}

/// The same, with the rows of source and target cut alike.
pub(super) fn cut() -> (Databases, MoveId) {
    let (mut databases, move_id) = copied();
    for step in steps(&databases, &wish([0, 1])) {
        if matches!(step, Step::Split { .. }) {
            carry_out(&mut databases, &step);
        }
    }
    (databases, move_id)
}

/// The batch that would be handed over next.
pub(super) fn batch(databases: &Databases) -> Range {
    let all = steps(databases, &wish([0, 1]));
    let batch = all.iter().find_map(|step| match step {
        Step::HandOver { range, .. } => Some(*range),
        _ => None,
    });
    batch.unwrap_or_else(|| panic!("nothing to hand over: {all:?}"))
}

pub(super) fn why(databases: &Databases, wish: &Wish) -> Why {
    match &steps(databases, wish)[..] {
        [Step::Abort { why, .. }] => why.clone(),
        other => panic!("no abort, but {other:?}"),
    }
}

#[test]
fn a_ring_as_wished_needs_nothing() {
    assert!(next_steps(&alone().shards, &wish([0])).is_done());
}

#[test]
fn all_moves_are_written_down_before_one_is_copied() {
    let tokens = ring::plan(None, &[(S, Weight::ONE), (T, Weight::ONE)]).unwrap();
    let (mut databases, wish) = (Databases::owning(&tokens, [S, T]), wish([2, 3]));
    (2..4).map(Ordinal).for_each(|ordinal| databases.join(ordinal));
    let begin = steps(&databases, &wish);
    assert_eq!(begin.len(), 4, "{begin:?}");
    for written in 0..4 {
        let left = steps(&databases, &wish);
        assert_eq!(
            left,
            begin[written..],
            "what has been written down is left out, the rest is as planned"
        );
        carry_out(&mut databases, &begin[written]);
    }
    let copies = steps(&databases, &wish);
    let pairs: Vec<_> = copies
        .iter()
        .map(|step| match step {
            Step::Copy { source, target, .. } => (source.get(), target.get()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        pairs,
        [(0, 2), (1, 3)],
        "as many as may be, on shards that are not busy"
    );
}

#[test]
fn a_copy_is_set_up_again_where_it_was_left() {
    let (mut databases, wish) = (alone(), wish([0, 1]));
    work(&mut databases, &wish);
    for commits in 0..5 {
        let copy = steps(&databases, &wish);
        assert!(
            matches!(copy[..], [Step::Copy { .. }]),
            "after {commits} commits: {copy:?}"
        );
        execute(&mut databases, &copy[0], 0, &mut Life(commits));
    }
    let copy = steps(&databases, &wish);
    carry_out(&mut databases, &copy[0]);
    assert!(matches!(steps(&databases, &wish)[..], [Step::AwaitCopy { .. }]));
}

#[test]
fn what_a_copy_rests_on_makes_it_void_when_it_is_gone() {
    let wish = wish([0, 1]);
    let missing = |what| Why::Missing { what };
    let void = |change: fn(&mut Databases, MoveId)| {
        let (mut databases, move_id) = copied();
        change(&mut databases, move_id);
        why(&databases, &wish)
    };
    assert_eq!(void(|all, id| all.drop_slot(S, id)), missing("slot"));
    assert_eq!(void(|all, id| all.drop_subscription(T, id)), missing("subscription"));
    assert_eq!(void(|all, id| all.drop_publication(S, id)), missing("publication"));
    assert_eq!(void(|all, _| all.view(S).slots[0].invalidated = true), Why::LogLost);
    assert_eq!(
        void(|all, _| all.view(S).slots[0].wal_status = WalStatus::Unreserved),
        Why::LogLost
    );
    let resumes = MAX_RESUMES;
    let failed = void(|all, _| {
        all.view(T).subscriptions[0].enabled = false;
        all.view(T).copies[0].resumes = MAX_RESUMES;
    });
    let last_error = None;
    assert_eq!(failed, Why::SubscriptionFailed { resumes, last_error });
    let (was, now) = (Timeline(1), Timeline(2));
    let failed_over = Why::SourceFailedOver {
        source_shard: S,
        was,
        now,
    };
    assert_eq!(void(|all, _| all.fail_over(S)), failed_over);
    let freezes = MAX_EXPIRED_FREEZES;
    let expired = void(|all, _| all.view(T).copies[0].expired_freezes = MAX_EXPIRED_FREEZES);
    assert_eq!(expired, Why::FreezesExpire { freezes });
}

#[test]
fn a_strict_source_hands_changes_out_after_its_standbys_have_them() {
    let (mut databases, ordinary) = (alone(), wish([0, 1]));
    let strict = Wish {
        strict: [S].into(),
        ..wish([0, 1])
    };
    let failover = |databases: &Databases, wish: &Wish| match steps(databases, wish)[..] {
        [Step::Copy { failover, .. }] => failover,
        ref other => panic!("{other:?}"),
    };
    work(&mut databases, &ordinary);
    assert!(!failover(&databases, &ordinary));
    assert!(failover(&databases, &strict));
    work(&mut databases, &strict);
    assert!(matches!(steps(&databases, &strict)[..], [Step::AwaitCopy { .. }]));
    assert!(matches!(steps(&databases, &ordinary)[..], [Step::AwaitCopy { .. }]));
    // Strict since the slot was made.
    let (databases, _) = copied();
    assert_eq!(why(&databases, &strict), Why::HandsOutEarly { source_shard: S });
    let strict_target = Wish {
        strict: [T].into(),
        ..ordinary
    };
    assert!(matches!(
        steps(&databases, &strict_target)[..],
        [Step::Split { .. }, ..]
    ));
}

#[test]
fn a_failover_of_the_target_leaves_the_copy_as_it_is() {
    let (mut databases, _) = cut();
    databases.fail_over(T);
    assert!(matches!(steps(&databases, &wish([0, 1]))[..], [Step::HandOver { .. }]));
}

/// What is known of a move stands at its target alone.
#[test]
fn while_a_target_does_not_answer_its_slots_are_nobodys_to_sweep_up() {
    let (databases, move_id) = copied();
    let mut seen = databases.shards.clone();
    seen.remove(&T);
    let wish = Wish {
        shards: [S, T].into(),
        ..wish([0, 1])
    };
    let answer = next_steps(&seen, &wish);
    assert_eq!(answer.steps, []);
    assert!(answer.blocked.contains(&Blocked::NotObserved { needed: T }));
    let forgotten = Wish {
        shards: [S].into(),
        ..wish
    };
    let swept = next_steps(&seen, &forgotten).steps;
    let slot = |step: &Step| matches!(step, Step::Sweep { slots, .. } if slots == &[move_id]);
    assert!(swept.iter().any(slot), "of a shard that is gone for good: {swept:?}");
}

#[test]
fn a_shard_takes_part_in_no_more_moves_at_a_time_than_it_has_workers_for() {
    let shards = 0..10;
    let owners: Vec<_> = shards.clone().map(|ordinal| (Ordinal(ordinal), Weight::ONE)).collect();
    let tokens = ring::plan(None, &owners).unwrap();
    let mut databases = Databases::owning(&tokens, tokens.shares().into_keys());
    databases.join(Ordinal(10));
    let wish = Wish {
        max_parallel: 64,
        ..wish(0..11)
    };
    work(&mut databases, &wish);
    let copies = |databases: &Databases| {
        let steps = steps(databases, &wish);
        steps.iter().filter(|step| matches!(step, Step::Copy { .. })).count()
    };
    assert_eq!(databases.shards[&Ordinal(10)].copies.len(), 10);
    assert_eq!(copies(&databases), MAX_MOVES_OF_A_SHARD);
}

#[test]
fn a_move_to_a_shard_that_is_to_leave_is_undone() {
    let (databases, _) = copied();
    assert_eq!(why(&databases, &wish([0])), Why::TargetLeaves { target: T });
    let all = Wish {
        abort: true,
        ..wish([0, 1])
    };
    assert_eq!(why(&databases, &all), Why::Requested);
}

#[test]
fn a_frozen_batch_comes_first_and_is_not_cut() {
    let (mut databases, move_id) = cut();
    let range = batch(&databases);
    databases.freeze(S, T, move_id, range);
    let [step] = &steps(&databases, &wish([0, 1]))[..] else {
        panic!()
    };
    assert!(matches!(step, Step::HandOver { range: found, frozen: true, .. } if *found == range));
}

#[test]
fn a_range_past_its_commit_point_is_rolled_forward_whatever_else_is_wished() {
    let (mut databases, move_id) = cut();
    let range = batch(&databases);
    let attempt = databases.freeze(S, T, move_id, range).unwrap();
    databases.verify(S, T, move_id, range, attempt);
    databases.commit_move(S, move_id, range, attempt);
    let abort = Wish {
        abort: true,
        ..wish([0])
    };
    let forward = Step::RollForward {
        move_id,
        source: S,
        target: T,
        range,
    };
    for wish in [&wish([0, 1]), &abort] {
        assert_eq!(steps(&databases, wish)[0], forward);
    }
    assert!(steps(&databases, &abort).iter().all(|step| match step {
        Step::Abort { ranges, .. } => !ranges.contains(&range),
        step => *step == forward,
    }));
}

#[test]
fn a_freeze_that_no_move_holds_is_lifted() {
    let (mut databases, move_id) = cut();
    let range = batch(&databases);
    databases.leave_import(S, T, move_id, range);
    let attempt = databases.freeze(S, T, move_id, range).unwrap();
    let thaw = Step::Thaw {
        shard: S,
        move_id,
        range,
        attempt,
    };
    assert!(steps(&databases, &wish([0, 1])).contains(&thaw));
}

#[test]
fn rows_are_deleted_only_after_the_replication_is_gone_and_somebody_else_owns_them() {
    let (mut databases, move_id) = copied();
    let wish = wish([0, 1]);
    while !matches!(steps(&databases, &wish)[..], [Step::DropReplication { .. }]) {
        let before = steps(&databases, &wish);
        assert!(
            !before.iter().any(|step| matches!(step, Step::Clean { .. })),
            "{before:?}"
        );
        work(&mut databases, &wish);
    }
    databases.drop_subscription(T, move_id);
    assert!(matches!(steps(&databases, &wish)[..], [Step::DropReplication { .. }]));
    work(&mut databases, &wish);
    let clean = steps(&databases, &wish);
    assert!(
        clean
            .iter()
            .all(|step| matches!(step, Step::Clean { shard, .. } if *shard == S)),
        "{clean:?}"
    );
    // The new owner's book is lost: now nobody owns them, and nothing is deleted.
    databases.view(T).rows.clear();
    let lost = next_steps(&databases.shards, &wish);
    assert!(
        lost.steps.is_empty() && matches!(lost.blocked[..], [Blocked::Truth(_)]),
        "{lost:?}"
    );
}

#[test]
fn what_no_move_knows_is_swept_subscriptions_first() {
    let (mut databases, wish) = (alone(), wish([0]));
    let stranger = MoveId(Uuid::from_u128(7));
    databases.ensure_publication(S, stranger);
    databases.ensure_slot(S, stranger, Timeline(1), false);
    databases.ensure_subscription(T, stranger);
    let sweep = |shard, subscriptions: &[MoveId], slots: &[MoveId]| Step::Sweep {
        shard,
        subscriptions: subscriptions.to_vec(),
        slots: slots.to_vec(),
        publications: slots.to_vec(),
    };
    assert_eq!(steps(&databases, &wish), [sweep(T, &[stranger], &[])]);
    work(&mut databases, &wish);
    assert_eq!(steps(&databases, &wish), [sweep(S, &[], &[stranger])]);
    work(&mut databases, &wish);
    assert_eq!(steps(&databases, &wish), []);
}

#[test]
fn of_two_moves_of_the_same_keys_one_is_undone() {
    let (mut databases, _) = copied();
    let third = Ordinal(2);
    databases.join(third);
    let ranges: Vec<_> = databases.shards[&T]
        .rows
        .iter()
        .map(|row| crate::ImportRange {
            range: row.range,
            generation: row.generation,
            attempt: row.attempt,
        })
        .collect();
    databases.begin_import(S, third, &ranges);
    let ids = [&databases.shards[&T].copies[0], &databases.shards[&third].copies[0]].map(|copy| copy.move_id);
    let (stays, goes) = (ids[0].min(ids[1]), ids[0].max(ids[1]));
    let undone: Vec<_> = steps(&databases, &wish([0, 1, 2]))
        .into_iter()
        .filter_map(|step| match step {
            Step::Abort { move_id, why, .. } => Some((move_id, why)),
            _ => None,
        })
        .collect();
    assert_eq!(undone, [(goes, Why::Conflict { with: stays })]);
}

#[test]
fn a_shard_that_was_not_read_is_named() {
    let (mut databases, _) = copied();
    databases.shards.remove(&S);
    let blocked = next_steps(&databases.shards, &wish([1])).blocked;
    assert!(blocked.contains(&Blocked::NotObserved { needed: S }), "{blocked:?}");
    let blocked = next_steps(&alone().shards, &wish([0, 1, 2])).blocked;
    assert_eq!(blocked, [Blocked::NotObserved { needed: Ordinal(2) }]);
}

fn ordinal() -> impl Strategy<Value = Ordinal> {
    (0..3u16).prop_map(Ordinal)
}

fn move_id() -> impl Strategy<Value = MoveId> {
    (0..3u128).prop_map(|id| MoveId(Uuid::from_u128(id)))
}

/// A book in any state, reachable or not.
fn rows() -> impl Strategy<Value = Vec<RangeRow>> {
    let state = prop_oneof![
        Just(RangeState::Owned),
        Just(RangeState::Frozen),
        Just(RangeState::Moved),
        Just(RangeState::Cleaned),
        Just(RangeState::Importing),
    ];
    let row = (state, move_id(), ordinal(), 0..3i64, prop::option::of(0..3i64));
    prop::collection::btree_map(1..8u64, prop::option::weighted(0.8, row), 0..6).prop_map(|cuts| {
        let mut lo = 0_u64;
        let mut rows = Vec::new();
        for (cut, row) in cuts {
            let hi = cut * (POSITIONS / 8);
            if let Some((state, move_id, target, attempt, verified)) = row {
                rows.push(RangeRow {
                    range_id: lo.cast_signed(),
                    range: Range { lo, hi },
                    generation: Generation(1),
                    state,
                    move_id: Some(move_id),
                    attempt: Attempt(attempt),
                    verified_attempt: verified.map(Attempt),
                    target: Some(target),
                    expired: false,
                });
            }
            lo = hi;
        }
        rows
    })
}

fn view(ordinal: Ordinal) -> impl Strategy<Value = ShardView> {
    let state = prop_oneof![
        Just(CopyState::Waiting),
        Just(CopyState::Copying),
        Just(CopyState::Aborting)
    ];
    let copy = (move_id(), self::ordinal(), prop::option::of(1..3u32), state);
    let copies = prop::collection::vec(copy, 0..2);
    let ids = || prop::collection::btree_set(move_id(), 0..2);
    (rows(), copies, ids(), ids(), ids(), any::<[bool; 2]>()).prop_map(
        move |(rows, copies, slots, subscriptions, publications, [ready, enabled])| {
            let copies: BTreeMap<MoveId, CopyRow> = copies
                .into_iter()
                .map(|(move_id, source, term, state)| {
                    (
                        move_id,
                        CopyRow {
                            move_id,
                            source,
                            source_term: term.map(Timeline),
                            state,
                            expired_freezes: 0,
                            resumes: 0,
                            last_error: None,
                        },
                    )
                })
                .collect();
            let slot = |move_id| SlotRow {
                move_id,
                active: ready,
                wal_status: WalStatus::Reserved,
                invalidated: false,
                failover: false,
            };
            let subscription = |move_id| SubscriptionRow {
                move_id,
                enabled,
                tables: vec![TableCopy {
                    table: "shop.users".into(),
                    ready,
                }],
                errors: 0,
            };
            ShardView {
                ordinal,
                term: Timeline(1),
                rows,
                copies: copies.into_values().collect(),
                slots: slots.into_iter().map(slot).collect(),
                subscriptions: subscriptions.into_iter().map(subscription).collect(),
                publications: publications.into_iter().collect(),
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_state_has_an_answer(
        views in (view(Ordinal(0)), view(Ordinal(1)), view(Ordinal(2))),
        may_own in prop::collection::btree_set(0..3u16, 1..4),
        abort: bool,
    ) {
        let world: BTreeMap<Ordinal, ShardView> =
            [views.0, views.1, views.2].into_iter().map(|view| (view.ordinal, view)).collect();
        let wish = Wish { abort, ..wish(may_own) };
        let steps = next_steps(&world, &wish);
        let unsettled = world.values().any(|view| {
            view.rows.iter().any(|row| !matches!(row.state, RangeState::Owned | RangeState::Cleaned))
                || !view.copies.is_empty()
                || !view.slots.is_empty()
                || !view.subscriptions.is_empty()
                || !view.publications.is_empty()
        });
        prop_assert!(!unsettled || !steps.is_done(), "something is left, and there is nothing to do");
    }
}
