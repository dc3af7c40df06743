//! Events: published at once when the broker is there, kept when it is not, and published later by whoever polls.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker::{Consumer, ConsumerConfig, Delivery, EventKind, Handler, Outcome, Publisher, PublisherConfig, Topology};
use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use lapin::{Connection, ConnectionProperties};
use order_api::metrics::Metrics;
use order_api::outbox::poller::OutboxPoller;
use row_id::UserId;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::shards::ShardedApi;

const EVENTS_OF_ORDER: &str = "SELECT count(*) FROM ringwright.outbox WHERE order_id = $1";

/// Exchanges and queues of this test's own at the test broker, and who listens there.
struct Listener {
    topology: Topology,
    url_file: PathBuf,
    heard: Arc<Heard>,
    consumer: Consumer,
    _files: TempDir,
}

#[derive(Default)]
struct Heard(Mutex<Vec<(String, EventKind, i64)>>);

impl Handler for Heard {
    async fn handle(&self, delivery: Delivery) -> Outcome {
        let event = delivery.event;
        self.0
            .lock()
            .unwrap()
            .push((event.order_id.to_string(), event.kind, event.sequence));
        Outcome::Ack
    }
}

fn broker_url() -> String {
    std::env::var("RINGWRIGHT_TEST_AMQP").expect(
        "set RINGWRIGHT_TEST_AMQP to the AMQP URL of a RabbitMQ 4 that the tests may use, such as \
         amqp://user:password@127.0.0.1:5672/%2f",
    )
}

impl Listener {
    async fn start() -> Self {
        let files = tempfile::tempdir().unwrap();
        let url_file = files.path().join("url");
        std::fs::write(&url_file, broker_url()).unwrap();
        let topology = Topology::with_prefix(format!("order-api-test-{}", UserId::generate()));
        let heard = Arc::new(Heard::default());
        let config = ConsumerConfig {
            url_file: url_file.clone(),
            connection_name: "order-api-test".to_owned(),
            topology: topology.clone(),
            prefetch: 64,
        };
        let consumer = Consumer::start(config, heard.clone());
        until("the consumer listens", async || consumer.is_consuming()).await;
        Self {
            topology,
            url_file,
            heard,
            consumer,
            _files: files,
        }
    }

    async fn publisher(&self, url_file: PathBuf) -> Publisher {
        let mut config = PublisherConfig::new(url_file, "order-api-test");
        config.topology = self.topology.clone();
        // Where no poller runs, nobody publishes again what was late.
        config.limit = Duration::from_secs(60);
        Publisher::start(config)
    }

    async fn connected_publisher(&self) -> Publisher {
        let publisher = self.publisher(self.url_file.clone()).await;
        until("the publisher is connected", async || publisher.health().is_connected()).await;
        publisher
    }

    /// What was heard of an order, in the order of its events; each once however often it came.
    fn of(&self, order: &str) -> Vec<(EventKind, i64)> {
        let heard = self.heard.0.lock().unwrap();
        let mut events: Vec<_> = heard
            .iter()
            .filter(|(id, ..)| id == order)
            .map(|(_, kind, n)| (*kind, *n))
            .collect();
        events.sort_by_key(|(_, sequence)| *sequence);
        events.dedup();
        events
    }

    async fn end(self) {
        self.consumer.stop(Duration::from_secs(1)).await;
        let connection = Connection::connect(&broker_url(), ConnectionProperties::default())
            .await
            .unwrap();
        let channel = connection.create_channel().await.unwrap();
        let topology = &self.topology;
        let retries = [broker::RetryTier::ALL.map(|tier| topology.notifier_retry(tier))].concat();
        for queue in [vec![topology.notifier(), topology.notifier_dead()], retries].concat() {
            channel
                .queue_delete(queue.into(), QueueDeleteOptions::default())
                .await
                .unwrap();
        }
        for exchange in [topology.events(), topology.dead()] {
            channel
                .exchange_delete(exchange.into(), ExchangeDeleteOptions::default())
                .await
                .unwrap();
        }
    }
}

/// Waits for a condition, with a deadline.
async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "not in 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn owner(api: &ShardedApi, user: &str) -> ring::Ordinal {
    api.store
        .ring()
        .locate(user.parse::<UserId>().unwrap().position())
        .ordinal
}

#[tokio::test]
async fn events_go_out_right_after_their_commit_and_leave_the_outbox() {
    let mut api = ShardedApi::start().await;
    let listener = Listener::start().await;
    let publisher = listener.connected_publisher().await;
    let stop = CancellationToken::new();
    let worker = api.api.worker.take().unwrap();
    let publishing = tokio::spawn(worker.run(publisher.clone(), api.store.clone(), stop.clone()));

    let user = api.user().await;
    let order = api.order(&user).await;
    api.post(&format!("/v1/orders/{order}/process"))
        .send()
        .await
        .expect(200);
    api.post(&format!("/v1/orders/{order}/invoice"))
        .send()
        .await
        .expect(201);
    let expected = [
        (EventKind::OrderCreated, 1),
        (EventKind::OrderProcessed, 2),
        (EventKind::InvoiceGenerated, 3),
    ];
    until("all events are heard", async || listener.of(&order) == expected).await;
    let shard = owner(&api, &user);
    until("the outbox is empty", async || {
        api.count(shard, EVENTS_OF_ORDER, &order).await == 0
    })
    .await;

    // What was handed over before the end is still published.
    let last = api.order(&user).await;
    api.app.writes_ended().await;
    stop.cancel();
    publishing.await.unwrap();
    until("the last event is heard", async || {
        listener.of(&last) == [(EventKind::OrderCreated, 1)]
    })
    .await;
    publisher.close().await;
    listener.end().await;
}

#[tokio::test]
async fn what_could_not_go_out_waits_in_the_outbox_for_a_poller() {
    let mut api = ShardedApi::start().await;
    let listener = Listener::start().await;
    let away = listener._files.path().join("away");
    std::fs::write(&away, "amqp://nobody:nothing@127.0.0.1:9/%2f").unwrap();
    let stop = CancellationToken::new();
    let worker = api.api.worker.take().unwrap();
    let broker_away = listener.publisher(away).await;
    let publishing = tokio::spawn(worker.run(broker_away, api.store.clone(), stop.clone()));

    // Orders are taken all the same.
    let user = api.user().await;
    let order = api.order(&user).await;
    api.app.writes_ended().await;
    stop.cancel();
    publishing.await.unwrap();
    let shard = owner(&api, &user);
    assert_eq!(api.count(shard, EVENTS_OF_ORDER, &order).await, 1);

    let poller = OutboxPoller {
        store: api.store.clone(),
        publisher: listener.connected_publisher().await,
        metrics: Arc::new(Metrics::default()),
    };
    until("a poller publishes it", async || {
        poller.clone().run(shard).await;
        listener.of(&order) == [(EventKind::OrderCreated, 1)]
    })
    .await;
    until("the outbox is empty", async || {
        api.count(shard, EVENTS_OF_ORDER, &order).await == 0
    })
    .await;
    poller.publisher.close().await;
    listener.end().await;
}
