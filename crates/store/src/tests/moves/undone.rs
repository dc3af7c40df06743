//! Moves that are given up, at every point, and operators that die.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use ring::{Ordinal, Range};
use tokio::sync::Notify;

use super::pair::{Pair, batch, claim_at, clean, count_claims, drop_replication, patient, row_at, write_claims};
use crate::moves::{self, Aborted, Batch, CopyState, HandOver, MoveError, MoveId, RangeState, Timeline, at_checkpoint};
use crate::tests::shards::{refusal, run, superuser};

const RANGE: Range = Range {
    lo: 0x1000,
    hi: 0x8000_0000,
};

/// Runs an operator until it comes to `point`, and kills it there.
pub(super) async fn killed_at<F: Future>(point: &'static str, operator: F) {
    let reached = Arc::new(Notify::new());
    let told = Arc::clone(&reached);
    let hold = move || -> BoxFuture<'static, ()> {
        told.notify_one();
        Box::pin(std::future::pending())
    };
    tokio::select! {
        _ = at_checkpoint(point, hold, operator) => panic!("it ended before it came to `{point}`"),
        () = reached.notified() => {}
    }
}

/// What an operator does about a move that is not to be: every range that is still imported, then all the rest.
async fn abort(pair: &mut Pair, move_id: MoveId) -> Vec<Aborted> {
    let (source, target) = pair.ends(0);
    moves::set_copy_state(target, move_id, CopyState::Aborting, Some("a test"))
        .await
        .unwrap();
    let mut outcomes = Vec::new();
    for row in super::pair::book(target).await {
        if row.move_id == Some(move_id) && row.state == RangeState::Importing {
            let part = Batch {
                move_id,
                range: row.range,
            };
            outcomes.push(moves::abort_range(source, target, &part).await.unwrap());
        }
    }
    pair.finish(0, move_id).await;
    outcomes
}

/// Nothing is left, and shard 0 takes writes in the range again.
async fn assert_undone(pair: &mut Pair) {
    pair.assert_settled().await;
    for position in [RANGE.lo, RANGE.hi - 1] {
        assert_eq!(row_at(&mut pair.sessions[0], position).await.state, RangeState::Owned);
        run(&mut pair.sessions[0].conn, claim_at(u32::try_from(position).unwrap())).await;
    }
    assert_eq!(count_claims(&mut pair.sessions[1]).await, 0);
}

