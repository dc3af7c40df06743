//! Two operators at once.

use std::time::Duration;

use ring::{Ordinal, Range};

use super::ledger::Load;
use super::pair::{Pair, batch, claim_at, patient, row_at};
use crate::admin::{self, Role};
use crate::moves::{self, Attempt, HandOver, RangeState};
use crate::tests::shards::run;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_operators_hand_the_same_batches_over_and_do_no_harm() {
    let mut pair = Pair::start().await;
    let (notifier, _credentials) = pair.shards.other_store(Role::Notifier);
    let load = Load::start(&pair.shards.store, &notifier, 2);
    load.wait_for_orders(30).await;
    let mut done = 0;
    for from in [0, 1] {
        let [mut zero, mut one] = pair.other_sessions().await;
        let move_id = pair.copy(from, &[Range { lo: 0, hi: 1 << 31 }]).await;
        while let Some(batch) = pair.next_batch(from, move_id, 40).await {
            let limits = patient();
            let (source, target) = pair.ends(from);
            let (other_source, other_target) = if from == 0 {
                (&mut zero, &mut one)
            } else {
                (&mut one, &mut zero)
            };
            let outcomes = tokio::join!(
                moves::hand_over(source, target, &batch, &limits),
                moves::hand_over(other_source, other_target, &batch, &limits),
            );
            // Refused is an answer too: what the one has cut or handed over, the other does not know.
            for outcome in [outcomes.0, outcomes.1] {
                match outcome {
                    Ok(HandOver::Done { .. }) => done += 1,
                    Ok(_) => {}
                    Err(error) => assert!(error.keeps_session(), "{}", error.in_full()),
                }
            }
        }
        pair.finish(from, move_id).await;
    }
    assert!(done >= 4, "{done}");
    let ledger = load.stop().await;
    pair.assert_settled().await;
    ledger.assert_kept(&pair.shards).await;
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_that_was_paused_in_the_freeze_finds_its_attempt_gone() {
    let mut pair = Pair::start().await;
    let move_id = pair.copy(0, &[Range::ALL]).await;
    let all = batch(move_id, 0, 1 << 32);
    let [mut source, mut target] = pair.other_sessions().await;
    super::undone::killed_at("verified", moves::hand_over(&mut source, &mut target, &all, &patient())).await;
    let first = row_at(&mut source, 0).await.attempt;
    // Its time is over; the successor freezes anew.
    let (here, there) = pair.ends(0);
    assert!(moves::thaw_now(here, &all, first).await.unwrap());
    let hosts = there.hosts.clone();
    let again = moves::freeze(here, &all, there.shard, &hosts, patient().pause)
        .await
        .unwrap();
    assert_eq!(again.attempt, Attempt(first.0 + 1));
    assert!(
        !moves::commit_move(&mut source, &all, first).await.unwrap(),
        "the paused one wakes up"
    );
    assert!(!moves::thaw_now(&mut source, &all, first).await.unwrap());
    assert_eq!(row_at(here, 0).await.state, RangeState::Frozen);
    pair.hand_over(0, &all).await;
    pair.finish(0, move_id).await;
    pair.assert_settled().await;
    pair.end().await;
}

#[tokio::test]
async fn an_operator_that_is_stopped_in_a_step_leaves_no_lock_behind() {
    const SHARE: &str =
        "BEGIN; SELECT pg_advisory_xact_lock_shared(range_id) FROM ringwright.range_owners WHERE lo = 0";
    let range = Range { lo: 0, hi: 1 << 31 };
    let mut pair = Pair::start().await;
    let move_id = pair.begin(0, &[range]).await;
    let half = batch(move_id, range.lo, range.hi);
    let [mut writer, _] = pair.other_sessions().await;
    let mut beside = pair.shards.superuser(Ordinal(0)).await;
    let (source, target) = pair.ends(0);
    moves::ensure_publication(source, move_id, &[range]).await.unwrap();
    let frozen = moves::freeze(source, &half, target.shard, &target.hosts, patient().pause)
        .await
        .unwrap();
    run(&mut writer.conn, SHARE).await;
    let operator = admin::backend(&mut source.conn).await.unwrap();
    let mut step = Box::pin(moves::thaw_now(source, &half, frozen.attempt));
    let waits = async {
        while admin::blockers(&mut beside, operator).await.unwrap() != Some(1) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        stepped = &mut step => panic!("it did not wait for the writer: {stepped:?}"),
        () = waits => {}
    }
    run(&mut writer.conn, "COMMIT").await;
    // The step is polled no more: its operator is stopped. A write waits for two seconds at most.
    run(&mut writer.conn, claim_at(1)).await;
    assert!(step.await.unwrap());
    pair.end().await;
}
