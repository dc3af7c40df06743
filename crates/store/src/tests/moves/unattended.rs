//! What programs do when the operator is gone in the middle of a hand-over.

use std::time::Duration;

use ring::{Ordinal, Range};

use super::pair::{Pair, batch, patient, row_at};
use super::undone::killed_at;
use crate::moves::{self, HandOverLimits, RangeState};
use crate::tests::orders::{new_order, order_of, render_order};
use crate::tests::shards::{eventually, key};
use crate::{ReadAt, StoreError};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_thaws_a_freeze_that_is_over() {
    let mut pair = Pair::start().await;
    let user = pair.shards.create_user().await;
    let move_id = pair.copy(0, &[Range::ALL]).await;
    let all = batch(move_id, 0, 1 << 32);
    let limits = HandOverLimits {
        pause: Duration::from_millis(300),
        ..patient()
    };
    let (source, target) = pair.ends(0);
    killed_at("frozen", moves::hand_over(source, target, &all, &limits)).await;
    let attempt = row_at(source, 0).await.attempt;
    let store = &pair.shards.store;
    let writes = (0..8).map(|_| store.create_order(key(), new_order(user), render_order));
    for written in futures::future::join_all(writes).await {
        assert_eq!(written.unwrap().token.shard, Ordinal(0));
    }
    let row = row_at(&mut pair.sessions[0], 0).await;
    assert_eq!((row.state, row.attempt), (RangeState::Owned, attempt));
    // What the dead operator's successor does then.
    pair.hand_over(0, &all).await;
    pair.finish(0, move_id).await;
    pair.assert_settled().await;
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_and_reads_finish_a_move_that_is_behind_its_commit_point() {
    for by_reading in [false, true] {
        let mut pair = Pair::start().await;
        let user = pair.shards.create_user().await;
        let first = pair
            .shards
            .store
            .create_order(key(), new_order(user), render_order)
            .await
            .unwrap();
        let move_id = pair.copy(0, &[Range::ALL]).await;
        let all = batch(move_id, 0, 1 << 32);
        let (source, target) = pair.ends(0);
        killed_at("committed", moves::hand_over(source, target, &all, &patient())).await;
        assert_eq!(row_at(target, 0).await.state, RangeState::Importing);
        let store = &pair.shards.store;
        if by_reading {
            let read = store.get_order(order_of(&first), &ReadAt::strong()).await.unwrap();
            assert!(read.value.is_some());
            assert_eq!(read.token.shard, Ordinal(1));
        } else {
            let written = store.create_order(key(), new_order(user), render_order).await.unwrap();
            assert_eq!((written.token.shard, written.token.generation.0), (Ordinal(1), 2));
        }
        let row = row_at(&mut pair.sessions[1], 0).await;
        assert_eq!((row.state, row.generation.0), (RangeState::Owned, 2));
        pair.finish(0, move_id).await;
        pair.assert_settled().await;
        pair.end().await;
    }
}

/// Where commits do not wait for a standby, what the source says may be forgotten by a promotion.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_finishes_a_move_by_what_a_member_that_may_be_promoted_does_not_have() {
    let mut pair = Pair::with(|config| {
        config.write_deadline = Duration::from_secs(3);
        config.read_deadline = Duration::from_secs(2);
    })
    .await;
    let user = pair.shards.create_user().await;
    let move_id = pair.copy(0, &[Range::ALL]).await;
    let all = batch(move_id, 0, 1 << 32);
    let (source, target) = pair.ends(0);
    killed_at("committed", moves::hand_over(source, target, &all, &patient())).await;
    // A member of the source that streams from nobody.
    pair.shards.add_member(0, "localhost:1".to_owned());
    let store = &pair.shards.store;
    let refused = store.create_order(key(), new_order(user), render_order).await;
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
    assert!(store.get_user(user, &ReadAt::strong()).await.is_err());
    assert_eq!(row_at(&mut pair.sessions[1], 0).await.state, RangeState::Importing);
    // The operator knows better: that member is not to be promoted.
    pair.hand_over(0, &all).await;
    let (store, last) = (&pair.shards.store, &key());
    eventually("an order is placed", || async move {
        let placed = store.create_order(last.clone(), new_order(user), render_order);
        placed.await.is_ok()
    })
    .await;
    pair.finish(0, move_id).await;
    pair.assert_settled().await;
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_freeze_that_is_not_over_is_waited_for_and_a_repeat_gets_its_first_answer_behind_it() {
    let mut pair = Pair::start().await;
    let user = pair.shards.create_user().await;
    let first_key = key();
    let first = pair
        .shards
        .store
        .create_order(first_key.clone(), new_order(user), render_order)
        .await
        .unwrap();
    let move_id = pair.copy(0, &[Range::ALL]).await;
    let all = batch(move_id, 0, 1 << 32);
    let [mut source, mut target] = pair.other_sessions().await;
    killed_at("verified", moves::hand_over(&mut source, &mut target, &all, &patient())).await;
    let store = pair.shards.store.clone();
    let repeated = tokio::spawn(async move { store.create_order(first_key, new_order(user), render_order).await });
    let store = pair.shards.store.clone();
    let placed = tokio::spawn(async move { store.create_order(key(), new_order(user), render_order).await });
    // Reads go on meanwhile: the source's master has every acknowledged row.
    let read = pair
        .shards
        .store
        .get_order(order_of(&first), &ReadAt::strong())
        .await
        .unwrap();
    assert!(read.value.is_some());
    pair.hand_over(0, &all).await;
    let repeated = repeated.await.unwrap().unwrap();
    assert!(repeated.repeated && repeated.response == first.response);
    assert_eq!(placed.await.unwrap().unwrap().token.shard, Ordinal(1));
    pair.finish(0, move_id).await;
    pair.assert_settled().await;
    assert_eq!(pair.shards.total("SELECT count(*) FROM shop.orders").await, 2);
    pair.end().await;
}
