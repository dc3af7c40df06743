//! Whole moves under load, there and back again.

use ring::{Ordinal, Range};
use row_id::EventId;
use sqlx::Row;

use super::ledger::Load;
use super::pair::Pair;
use crate::admin::Role;
use crate::moves;
use crate::tests::orders::{new_order, render_order};
use crate::tests::shards::key;

/// Two ranges with something between them, one of them up to the end of the ring.
const RANGES: [Range; 2] = [
    Range {
        lo: 0x1000_0000,
        hi: 0x6000_0000,
    },
    Range {
        lo: 0x9000_0000,
        hi: 1 << 32,
    },
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_go_there_and_back_three_times_and_nothing_is_lost_or_doubled() {
    let mut pair = Pair::start().await;
    let (notifier, _credentials) = pair.shards.other_store(Role::Notifier);
    let load = Load::start(&pair.shards.store, &notifier, 4);
    load.wait_for_orders(100).await;
    for _ in 0..3 {
        for from in [0, 1] {
            let move_id = pair.copy(from, &RANGES).await;
            load.wait_for_orders(20).await;
            let pauses = pair.hand_all_over(from, move_id, 200).await;
            assert!(pauses.len() >= RANGES.len());
            pair.finish(from, move_id).await;
            load.wait_for_orders(20).await;
        }
    }
    let ledger = load.stop().await;
    pair.assert_settled().await;
    ledger.assert_kept(&pair.shards).await;
    ledger.assert_repeats(&pair.shards.store, 50).await;
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_guarded_table_moves_and_its_source_is_left_empty() {
    let mut pair = Pair::start().await;
    let guarded: Vec<String> = sqlx::query_scalar(
        "SELECT tgrelid::regclass::text FROM pg_trigger WHERE tgname = 'ringwright_fence' ORDER BY 1",
    )
    .fetch_all(&mut pair.sessions[0].conn)
    .await
    .unwrap();
    let moved: Vec<String> = sqlx::query_scalar("SELECT relation FROM ringwright.moved_tables() ORDER BY 1")
        .fetch_all(&mut pair.sessions[0].conn)
        .await
        .unwrap();
    assert_eq!(moved, guarded, "what is guarded moves, and nothing else");

    let (notifier, _credentials) = pair.shards.other_store(Role::Notifier);
    let load = Load::start(&pair.shards.store, &notifier, 2);
    load.wait_for_orders(20).await;
    let ledger = load.stop().await;
    let digest = "SELECT relation, rows, hash::text FROM ringwright.range_digest(0, 4294967296) ORDER BY 1";
    let before = sqlx::query(digest).fetch_all(&mut pair.sessions[0].conn).await.unwrap();
    assert!(
        before.iter().all(|row| row.get::<i64, _>(1) > 0),
        "each table has rows to move"
    );
    let move_id = pair.copy(0, &[Range::ALL]).await;
    let batch = super::pair::batch(move_id, 0, 1 << 32);
    let (source, target) = pair.ends(0);
    let compared = moves::pre_verify(source, target, &batch, 50).await.unwrap();
    let rows: i64 = before.iter().map(|row| row.get::<i64, _>(1)).sum();
    assert!(compared.differing.is_empty(), "{compared:?}");
    assert_eq!(compared.rows, rows.cast_unsigned(), "all rows are compared, in chunks");
    assert!(rows > 50, "more than one chunk");
    pair.hand_all_over(0, move_id, 100).await;
    pair.finish(0, move_id).await;
    pair.assert_settled().await;
    let after = sqlx::query(digest).fetch_all(&mut pair.sessions[1].conn).await.unwrap();
    let facts = |rows: &[sqlx::postgres::PgRow]| -> Vec<(String, i64, String)> {
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
    };
    assert_eq!(facts(&after), facts(&before));
    let left = sqlx::query(digest).fetch_all(&mut pair.sessions[0].conn).await.unwrap();
    assert!(left.iter().all(|row| row.get::<i64, _>(1) == 0));
    ledger.assert_kept(&pair.shards).await;
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_move_and_only_their_owner_publishes_them() {
    let mut pair = Pair::start().await;
    let user = pair.shards.create_user().await;
    for _ in 0..3 {
        pair.shards
            .store
            .create_order(key(), new_order(user), render_order)
            .await
            .unwrap();
    }
    let free = "UPDATE ringwright.outbox SET held_until = now() - interval '1 second'";
    pair.shards.execute(Ordinal(0), free).await;
    let move_id = pair.copy(0, &[Range::ALL]).await;
    pair.hand_all_over(0, move_id, 1_000).await;
    let rows = "SELECT count(*) FROM ringwright.outbox";
    for shard in [Ordinal(0), Ordinal(1)] {
        assert_eq!(pair.shards.scalar::<i64>(shard, rows).await, 3, "not cleaned yet");
    }
    let hold = std::time::Duration::from_secs(30);
    let store = &pair.shards.store;
    assert_eq!(store.take_events(Ordinal(0), 10, hold).await.unwrap(), []);
    assert_eq!(store.outbox_backlog(Ordinal(0)).await.unwrap().count, 0);
    let taken = store.take_events(Ordinal(1), 10, hold).await.unwrap();
    assert_eq!(taken.len(), 3);
    // Whoever took them before the move finds them where they are now.
    let ids: Vec<EventId> = taken.iter().map(|event| event.event_id).collect();
    store.mark_published(&ids).await.unwrap();
    assert_eq!(pair.shards.scalar::<i64>(Ordinal(1), rows).await, 0);
    pair.finish(0, move_id).await;
    pair.assert_settled().await;
    pair.end().await;
}
