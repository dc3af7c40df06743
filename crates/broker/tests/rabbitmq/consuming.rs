//! The consumer.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use broker::{Delivery, Handler, Outcome, RetryTier};
use futures::poll;
use lapin::{BasicProperties, options::BasicPublishOptions, types::AMQPValue};
use tokio::sync::Semaphore;

use crate::installation::{Installation, event, until};

/// Answers what the test wants, and remembers what it was given.
struct Script {
    answers: Mutex<VecDeque<Outcome>>,
    seen: Mutex<Vec<Delivery>>,
    /// A delivery waits here until the test lets it go.
    gate: Semaphore,
}

impl Script {
    /// These answers, then `Ack`.
    fn answering(answers: impl IntoIterator<Item = Outcome>) -> Arc<Self> {
        Self::with_gate(answers, Semaphore::MAX_PERMITS)
    }

    fn with_gate(answers: impl IntoIterator<Item = Outcome>, open_for: usize) -> Arc<Self> {
        Arc::new(Self {
            answers: Mutex::new(answers.into_iter().collect()),
            seen: Mutex::default(),
            gate: Semaphore::new(open_for),
        })
    }

    fn seen(&self) -> Vec<Delivery> {
        self.seen.lock().unwrap().clone()
    }
}

impl Handler for Script {
    async fn handle(&self, delivery: Delivery) -> Outcome {
        self.seen.lock().unwrap().push(delivery);
        self.gate.acquire().await.unwrap().forget();
        self.answers.lock().unwrap().pop_front().unwrap_or(Outcome::Ack)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledged_event_is_gone() {
    let here = Installation::new().await;
    let script = Script::answering([]);
    let consumer = here.consumer(script.clone()).await;
    let event = event();
    here.connected_publisher().await.publish(&event).await.unwrap();
    until("the event is handled", async || !script.seen().is_empty()).await;
    consumer.stop(Duration::from_secs(5)).await;
    assert_eq!(script.seen()[0].event, event);
    assert_eq!((script.seen()[0].attempt, script.seen()[0].redelivered), (0, false));
    assert!(here.try_take(&here.topology.notifier()).await.is_none());
    here.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_put_back_returns_after_its_rest_with_a_higher_attempt() {
    let here = Installation::new().await;
    let script = Script::answering([Outcome::RetryLater(RetryTier::Soon)]);
    let consumer = here.consumer(script.clone()).await;
    let event = event();
    let started = tokio::time::Instant::now();
    here.connected_publisher().await.publish(&event).await.unwrap();
    until("the event is back", async || script.seen().len() == 2).await;
    assert!(
        started.elapsed() >= RetryTier::Soon.rest(),
        "back after {:?}",
        started.elapsed()
    );
    assert_eq!(script.seen()[1].event, event);
    assert_eq!(script.seen()[1].attempt, 1);
    consumer.stop(Duration::from_secs(5)).await;
    here.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_can_handle_waits_in_the_dead_letter_queue_with_its_reason() {
    let here = Installation::new().await;
    let script = Script::answering([Outcome::DeadLetter("the order does not exist".to_owned())]);
    let consumer = here.consumer(script.clone()).await;
    here.connected_publisher().await.publish(&event()).await.unwrap();
    let dead = here.take(&here.topology.notifier_dead()).await;
    assert_eq!(reason(&dead.properties), "the order does not exist");

    let properties = BasicProperties::default();
    let (exchange, options) = (here.topology.events(), BasicPublishOptions::default());
    here.channel
        .basic_publish(
            exchange.as_str().into(),
            "order.processed".into(),
            options,
            b"no event",
            properties,
        )
        .await
        .unwrap();
    let dead = here.take(&here.topology.notifier_dead()).await;
    assert!(
        reason(&dead.properties).contains("is no event"),
        "{}",
        reason(&dead.properties)
    );
    assert_eq!(script.seen().len(), 1, "a body that is no event reached the handler");
    consumer.stop(Duration::from_secs(5)).await;
    here.remove().await;
}

fn reason(properties: &BasicProperties) -> String {
    match properties
        .headers()
        .as_ref()
        .unwrap()
        .inner()
        .get("x-ringwright-reason")
    {
        Some(AMQPValue::LongString(reason)) => reason.to_string(),
        other => panic!("no reason: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn consuming_goes_on_after_the_connection_was_cut_and_the_event_in_hand_comes_again() {
    let here = Installation::new().await;
    let script = Script::with_gate([], 0);
    let consumer = here.consumer(script.clone()).await;
    let publisher = here.connected_publisher().await;
    let event = event();
    publisher.publish(&event).await.unwrap();
    until("the event is in hand", async || script.seen().len() == 1).await;
    here.proxy.cut();
    until("it is delivered again", async || script.seen().len() == 2).await;
    assert_eq!(script.seen()[1].event, event);
    assert!(script.seen()[1].redelivered);
    script.gate.add_permits(2);
    consumer.stop(Duration::from_secs(5)).await;
    assert!(here.try_take(&here.topology.notifier()).await.is_none());
    here.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn consuming_goes_on_after_the_broker_cancelled_the_consumer() {
    let here = Installation::new().await;
    let script = Script::answering([]);
    let consumer = here.consumer(script.clone()).await;
    here.delete_queue(&here.topology.notifier()).await;
    until("the cancellation is noticed", async || !consumer.is_consuming()).await;
    until("consuming goes on", async || consumer.is_consuming()).await;
    here.connected_publisher().await.publish(&event()).await.unwrap();
    until("the event is handled", async || script.seen().len() == 1).await;
    consumer.stop(Duration::from_secs(5)).await;
    here.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_broker_blocks_publishers_an_event_to_be_put_back_stays_in_hand() {
    let here = Installation::new().await;
    let script = Script::with_gate([Outcome::DeadLetter("no".to_owned())], 0);
    let consumer = here.consumer(script.clone()).await;
    here.connected_publisher().await.publish(&event()).await.unwrap();
    until("the event is in hand", async || script.seen().len() == 1).await;
    here.proxy.block("low on memory");
    until("the block is noticed", async || consumer.health().is_blocked()).await;
    script.gate.add_permits(1);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(here.try_take(&here.topology.notifier_dead()).await.is_none());
    here.proxy.unblock();
    here.take(&here.topology.notifier_dead()).await;
    consumer.stop(Duration::from_secs(5)).await;
    assert!(
        here.try_take(&here.topology.notifier()).await.is_none(),
        "it was moved and never acknowledged"
    );
    here.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_finishes_what_is_in_hand_and_leaves_the_rest_in_the_queue() {
    let here = Installation::new().await;
    let script = Script::with_gate([], 0);
    let consumer = here.consumer(script.clone()).await;
    let publisher = here.connected_publisher().await;
    // Four are handed out at once, as the prefetch says; two stay in the queue.
    for _ in 0..6 {
        publisher.publish(&event()).await.unwrap();
    }
    until("the hands are full", async || script.seen().len() == 4).await;
    let mut stopping = Box::pin(consumer.stop(Duration::from_secs(20)));
    // From its first step on, the consumer takes no further message, whatever the broker still sends.
    assert!(poll!(&mut stopping).is_pending());
    script.gate.add_permits(4);
    stopping.await;
    assert_eq!(script.seen().len(), 4);
    for _ in 0..2 {
        here.take(&here.topology.notifier()).await;
    }
    assert!(
        here.try_take(&here.topology.notifier()).await.is_none(),
        "a message in hand was not acknowledged"
    );
    here.remove().await;
}

struct Panicking;

impl Handler for Panicking {
    async fn handle(&self, _: Delivery) -> Outcome {
        panic!("a bug");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_panics_costs_a_rest_and_not_the_consumer() {
    let here = Installation::new().await;
    let consumer = here.consumer(Arc::new(Panicking)).await;
    let event = event();
    here.connected_publisher().await.publish(&event).await.unwrap();
    let resting = here.take(&here.topology.notifier_retry(RetryTier::Soon)).await;
    assert_eq!(resting.data, event.to_json().unwrap());
    assert!(consumer.is_consuming());
    consumer.stop(Duration::from_secs(5)).await;
    here.remove().await;
}
