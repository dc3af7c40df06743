//! Consuming that survives the broker: a lost connection, a channel that ended in an error, a queue that moved or was
//! deleted (the broker cancels the consumer then, and lapin only ends the stream).

use std::{
    future::Future,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::StreamExt;
use lapin::{
    Channel,
    message::Delivery as Message,
    options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::{AMQPValue, FieldTable},
};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    Event, Health, PublishError, Publisher, PublisherConfig, RetryTier, Topology, TopologyError,
    backoff::Backoff,
    link::{Link, LinkConfig, Up},
    publisher::Outgoing,
};

/// Header that counts how often this crate has put a message into a retry queue.
const ATTEMPT: &str = "x-ringwright-attempt";
/// Header that tells why a message lies in the dead-letter queue.
const REASON: &str = "x-ringwright-reason";
/// The subscription's name on its channel.
const TAG: &str = "notifier";
const CANCEL_LIMIT: Duration = Duration::from_secs(2);

/// Settings of a [`Consumer`].
#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    /// File with the AMQP URL; read anew at each connection.
    pub url_file: PathBuf,
    /// Name of the connection in the broker's tools, such as the program and its pod.
    pub connection_name: String,
    /// Names at the broker; the notifier's queue of it is consumed.
    pub topology: Topology,
    /// Messages handled at the same time: the broker sends no further one before one of them is settled.
    pub prefetch: u16,
}

/// What a handler is given.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The event.
    pub event: Event,
    /// How often a handler has answered [`Outcome::RetryLater`] for it before.
    pub attempt: u32,
    /// Whether it was delivered before and never settled: a program died with it, or lost its connection.
    pub redelivered: bool,
}

/// What becomes of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done with: it is gone.
    Ack,
    /// It rests in the tier's queue and comes back with a higher [`Delivery::attempt`].
    RetryLater(RetryTier),
    /// Nobody can handle it: it waits for a person in the dead-letter queue, with this reason.
    DeadLetter(String),
}

/// Handles events, several at once. Must recognise an event it has already handled.
pub trait Handler: Send + Sync + 'static {
    /// Handles one event. Not cancelled when the connection is lost; the event is then delivered again.
    fn handle(&self, delivery: Delivery) -> impl Future<Output = Outcome> + Send;
}

/// A running consumer.
pub struct Consumer {
    link: Arc<Link>,
    stop: CancellationToken,
    consuming: watch::Receiver<bool>,
    /// Taken by whoever stops it first.
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Consumer {
    /// Starts connecting and consuming in the background and returns at once.
    #[must_use]
    pub fn start<H: Handler>(config: ConsumerConfig, handler: Arc<H>) -> Self {
        let link = Arc::new(Link::start(LinkConfig {
            url_file: config.url_file.clone(),
            connection_name: config.connection_name.clone(),
            topology: config.topology.clone(),
        }));
        // Messages that are put back travel over a connection of their own: the broker blocks connections that publish,
        // and a blocked one could acknowledge nothing either.
        let back = Publisher::start(PublisherConfig {
            topology: config.topology.clone(),
            max_in_flight: usize::from(config.prefetch).max(1),
            max_waiting: usize::from(config.prefetch),
            ..PublisherConfig::new(config.url_file.clone(), format!("{} put-back", config.connection_name))
        });
        let stop = CancellationToken::new();
        let (consuming_sender, consuming) = watch::channel(false);
        let subscription = Subscription {
            config,
            link: Arc::clone(&link),
            back,
            handler,
            stop: stop.clone(),
        };
        let task = tokio::spawn(subscription.run(consuming_sender));
        Self {
            link,
            stop,
            consuming,
            task: Mutex::new(Some(task)),
        }
    }

    /// The state of the connection that consumes. A blocked one still delivers.
    #[must_use]
    pub fn health(&self) -> Health {
        self.link.health()
    }

    /// Whether the broker has accepted the subscription and it still stands.
    #[must_use]
    pub fn is_consuming(&self) -> bool {
        *self.consuming.borrow()
    }

    /// Takes no further message, waits up to `grace` for those in hand, then closes the connection. What is left
    /// unsettled is delivered to another consumer.
    pub async fn stop(&self, grace: Duration) {
        self.stop.cancel();
        if let Some(mut task) = self.take_task()
            && timeout(grace, &mut task).await.is_err()
        {
            let grace_s = grace.as_secs();
            warn!(
                grace_s,
                "messages in hand took longer than the grace period, they will be delivered again"
            );
            task.abort();
        }
        self.link.close().await;
    }

    fn take_task(&self) -> Option<JoinHandle<()>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        if let Some(task) = self.take_task() {
            task.abort();
        }
    }
}

/// Why a subscription is over.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("stopped")]
    Stopped,
    #[error("cannot subscribe to {queue}: {source}")]
    Subscribe { queue: String, source: lapin::Error },
    #[error(transparent)]
    Topology(#[from] TopologyError),
    #[error("the channel failed: {0}")]
    Channel(lapin::Error),
    #[error("the broker cancelled the consumer (its queue was deleted or moved), or the connection is gone")]
    Cancelled,
}

struct Subscription<H> {
    config: ConsumerConfig,
    link: Arc<Link>,
    back: Publisher,
    handler: Arc<H>,
    stop: CancellationToken,
}

