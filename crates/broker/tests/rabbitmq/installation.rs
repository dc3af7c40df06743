//! A topology of its own for each test, reached directly and through a proxy that can fail.

use std::{future::Future, path::PathBuf, time::Duration};

use broker::{
    Consumer, ConsumerConfig, Event, EventKind, Handler, Health, Publisher, PublisherConfig, RetryTier, Topology,
};
use chrono::Utc;
use lapin::{
    Channel, Connection, ConnectionProperties,
    message::BasicGetMessage,
    options::{BasicGetOptions, ExchangeDeleteOptions, QueueDeleteOptions},
};
use row_id::{EventId, OrderId, UserId};
use tempfile::TempDir;

use crate::proxy::Proxy;

const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) struct Installation {
    pub(crate) topology: Topology,
    pub(crate) proxy: Proxy,
    pub(crate) channel: Channel,
    connection: Connection,
    folder: TempDir,
}

fn broker_url() -> String {
    std::env::var("RINGWRIGHT_TEST_AMQP").expect(
        "set RINGWRIGHT_TEST_AMQP to the AMQP URL of a RabbitMQ 4 that the tests may use, such as \
         amqp://user:password@127.0.0.1:5672/%2f (`make test` starts one)",
    )
}

impl Installation {
    pub(crate) async fn new() -> Self {
        let url = broker_url();
        let authority = url
            .split('@')
            .nth(1)
            .expect("the URL names a user")
            .split('/')
            .next()
            .unwrap()
            .to_owned();
        let connection = Connection::connect(&url, ConnectionProperties::default())
            .await
            .expect("the broker answers");
        let proxy = Proxy::start(authority.clone()).await;
        let folder = tempfile::tempdir().unwrap();
        let through_proxy = url.replace(&authority, &format!("127.0.0.1:{}", proxy.port()));
        std::fs::write(folder.path().join("url"), format!("{through_proxy}\n")).unwrap();
        Self {
            topology: Topology::with_prefix(format!("test-{}", UserId::generate())),
            proxy,
            channel: connection.create_channel().await.unwrap(),
            connection,
            folder,
        }
    }

    pub(crate) fn url_file(&self) -> PathBuf {
        self.folder.path().join("url")
    }

    pub(crate) fn publisher(&self) -> Publisher {
        self.publisher_with(|_| {})
    }

    pub(crate) fn publisher_with(&self, change: impl FnOnce(&mut PublisherConfig)) -> Publisher {
        let mut config = PublisherConfig {
            topology: self.topology.clone(),
            // No test waits for it: on a slow machine a thousand events take more than the usual 5 s.
            limit: Duration::from_secs(60),
            ..PublisherConfig::new(self.url_file(), "test")
        };
        change(&mut config);
        Publisher::start(config)
    }

    pub(crate) async fn connected_publisher(&self) -> Publisher {
        let publisher = self.publisher();
        until("the publisher is connected", async || {
            publisher.health() == Health::Connected
        })
        .await;
        publisher
    }

    pub(crate) async fn consumer(&self, handler: std::sync::Arc<impl Handler>) -> Consumer {
        let config = ConsumerConfig {
            url_file: self.url_file(),
            connection_name: "test".to_owned(),
            topology: self.topology.clone(),
            prefetch: 4,
        };
        let consumer = Consumer::start(config, handler);
        until("the consumer consumes", async || consumer.is_consuming()).await;
        consumer
    }

    /// Takes one message out of a queue, waiting for it.
    pub(crate) async fn take(&self, queue: &str) -> BasicGetMessage {
        let started = tokio::time::Instant::now();
        loop {
            if let Some(message) = self.try_take(queue).await {
                return message;
            }
            assert!(started.elapsed() < DEADLINE, "no message came into {queue}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn try_take(&self, queue: &str) -> Option<BasicGetMessage> {
        self.channel
            .basic_get(queue.into(), BasicGetOptions { no_ack: true })
            .await
            .unwrap()
    }

    pub(crate) async fn delete_queue(&self, queue: &str) {
        self.channel
            .queue_delete(queue.into(), QueueDeleteOptions::default())
            .await
            .unwrap();
    }

    /// Removes what the test made at the broker.
    pub(crate) async fn remove(self) {
        let channel = self.connection.create_channel().await.unwrap();
        let names = &self.topology;
        let retries = RetryTier::ALL.map(|tier| names.notifier_retry(tier));
        for queue in [names.notifier(), names.notifier_dead()].into_iter().chain(retries) {
            channel
                .queue_delete(queue.as_str().into(), QueueDeleteOptions::default())
                .await
                .unwrap();
        }
        for exchange in [names.events(), names.dead()] {
            channel
                .exchange_delete(exchange.as_str().into(), ExchangeDeleteOptions::default())
                .await
                .unwrap();
        }
        self.connection.close(200, "done".into()).await.unwrap();
    }
}

/// An event of some order, of a kind that the notifier's queue is bound for.
pub(crate) fn event() -> Event {
    let user = UserId::generate();
    let position = user.position();
    let order = OrderId::generate(position);
    Event::new(
        EventId::generate(position),
        EventKind::OrderProcessed,
        1,
        user,
        order,
        None,
        Utc::now(),
    )
}

/// Waits for a condition, with a deadline.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let started = tokio::time::Instant::now();
    while !condition().await {
        assert!(started.elapsed() < DEADLINE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
