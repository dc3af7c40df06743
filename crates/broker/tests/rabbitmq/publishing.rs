//! The publisher.

use std::time::Duration;

use broker::{Event, Health, PublishError};
use futures::future::join_all;
use lapin::{options::QueueDeclareOptions, types::FieldTable};

use crate::installation::{Installation, event, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_published_event_lies_persistent_in_the_notifiers_queue() {
    let here = Installation::new().await;
    let publisher = here.connected_publisher().await;
    let event = event();
    publisher.publish(&event).await.unwrap();

    let message = here.take(&here.topology.notifier()).await;
    assert_eq!(Event::from_json(&message.data).unwrap(), event);
    assert_eq!(message.routing_key.as_str(), "order.processed");
    assert_eq!(message.properties.delivery_mode(), &Some(2));
    assert_eq!(
        message.properties.message_id().as_ref().unwrap().to_string(),
        event.id.to_string()
    );
    assert_eq!(
        message.properties.content_type().as_ref().unwrap().as_str(),
        "application/json"
    );
    here.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_events_at_once_are_all_confirmed_within_the_bound() {
    let here = Installation::new().await;
    let publisher = here.publisher_with(|config| config.max_in_flight = 16);
    until("the publisher is connected", async || {
        publisher.health() == Health::Connected
    })
    .await;
    let events: Vec<Event> = (0..1000).map(|_| event()).collect();
    let (results, most) = tokio::join!(join_all(events.iter().map(|event| publisher.publish(event))), async {
        let mut most = 0;
        while most == 0 || publisher.in_flight() > 0 {
            most = most.max(publisher.in_flight());
            tokio::task::yield_now().await;
        }
        most
    });
    assert!(
        results.iter().all(Result::is_ok),
        "{:?}",
        results.iter().find(|result| result.is_err())
    );
    assert!(most <= 16, "{most} in flight");
    let mut left: std::collections::HashSet<_> = events.iter().map(|event| event.id).collect();
    while !left.is_empty() {
        let message = here.take(&here.topology.notifier()).await;
        assert!(
            left.remove(&Event::from_json(&message.data).unwrap().id),
            "an event came twice"
        );
    }
    here.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_the_bound_is_refused_at_once_instead_of_piling_up() {
    let here = Installation::new().await;
    let publisher = here.publisher_with(|config| (config.max_in_flight, config.max_waiting) = (2, 3));
    until("the publisher is connected", async || {
        publisher.health() == Health::Connected
    })
    .await;
    let events: Vec<Event> = (0..20).map(|_| event()).collect();
    let results = join_all(events.iter().map(|event| publisher.publish(event))).await;
    let saturated = results
        .iter()
        .filter(|result| matches!(result, Err(PublishError::Saturated { .. })))
        .count();
    assert_eq!(
        (results.iter().filter(|result| result.is_ok()).count(), saturated),
        (5, 15)
    );
    here.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_broker_publishing_fails_at_once_and_works_once_it_is_there() {
    let here = Installation::new().await;
    here.proxy.refuse(true);
    let publisher = here.publisher();
    let failed = |health: &Health| matches!(health, Health::Connecting { reason: Some(_) });
    until("a try has failed", async || failed(&publisher.health())).await;
    let started = tokio::time::Instant::now();
    let refusal = publisher.publish(&event()).await.unwrap_err();
    assert!(matches!(refusal, PublishError::Disconnected { .. }), "{refusal}");
    assert!(started.elapsed() < Duration::from_secs(20), "it waited for its limit");

    here.proxy.refuse(false);
    until("the publisher is connected", async || {
        publisher.health() == Health::Connected
    })
    .await;
    publisher.publish(&event()).await.unwrap();
    here.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_connection_is_replaced() {
    let here = Installation::new().await;
    let publisher = here.connected_publisher().await;
    for _ in 0..3 {
        publisher.publish(&event()).await.unwrap();
        here.proxy.cut();
        until("the loss is noticed", async || publisher.health() != Health::Connected).await;
        until("the publisher is connected again", async || {
            publisher.health() == Health::Connected
        })
        .await;
    }
    publisher.publish(&event()).await.unwrap();
    here.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_connection_refuses_messages_at_once_until_the_alarm_is_over() {
    let here = Installation::new().await;
    let publisher = here.connected_publisher().await;
    here.proxy.block("low on disk");
    until("the block is noticed", async || publisher.health().is_blocked()).await;
    assert_eq!(
        publisher.health(),
        Health::Blocked {
            reason: "low on disk".to_owned()
        }
    );
    let refusal = publisher.publish(&event()).await.unwrap_err();
    assert!(
        matches!(&refusal, PublishError::Blocked { reason } if reason == "low on disk"),
        "{refusal}"
    );

    here.proxy.unblock();
    until("the alarm is over", async || publisher.health() == Health::Connected).await;
    publisher.publish(&event()).await.unwrap();
    assert!(here.try_take(&here.topology.notifier()).await.is_some());
    assert!(
        here.try_take(&here.topology.notifier()).await.is_none(),
        "the refused event was sent all the same"
    );
    here.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_no_queue_takes_is_an_error_and_the_topology_is_made_anew() {
    let here = Installation::new().await;
    let publisher = here.connected_publisher().await;
    here.delete_queue(&here.topology.notifier()).await;
    let refusal = publisher.publish(&event()).await.unwrap_err();
    assert!(matches!(refusal, PublishError::Unroutable { .. }), "{refusal}");
    publisher.publish(&event()).await.unwrap();
    here.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_declared_otherwise_gives_an_error_that_says_what_to_do() {
    let here = Installation::new().await;
    let queue = here.topology.notifier();
    let options = QueueDeclareOptions {
        durable: true,
        ..Default::default()
    };
    here.channel
        .queue_declare(queue.as_str().into(), options, FieldTable::default())
        .await
        .unwrap();
    let publisher = here.publisher();
    until("a try has failed", async || {
        matches!(publisher.health(), Health::Connecting { reason: Some(_) })
    })
    .await;
    let told = publisher.health().to_string();
    assert!(
        told.contains(&queue) && told.contains("other properties") && told.contains("delete_queue"),
        "{told}"
    );

    here.delete_queue(&queue).await;
    until("the publisher is connected", async || {
        publisher.health() == Health::Connected
    })
    .await;
    here.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_url_is_read_anew_at_each_try_and_a_refused_password_is_not_shown() {
    let here = Installation::new().await;
    let url = std::fs::read_to_string(here.url_file()).unwrap();
    let (user, rest) = url.split_once('@').unwrap();
    std::fs::write(here.url_file(), format!("{}-w0rse@{rest}", user)).unwrap();
    let publisher = here.publisher();
    until("a try has failed", async || {
        matches!(publisher.health(), Health::Connecting { reason: Some(_) })
    })
    .await;
    let told = publisher.health().to_string();
    assert!(told.contains("ACCESS") && !told.contains("w0rse"), "{told}");

    std::fs::write(here.url_file(), url).unwrap();
    until("the publisher is connected", async || {
        publisher.health() == Health::Connected
    })
    .await;
    here.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_ends_the_connection_in_order() {
    let here = Installation::new().await;
    let publisher = here.connected_publisher().await;
    publisher.close().await;
    assert_eq!(publisher.health(), Health::Closed);
    assert!(matches!(
        publisher.publish(&event()).await,
        Err(PublishError::Disconnected { .. })
    ));
    here.remove().await;
}