impl<H: Handler> Subscription<H> {
    async fn run(self, consuming: watch::Sender<bool>) {
        let this = Arc::new(self);
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        let mut hands = JoinSet::new();
        loop {
            let up = tokio::select! {
                up = this.link.up() => up,
                () = this.stop.cancelled() => None,
            };
            let Some(up) = up else { break };
            let ended = this.consume(&up, &consuming, &mut hands).await;
            if consuming.send_replace(false) {
                backoff.reset();
            }
            if matches!(ended, Ended::Stopped) {
                break;
            }
            let wait = backoff.next();
            warn!(reason = %ended, wait_ms = wait.as_millis() as u64, "not consuming");
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = this.stop.cancelled() => break,
            }
        }
        while let Some(ended) = hands.join_next().await {
            tell_of_panic(ended);
        }
        this.back.close().await;
    }

    /// Subscribes on a new channel and hands out messages until something ends it.
    async fn consume(self: &Arc<Self>, up: &Up, consuming: &watch::Sender<bool>, hands: &mut JoinSet<()>) -> Ended {
        let (channel, mut messages) = match self.subscribe(up).await {
            Ok(subscribed) => subscribed,
            Err(ended) => return ended,
        };
        consuming.send_replace(true);
        info!(
            queue = self.config.topology.notifier(),
            prefetch = self.config.prefetch,
            "consuming"
        );
        loop {
            tokio::select! {
                // Once stopped, what the broker still sends stays untouched.
                biased;
                () = self.stop.cancelled() => {
                    let cancel = channel.basic_cancel(TAG.into(), BasicCancelOptions::default());
                    timeout(CANCEL_LIMIT, cancel).await.ok();
                    return Ended::Stopped;
                }
                Some(ended) = hands.join_next(), if !hands.is_empty() => tell_of_panic(ended),
                message = messages.next() => match message {
                    Some(Ok(message)) => {
                        // The task keeps the channel open: closing it would hand its message to somebody else meanwhile.
                        hands.spawn(Arc::clone(self).take(channel.clone(), message));
                    }
                    Some(Err(error)) => return Ended::Channel(error),
                    None => return Ended::Cancelled,
                },
            }
        }
    }

    async fn subscribe(&self, up: &Up) -> Result<(Channel, lapin::Consumer), Ended> {
        // Also after the queue was deleted under a running consumer.
        self.config.topology.declare(&up.connection).await?;
        let queue = self.config.topology.notifier();
        let subscribed = async {
            let channel = up.connection.create_channel().await?;
            channel
                .basic_qos(self.config.prefetch, BasicQosOptions::default())
                .await?;
            let messages = channel
                .basic_consume(
                    queue.as_str().into(),
                    TAG.into(),
                    BasicConsumeOptions::default(),
                    FieldTable::default(),
                )
                .await?;
            Ok((channel, messages))
        };
        subscribed.await.map_err(|source| Ended::Subscribe { queue, source })
    }

    /// Handles one message and settles it.
    async fn take(self: Arc<Self>, _open: Channel, message: Message) {
        let attempt = attempt_of(&message);
        let outcome = match Event::from_json(&message.data) {
            Ok(event) => {
                let delivery = Delivery {
                    event,
                    attempt,
                    redelivered: message.redelivered,
                };
                // In a task of its own, so that a panic is an outcome too and the message does not come back at once.
                let handler = Arc::clone(&self.handler);
                tokio::spawn(async move { handler.handle(delivery).await })
                    .await
                    .unwrap_or_else(|panic| {
                        error!(%panic, "the handler failed, the message is tried again later");
                        Outcome::RetryLater(RetryTier::for_attempt(attempt))
                    })
            }
            Err(error) => Outcome::DeadLetter(telemetry::chain(&error)),
        };
        if !self.move_on(&message, attempt, &outcome).await {
            return;
        }
        if let Err(error) = message.acker.ack(BasicAckOptions::default()).await {
            warn!(
                error = telemetry::chain(&error),
                "could not acknowledge a handled message, it will be delivered again"
            );
        }
    }

    /// Puts the message where the outcome sends it. False when it must stay unacknowledged: the broker delivers it again.
    async fn move_on(&self, message: &Message, attempt: u32, outcome: &Outcome) -> bool {
        let topology = &self.config.topology;
        let mut headers = FieldTable::default();
        let (exchange, routing_key) = match outcome {
            Outcome::Ack => return true,
            Outcome::RetryLater(tier) => {
                headers.insert(ATTEMPT.into(), AMQPValue::LongLongInt(i64::from(attempt) + 1));
                (String::new(), topology.notifier_retry(*tier))
            }
            Outcome::DeadLetter(reason) => {
                warn!(reason, "a message goes to the dead-letter queue");
                headers.insert(ATTEMPT.into(), AMQPValue::LongLongInt(i64::from(attempt)));
                headers.insert(REASON.into(), AMQPValue::LongString(reason.as_str().into()));
                (topology.dead(), topology.notifier())
            }
        };
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));
        // First published and confirmed, then acknowledged: between the two it exists twice, never not at all.
        loop {
            let copy = Outgoing {
                exchange: &exchange,
                routing_key: &routing_key,
                message_id: message.properties.message_id().as_ref().map(|id| id.to_string()),
                headers: headers.clone(),
                body: &message.data,
            };
            match self.back.send(copy).await {
                Ok(()) => return true,
                Err(error) => self.tell_of_failed_move(&routing_key, &error),
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next()) => {}
                () = self.stop.cancelled() => return false,
            }
            if message.acker.poisoned() {
                return false;
            }
        }
    }

    fn tell_of_failed_move(&self, queue: &str, error: &PublishError) {
        warn!(
            queue,
            error = telemetry::chain(error),
            "could not put a message back, it stays in hand"
        );
    }
}

fn attempt_of(message: &Message) -> u32 {
    let headers = message.properties.headers().as_ref();
    match headers.and_then(|headers| headers.inner().get(ATTEMPT)) {
        Some(AMQPValue::LongLongInt(attempt)) => u32::try_from(*attempt).unwrap_or(0),
        _ => 0,
    }
}

fn tell_of_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        error!(
            error = telemetry::chain(&error),
            "settling a message failed, it will be delivered again"
        );
    }
}