async fn with_rows() -> Pair {
    let mut pair = Pair::start().await;
    write_claims(&mut pair.sessions[0], [5, 0x2000, 0x7000_0000, 0x9000_0000]).await;
    pair
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_that_is_given_up_while_it_is_set_up_leaves_nothing() {
    for steps in 0..5 {
        let mut pair = with_rows().await;
        let move_id = pair.begin(0, &[RANGE]).await;
        let publisher = pair.publisher(0);
        let (source, target) = pair.ends(0);
        if steps > 0 {
            moves::ensure_publication(source, move_id, &[RANGE]).await.unwrap();
        }
        if steps > 1 {
            let term = moves::term(source).await.unwrap();
            assert!(moves::ensure_slot(source, move_id, term, false).await.unwrap());
        }
        if steps > 2 {
            moves::ensure_subscription(target, move_id, &publisher, false)
                .await
                .unwrap();
        }
        if steps > 3 {
            pair.replicate(0, move_id, &[RANGE]).await;
        }
        assert_eq!(
            abort(&mut pair, move_id).await,
            [Aborted::Undone],
            "after {steps} steps"
        );
        assert_undone(&mut pair).await;
        pair.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hand_over_whose_operator_died_before_the_commit_point_can_be_given_up() {
    for point in ["frozen", "drained", "verified"] {
        let mut pair = with_rows().await;
        let move_id = pair.copy(0, &[RANGE]).await;
        let ours = batch(move_id, RANGE.lo, RANGE.hi);
        let (source, target) = pair.ends(0);
        killed_at(point, moves::hand_over(source, target, &ours, &patient())).await;
        assert_eq!(row_at(source, RANGE.lo).await.state, RangeState::Frozen, "{point}");
        assert_eq!(abort(&mut pair, move_id).await, [Aborted::Undone], "{point}");
        assert_undone(&mut pair).await;
        pair.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_the_commit_point_giving_up_means_going_on() {
    let mut pair = with_rows().await;
    let move_id = pair.copy(0, &[RANGE]).await;
    let ours = batch(move_id, RANGE.lo, RANGE.hi);
    let (source, target) = pair.ends(0);
    killed_at("committed", moves::hand_over(source, target, &ours, &patient())).await;
    assert_eq!(row_at(source, RANGE.lo).await.state, RangeState::Moved);
    assert_eq!(row_at(target, RANGE.lo).await.state, RangeState::Importing);
    assert_eq!(abort(&mut pair, move_id).await, [Aborted::RolledForward]);
    pair.assert_settled().await;
    assert_eq!(row_at(&mut pair.sessions[1], RANGE.lo).await.state, RangeState::Owned);
    assert_eq!(count_claims(&mut pair.sessions[1]).await, 2);
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_goes_on_wherever_the_operator_died() {
    for point in ["frozen", "drained", "verified", "committed", "activated"] {
        let mut pair = with_rows().await;
        let move_id = pair.copy(0, &[RANGE]).await;
        let ours = batch(move_id, RANGE.lo, RANGE.hi);
        let [mut source, mut target] = pair.other_sessions().await;
        killed_at(point, moves::hand_over(&mut source, &mut target, &ours, &patient())).await;
        drop((source, target));
        pair.hand_over(0, &ours).await;
        pair.finish(0, move_id).await;
        pair.assert_settled().await;
        assert_eq!(count_claims(&mut pair.sessions[1]).await, 2, "{point}");
        pair.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_of_a_move_may_be_given_up_and_the_other_half_stays_moved() {
    let mut pair = with_rows().await;
    let move_id = pair.copy(0, &[RANGE]).await;
    let first = pair.next_batch(0, move_id, 1).await.unwrap();
    assert!(first.range.hi < RANGE.hi);
    pair.hand_over(0, &first).await;
    assert_eq!(abort(&mut pair, move_id).await, [Aborted::Undone]);
    pair.assert_settled().await;
    assert_eq!(
        row_at(&mut pair.sessions[1], first.range.lo).await.state,
        RangeState::Owned
    );
    assert_eq!(
        row_at(&mut pair.sessions[0], first.range.hi).await.state,
        RangeState::Owned
    );
    assert_eq!(count_claims(&mut pair.sessions[1]).await, 1);
    // And it can be tried again.
    let rest = Range {
        lo: first.range.hi,
        hi: RANGE.hi,
    };
    let again = pair.copy(0, &[rest]).await;
    pair.hand_all_over(0, again, 100).await;
    pair.finish(0, again).await;
    pair.assert_settled().await;
    assert_eq!(count_claims(&mut pair.sessions[1]).await, 2);
    pair.end().await;
}

/// An operator wakes up in each step of an abort that another one has done meanwhile, or does the other thing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abort_and_a_hand_over_at_once_end_in_one_owner() {
    for (held, hand_over_first) in [
        ("abort: verified read", true),
        ("abort: source owns", true),
        ("verified", false),
        ("drained", false),
        ("frozen", false),
    ] {
        let mut pair = with_rows().await;
        let move_id = pair.copy(0, &[RANGE]).await;
        let ours = batch(move_id, RANGE.lo, RANGE.hi);
        let [mut source, mut target] = pair.other_sessions().await;
        let (reached, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (told, waits) = (Arc::clone(&reached), Arc::clone(&go_on));
        let hold = move || -> BoxFuture<'static, ()> {
            let (told, waits) = (Arc::clone(&told), Arc::clone(&waits));
            Box::pin(async move {
                told.notify_one();
                waits.notified().await;
            })
        };
        let late = tokio::spawn(at_checkpoint(held, hold, async move {
            if hand_over_first {
                format!("{:?}", moves::abort_range(&mut source, &mut target, &ours).await)
            } else {
                format!(
                    "{:?}",
                    moves::hand_over(&mut source, &mut target, &ours, &patient()).await
                )
            }
        }));
        reached.notified().await;
        let (source, target) = pair.ends(0);
        if hand_over_first {
            let done = moves::hand_over(source, target, &ours, &patient()).await.unwrap();
            assert!(matches!(done, HandOver::Done { .. }), "{held}: {done:?}");
        } else {
            assert_eq!(
                moves::abort_range(source, target, &ours).await.unwrap(),
                Aborted::Undone,
                "{held}"
            );
        }
        go_on.notify_one();
        let late = late.await.unwrap();
        let (source, target) = pair.ends(0);
        let (here, there) = (row_at(source, RANGE.lo).await, row_at(target, RANGE.lo).await);
        let states = if hand_over_first {
            (RangeState::Moved, RangeState::Owned)
        } else {
            (RangeState::Owned, RangeState::Moved)
        };
        assert_eq!((here.state, there.state), states, "{held}: {late}");
        pair.finish(0, move_id).await;
        pair.assert_settled().await;
        pair.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_freeze_that_runs_out_is_counted_and_thawed_and_the_next_one_succeeds() {
    let mut pair = with_rows().await;
    let move_id = pair.copy(0, &[RANGE]).await;
    let ours = batch(move_id, RANGE.lo, RANGE.hi);
    let name = move_id.replication_name();
    let (source, target) = pair.ends(0);
    let mut hasty = patient();
    hasty.pause = std::time::Duration::from_millis(1);
    // The gate is asked while the target still follows; then it stops, so that the marker never arrives.
    for _ in 0..2 {
        let stop = format!("ALTER SUBSCRIPTION {name} DISABLE");
        let database: String = sqlx::query_scalar("SELECT current_database()::text")
            .fetch_one(&mut target.conn)
            .await
            .unwrap();
        let stopping = move || -> BoxFuture<'static, ()> {
            let (stop, database) = (stop.clone(), database.clone());
            Box::pin(async move { run(&mut crate::tests::shards::superuser(&database).await, stop).await })
        };
        let outcome = at_checkpoint("frozen", stopping, moves::hand_over(source, target, &ours, &hasty)).await;
        // The marker may have come before the subscription stopped; then the time was over at the comparison.
        assert!(matches!(outcome, Ok(HandOver::Expired { .. })), "{outcome:?}");
        assert_eq!(row_at(source, RANGE.lo).await.state, RangeState::Owned);
        run(&mut target.conn, format!("ALTER SUBSCRIPTION {name} ENABLE")).await;
    }
    assert_eq!(moves::copies(target).await.unwrap()[0].expired_freezes, 2);
    super::pair::until_done(source, target, &ours).await;
    assert_eq!(moves::copies(target).await.unwrap()[0].expired_freezes, 0);
    pair.finish(0, move_id).await;
    pair.assert_settled().await;
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_differs_is_found_and_its_range_goes_on_being_written() {
    let mut pair = with_rows().await;
    let move_id = pair.copy(0, &[RANGE]).await;
    let ours = batch(move_id, RANGE.lo, RANGE.hi);
    let (source, target) = pair.ends(0);
    run(
        &mut target.conn,
        "SET session_replication_role = replica; DELETE FROM ringwright.contact_claims
         WHERE claim_id = (SELECT claim_id FROM ringwright.contact_claims LIMIT 1); RESET session_replication_role",
    )
    .await;
    let found = moves::pre_verify(source, target, &ours, 100).await.unwrap();
    assert_eq!(found.differing.len(), 1);
    let outcome = moves::hand_over(source, target, &ours, &patient()).await;
    assert!(matches!(outcome, Err(moves::MoveError::Differs { .. })), "{outcome:?}");
    assert_eq!(refusal(&mut source.conn, claim_at(0x3000)).await, "accepted");
    assert_eq!(abort(&mut pair, move_id).await, [Aborted::Undone]);
    assert_undone(&mut pair).await;
    pair.end().await;
}

/// As a row does that the target has before it is visible at the source, whose commit still waits for a standby.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_differs_in_one_look_and_not_in_the_next_is_no_wrong_copy() {
    let mut pair = with_rows().await;
    let move_id = pair.copy(0, &[RANGE]).await;
    let ours = batch(move_id, RANGE.lo, RANGE.hi);
    let shifted = |by: &str| {
        format!(
            "SET session_replication_role = replica;
             UPDATE ringwright.contact_claims SET created_at = created_at {by} interval '1 s'
             WHERE claim_id < '70000000-0000-0000-0000-000000000000'"
        )
    };
    let mut meddler = pair.shards.superuser(Ordinal(1)).await;
    run(&mut meddler, shifted("+")).await;
    let database = pair.shards.database(1).to_owned();
    let back = shifted("-");
    let looks = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&looks);
    let mend = move || -> BoxFuture<'static, ()> {
        let (database, back, first) = (database.clone(), back.clone(), counted.fetch_add(1, SeqCst) == 0);
        Box::pin(async move {
            if first {
                run(&mut superuser(&database).await, back).await;
            }
        })
    };
    let (source, target) = pair.ends(0);
    let found = at_checkpoint("looked", mend, moves::pre_verify(source, target, &ours, 100))
        .await
        .unwrap();
    assert_eq!((looks.load(SeqCst), found.differing), (1, Vec::new()));
    run(&mut meddler, shifted("+")).await;
    let (source, target) = pair.ends(0);
    let found = moves::pre_verify(source, target, &ours, 100).await.unwrap();
    assert_eq!(found.differing.len(), 1, "it differs in every look");
    abort(&mut pair, move_id).await;
    assert_undone(&mut pair).await;
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_knows_of_can_be_dropped_by_its_name_alone() {
    let mut pair = with_rows().await;
    let move_id = pair.copy(0, &[RANGE]).await;
    // The record at the target is lost: what is left says of itself which move it was of.
    run(
        &mut pair.sessions[1].conn,
        "DELETE FROM ringwright.copies; DELETE FROM ringwright.range_owners",
    )
    .await;
    let view = moves::observe(&mut pair.sessions[0]).await.unwrap();
    assert_eq!(
        (view.slots[0].move_id, view.publications.as_slice()),
        (move_id, [move_id].as_slice())
    );
    let view = moves::observe(&mut pair.sessions[1]).await.unwrap();
    assert_eq!(
        (view.subscriptions[0].move_id, view.subscriptions[0].is_ready()),
        (move_id, true)
    );
    let left = moves::remnants(&mut pair.sessions[1]).await.unwrap();
    assert!(left.iter().any(|left| left.kind == "rows"), "{left:?}");
    let (source, target) = pair.ends(0);
    drop_replication(source, target, move_id).await;
    let view = moves::observe(source).await.unwrap();
    assert_eq!((view.slots, view.publications), (Vec::new(), Vec::new()));
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_copy_whose_slot_is_gone_is_seen_and_one_that_is_on_its_way_is_not() {
    let mut pair = with_rows().await;
    let move_id = pair.begin(0, &[RANGE]).await;
    pair.subscribe(0, move_id, &[RANGE]).await;
    // Each table comes through the state that is suspicious, with its slot.
    loop {
        let (source, target) = pair.ends(0);
        assert_eq!(moves::lost_table(source, target, move_id).await.unwrap(), None);
        let progress = moves::copy_progress(target, move_id).await.unwrap();
        if progress.tables > 0 && progress.tables_ready == progress.tables {
            break;
        }
    }
    // What a new master has that lacks the last commit of a table's worker.
    let lacks = format!(
        "UPDATE pg_subscription_rel SET srsubstate = 'f', srsublsn = NULL WHERE srrelid = 'shop.orders'::regclass
             AND srsubid = (SELECT oid FROM pg_subscription WHERE subname = '{}')",
        move_id.replication_name()
    );
    run(&mut pair.sessions[1].conn, lacks).await;
    let (source, target) = pair.ends(0);
    // Its worker begins again and again: it is seen between two of them.
    let deadline = Instant::now() + Duration::from_secs(120);
    let lost = loop {
        if let Some(lost) = moves::lost_table(source, target, move_id).await.unwrap() {
            break lost;
        }
        assert!(Instant::now() < deadline, "it is not seen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(lost, "shop.orders");
    let ours = batch(move_id, RANGE.lo, RANGE.hi);
    assert_eq!(
        moves::abort_range(source, target, &ours).await.unwrap(),
        Aborted::Undone
    );
    drop_replication(source, target, move_id).await;
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cleaning_after_an_abort_waits_for_the_replication_to_be_gone() {
    let mut pair = with_rows().await;
    let move_id = pair.copy(0, &[RANGE]).await;
    let ours = batch(move_id, RANGE.lo, RANGE.hi);
    let (source, target) = pair.ends(0);
    assert_eq!(
        moves::abort_range(source, target, &ours).await.unwrap(),
        Aborted::Undone
    );
    assert_eq!(
        moves::abort_range(source, target, &ours).await.unwrap(),
        Aborted::Undone,
        "again"
    );
    assert!(
        moves::clean_rows(target, &ours, 10).await.is_err(),
        "its subscription is still there"
    );
    drop_replication(source, target, move_id).await;
    clean(target, &ours).await;
    assert_eq!(pair.shards.owner(row_id::Position::new(0x2000)), Ordinal(0));
    assert_undone(&mut pair).await;
    pair.end().await;
}

/// An operator that was stopped before it wrote the move down, and woke when the range had gone to a third shard.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_whose_source_has_given_the_range_to_another_shard_ends_all_the_same() {
    let mut pair = Pair::start().await;
    for (book, gone) in [
        ("(4096, 2147483648, 1, 'moved', 5, gen_random_uuid())", true),
        ("(4096, 2147483648, 1, 'cleaned', 5, NULL)", true),
        ("(4096, 2147483648, 1, 'frozen', 5, gen_random_uuid())", false),
    ] {
        let move_id = pair.begin(0, &[RANGE]).await;
        let sql = format!(
            "DELETE FROM ringwright.range_owners WHERE lo = 4096;
             INSERT INTO ringwright.range_owners (lo, hi, generation, state, target, move_id) VALUES {book}"
        );
        run(&mut pair.sessions[0].conn, sql).await;
        let (source, target) = pair.ends(0);
        let ours = batch(move_id, RANGE.lo, RANGE.hi);
        let aborted = moves::abort_range(source, target, &ours).await.unwrap();
        assert_eq!(aborted == Aborted::Undone, gone, "{book}: {aborted:?}");
        if gone {
            drop_replication(source, target, move_id).await;
            clean(target, &ours).await;
        }
        run(
            &mut pair.sessions[0].conn,
            "UPDATE ringwright.range_owners SET state = 'owned', target = NULL, move_id = NULL WHERE lo = 4096",
        )
        .await;
    }
    pair.end().await;
}

/// What a failover of the target could still take back, it must be able to prove afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_record_of_a_move_outlives_an_activation_that_is_not_durable() {
    let mut pair = with_rows().await;
    let move_id = pair.copy(0, &[RANGE]).await;
    pair.hand_over(0, &batch(move_id, RANGE.lo, RANGE.hi)).await;
    let (source, target) = pair.ends(0);
    target.standbys = vec!["a-member-that-has-not-flushed".to_owned()];
    let early = moves::drop_replication(source, target, move_id).await;
    assert!(matches!(early, Err(MoveError::NotDurable { .. })), "{early:?}");
    let view = moves::observe(target).await.unwrap();
    assert_eq!((view.copies.len(), view.subscriptions.len()), (1, 1));
    target.standbys.clear();
    pair.finish(0, move_id).await;
    pair.assert_settled().await;
    pair.end().await;
}

/// Two operators set a copy up, and the source fails over between what one of them saw and what it does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_timeline_that_a_copy_began_on_is_written_down_once() {
    let mut pair = Pair::start().await;
    let move_id = pair.begin(0, &[RANGE]).await;
    let term = moves::term(&mut pair.sessions[0]).await.unwrap();
    let later = Timeline(term.0 + 1);
    let target = &mut pair.sessions[1];
    for _ in 0..2 {
        moves::set_source_term(target, move_id, term).await.unwrap();
    }
    let other = moves::set_source_term(target, move_id, later).await;
    assert!(matches!(other, Err(MoveError::Refused { .. })), "{other:?}");
    moves::set_copy_state(target, move_id, CopyState::Copying, None)
        .await
        .unwrap();
    let late = moves::set_source_term(target, move_id, term).await;
    assert!(matches!(late, Err(MoveError::Refused { .. })), "{late:?}");
    assert_eq!(moves::copies(target).await.unwrap()[0].source_term, Some(term));
    pair.end().await;
}
