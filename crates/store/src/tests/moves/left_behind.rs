//! What a range left behind when it moved: it stays until it is deleted, says what was so once, and decides nothing.

use std::time::{Duration, Instant};

use ring::{Ordinal, Range};
use row_id::{EventId, UserId};
use uuid::Uuid;

use super::pair::{Pair, carve};
use crate::admin::Role;
use crate::error::StoreError;
use crate::orders::OrderStatus;
use crate::store::Store;
use crate::tests::orders::{place, render_order};
use crate::tests::shards::{key, new_user, new_user_at, render_user};
use crate::version::BasedOn;

async fn change_address(store: &Store, user: UserId, based_on: BasedOn, to: &str) -> Result<(), StoreError> {
    let changed = store
        .update_user(key(), user, based_on, new_user_at(to), render_user)
        .await;
    changed.map(drop)
}

/// Each request comes from a program of its own, which has learned nothing, and whose ring is from before the move.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_a_range_left_behind_decide_nothing() {
    let mut pair = Pair::start().await;
    let user = pair.shards.create_user().await;
    let order = place(&pair.shards, user).await;
    let first = new_user().email_address;
    let address = new_user().email_address;
    change_address(&pair.shards.store, user, BasedOn::version(1), &first)
        .await
        .unwrap();
    let move_id = pair.copy(0, &[Range::ALL]).await;
    // A range for each row: no redirect tells of another.
    pair.hand_all_over(0, move_id, 1).await;
    let store = &pair.shards.store;
    let processed = OrderStatus::Processed;
    store
        .set_order_status(key(), order, processed, BasedOn::version(1), render_order)
        .await
        .unwrap();
    change_address(store, user, BasedOn::version(2), &address)
        .await
        .unwrap();

    let mut programs = Vec::new();
    let mut program = || {
        let (store, credentials) = pair.shards.other_store(Role::App);
        programs.push(credentials);
        store
    };
    let late = program()
        .set_order_status(key(), order, OrderStatus::Cancelled, BasedOn::version(2), render_order)
        .await;
    assert!(
        matches!(late, Err(StoreError::InvalidTransition { from, .. }) if from == processed),
        "{late:?}"
    );
    let taken = program().create_user(key(), new_user_at(&address), render_user).await;
    assert!(matches!(taken, Err(StoreError::EmailTaken)), "{taken:?}");
    program()
        .create_user(key(), new_user_at(&first), render_user)
        .await
        .expect("the address that the user has left is free");
    change_address(&program(), user, BasedOn::version(3), &new_user().email_address)
        .await
        .unwrap();
    pair.finish(0, move_id).await;
    pair.assert_settled().await;
    assert_eq!(
        pair.shards
            .scalar::<i64>(Ordinal(1), "SELECT count(*) FROM ringwright.contact_claims")
            .await,
        4,
        "an address and a number of each user"
    );
    pair.end().await;
}

/// Half of the ranges have gone and left their rows, the other half is half copied: of events that lie together here, each
/// would lead somewhere else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn published_events_are_forgotten_in_the_middle_of_a_move() {
    const HALF: u64 = 1 << 31;
    let mut pair = Pair::start().await;
    for _ in 0..12 {
        let user = pair.shards.create_user().await;
        place(&pair.shards, user).await;
    }
    let events: Vec<Uuid> = sqlx::query_scalar("SELECT event_id FROM ringwright.outbox")
        .fetch_all(&mut pair.sessions[0].conn)
        .await
        .unwrap();
    let events: Vec<EventId> = events.into_iter().map(|id| EventId::from_uuid(id).unwrap()).collect();
    assert_eq!(events.len(), 12);
    carve(&mut pair.sessions[0], Range { lo: 0, hi: HALF }).await;
    let move_id = pair.copy(0, &[Range::ALL]).await;
    while let Some(batch) = pair.next_batch(0, move_id, 5).await
        && batch.range.hi <= HALF
    {
        pair.hand_over(0, &batch).await;
    }
    let (program, _credentials) = pair.shards.other_store(Role::App);
    let began = Instant::now();
    program.mark_published(&events).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    pair.hand_all_over(0, move_id, 100).await;
    pair.finish(0, move_id).await;
    pair.assert_settled().await;
    let left = pair
        .shards
        .scalar::<i64>(Ordinal(1), "SELECT count(*) FROM ringwright.outbox")
        .await;
    assert_eq!(left, 0);
    pair.end().await;
}
