use std::time::Duration;

use ring::Ordinal;
use row_id::EventId;

use super::orders::{place, place_by, render_order};
use super::shards::{Shards, key};
use crate::BasedOn;
use crate::orders::OrderStatus;
use crate::outbox::WRITER_HOLDS;

const HOLD: Duration = Duration::from_secs(30);
const FREE_ALL: &str = "UPDATE ringwright.outbox SET held_until = now() - interval '1 second'";

#[tokio::test]
async fn an_event_is_left_to_its_writer_first_and_then_taken_once() {
    let shards = Shards::start(1).await;
    let (store, shard) = (&shards.store, Ordinal(0));
    let user = shards.create_user().await;
    let before: String = shards.scalar(shard, "SELECT now()::text").await;
    let order = place(&shards, user).await;
    store
        .set_order_status(key(), order, OrderStatus::Processed, BasedOn::Any, render_order)
        .await
        .unwrap();
    let held = format!(
        "SELECT count(*) FROM ringwright.outbox WHERE held_until >= '{before}'::timestamptz + interval '{} s'",
        WRITER_HOLDS.as_secs()
    );
    assert_eq!(shards.total(&held).await, 2, "its writer publishes it");

    shards.execute(shard, FREE_ALL).await;
    let backlog = store.outbox_backlog(shard).await.unwrap();
    assert!(
        backlog.count == 2 && backlog.oldest.unwrap() < Duration::from_secs(60),
        "{backlog:?}"
    );
    let taken = store.take_events(shard, 10, HOLD).await.unwrap();
    assert_eq!(taken.iter().map(|event| event.sequence).collect::<Vec<_>>(), [1, 2]);
    assert!(
        store.take_events(shard, 10, HOLD).await.unwrap().is_empty(),
        "taken events are held"
    );

    let ids: Vec<EventId> = taken.iter().map(|event| event.event_id).collect();
    store.release_events(&ids[..1]).await.unwrap();
    assert_eq!(store.take_events(shard, 10, HOLD).await.unwrap().len(), 1);
    store.mark_published(&ids).await.unwrap();
    store.mark_published(&ids).await.unwrap();
    assert_eq!(store.outbox_backlog(shard).await.unwrap().count, 0);
    shards.end().await;
}

#[tokio::test]
async fn pollers_at_once_never_take_one_event_twice() {
    let shards = Shards::start(1).await;
    let user = shards.create_user().await;
    for _ in 0..30 {
        place(&shards, user).await;
    }
    shards.execute(Ordinal(0), FREE_ALL).await;
    let pollers = (0..10).map(|_| shards.store.take_events(Ordinal(0), 4, HOLD));
    let mut taken = Vec::new();
    for events in futures::future::join_all(pollers).await {
        taken.extend(events.unwrap().into_iter().map(|event| event.event_id));
    }
    // Pollers that ran into each other's locks may have got less; the next poll gets the rest.
    let rest = shards.store.take_events(Ordinal(0), 30, HOLD).await.unwrap();
    taken.extend(rest.into_iter().map(|event| event.event_id));
    assert_eq!(taken.len(), 30, "nothing is left, and nothing comes twice");
    taken.sort();
    taken.dedup();
    assert_eq!(taken.len(), 30, "nothing came twice");
    shards.end().await;
}

#[tokio::test]
async fn events_of_ranges_that_are_not_owned_here_are_left_to_their_owner() {
    let shards = Shards::start(1).await;
    let user = shards.create_user().await;
    place(&shards, user).await;
    shards.execute(Ordinal(0), FREE_ALL).await;
    shards
        .execute(
            Ordinal(0),
            "UPDATE ringwright.range_owners SET state = 'moved', target = 1",
        )
        .await;
    assert!(shards.store.take_events(Ordinal(0), 10, HOLD).await.unwrap().is_empty());
    assert_eq!(shards.store.outbox_backlog(Ordinal(0)).await.unwrap().count, 0);
    shards
        .execute(
            Ordinal(0),
            "UPDATE ringwright.range_owners SET state = 'owned', target = NULL",
        )
        .await;
    assert_eq!(shards.store.take_events(Ordinal(0), 10, HOLD).await.unwrap().len(), 1);
    shards.end().await;
}

#[tokio::test]
async fn confirmed_events_of_many_shards_are_forgotten_in_one_call() {
    let shards = Shards::start(3).await;
    let mut events = Vec::new();
    for _ in 0..9 {
        let user = shards.create_user().await;
        let written = place_by(&shards, &key(), user).await;
        events.extend(written.events.iter().map(|event| event.event_id));
    }
    shards.store.mark_published(&events).await.unwrap();
    assert_eq!(shards.total("SELECT count(*) FROM ringwright.outbox").await, 0);
    shards.end().await;
}
