//! Publishing that ends with an answer: the broker has the message on the disks of a majority, or why not.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use lapin::{
    BasicProperties, Channel, Confirmation,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::FieldTable,
};
use tokio::{sync::Semaphore, time::timeout};
use tracing::warn;

use crate::{
    Event, EventError, Health, Topology,
    link::{Link, LinkConfig, Up},
};

/// AMQP's delivery mode for messages that survive a restart of the broker.
const PERSISTENT: u8 = 2;

/// Settings of a [`Publisher`].
#[derive(Clone, Debug)]
pub struct PublisherConfig {
    /// File with the AMQP URL; read anew at each connection.
    pub url_file: PathBuf,
    /// Name of the connection in the broker's tools, such as the program and its pod.
    pub connection_name: String,
    /// Names at the broker.
    pub topology: Topology,
    /// Messages published and not yet confirmed; also the number of channels.
    pub max_in_flight: usize,
    /// Further messages that may wait for their turn; beyond them `publish` answers [`PublishError::Saturated`] at once.
    pub max_waiting: usize,
    /// How long `publish` takes at most, waiting included.
    pub limit: Duration,
}

impl PublisherConfig {
    /// The usual settings: 64 in flight, 1,024 waiting, 5 s.
    #[must_use]
    pub fn new(url_file: PathBuf, connection_name: impl Into<String>) -> Self {
        Self {
            url_file,
            connection_name: connection_name.into(),
            topology: Topology::default(),
            max_in_flight: 64,
            max_waiting: 1024,
            limit: Duration::from_secs(5),
        }
    }
}

/// Why a message is not known to be safe. Whatever the reason, publishing it again later is right: consumers recognise
/// repetitions.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// There is no connection now; one is being made.
    #[error("not published: {health}")]
    Disconnected {
        /// The state of the connection, with the last failure.
        health: Health,
    },
    /// The broker raised a memory or disk alarm and takes nothing.
    #[error("not published: the broker takes no messages ({reason}); free memory or disk there")]
    Blocked {
        /// The broker's words.
        reason: String,
    },
    /// Too many messages wait already.
    #[error("not published: {max_waiting} messages are waiting already")]
    Saturated {
        /// The configured bound.
        max_waiting: usize,
    },
    /// No queue is bound for it.
    #[error("not published: no queue takes messages for {routing_key} from exchange {exchange:?} ({reason})")]
    Unroutable {
        /// Where it was published; empty for the default exchange.
        exchange: String,
        /// Its routing key.
        routing_key: String,
        /// The broker's words.
        reason: String,
    },
    /// The broker could not store it.
    #[error("not published: the broker refused the message for {routing_key}")]
    Refused {
        /// Its routing key.
        routing_key: String,
    },
    /// No confirmation in time: it may or may not have arrived.
    #[error("no confirmation from the broker within {}ms for {routing_key}", limit.as_millis())]
    Late {
        /// Its routing key.
        routing_key: String,
        /// The configured bound.
        limit: Duration,
    },
    /// The channel or connection failed meanwhile: it may or may not have arrived.
    #[error("the connection failed while publishing for {routing_key}: {source}")]
    Lost {
        /// Its routing key.
        routing_key: String,
        /// What happened.
        source: lapin::Error,
    },
    /// The event cannot be written.
    #[error(transparent)]
    Encode(#[from] EventError),
}

impl PublishError {
    /// One word for a metric's label.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Disconnected { .. } => "disconnected",
            Self::Blocked { .. } => "blocked",
            Self::Saturated { .. } => "saturated",
            Self::Unroutable { .. } => "unroutable",
            Self::Refused { .. } => "refused",
            Self::Late { .. } => "late",
            Self::Lost { .. } => "lost",
            Self::Encode(_) => "encode",
        }
    }
}

/// Publishes events over one supervised connection. Cheap to clone; all clones share the connection.
///
/// Each message in flight has a channel of its own. On a shared channel a returned message cannot be told apart from its
/// neighbours' (the broker may confirm several at once, and lapin attaches the return to any of them), and an error of
/// the channel would fail them all.
#[derive(Clone)]
pub struct Publisher(Arc<Inner>);

struct Inner {
    config: PublisherConfig,
    link: Link,
    admitted: Semaphore,
    in_flight: Semaphore,
    /// Channels in confirm mode with nothing outstanding, and the connection each belongs to.
    idle: Mutex<Vec<(u64, Channel)>>,
}

/// A message ready to go.
pub(crate) struct Outgoing<'a> {
    pub(crate) exchange: &'a str,
    pub(crate) routing_key: &'a str,
    pub(crate) message_id: Option<String>,
    pub(crate) headers: FieldTable,
    pub(crate) body: &'a [u8],
}

impl Publisher {
    /// Starts connecting in the background and returns at once: a program starts, and takes orders, without a broker.
    #[must_use]
    pub fn start(config: PublisherConfig) -> Self {
        let link = Link::start(LinkConfig {
            url_file: config.url_file.clone(),
            connection_name: config.connection_name.clone(),
            topology: config.topology.clone(),
        });
        Self(Arc::new(Inner {
            link,
            admitted: Semaphore::new(config.max_in_flight + config.max_waiting),
            in_flight: Semaphore::new(config.max_in_flight),
            idle: Mutex::new(Vec::new()),
            config,
        }))
    }

    /// Publishes an event and waits until the broker has confirmed it.
    ///
    /// # Errors
    /// See [`PublishError`]; with any of them the event has to be published again later.
    pub async fn publish(&self, event: &Event) -> Result<(), PublishError> {
        let body = event.to_json()?;
        self.send(Outgoing {
            exchange: &self.0.config.topology.events(),
            routing_key: event.kind.as_str(),
            message_id: Some(event.id.to_string()),
            headers: FieldTable::default(),
            body: &body,
        })
        .await
    }

    /// The state of the connection.
    #[must_use]
    pub fn health(&self) -> Health {
        self.0.link.health()
    }

    /// How many messages are published and not yet confirmed.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.0.config.max_in_flight - self.0.in_flight.available_permits()
    }

    /// Closes the connection in order. What is in flight fails; wait for it first.
    pub async fn close(&self) {
        self.0.link.close().await;
    }

    pub(crate) async fn send(&self, message: Outgoing<'_>) -> Result<(), PublishError> {
        let config = &self.0.config;
        let _admitted = self.0.admitted.try_acquire().map_err(|_| PublishError::Saturated {
            max_waiting: config.max_waiting,
        })?;
        let routing_key = message.routing_key;
        timeout(config.limit, self.send_in_turn(message))
            .await
            .unwrap_or_else(|_| match self.health() {
                Health::Blocked { reason } => Err(PublishError::Blocked { reason }),
                _ => Err(PublishError::Late {
                    routing_key: routing_key.to_owned(),
                    limit: config.limit,
                }),
            })
    }

    async fn send_in_turn(&self, message: Outgoing<'_>) -> Result<(), PublishError> {
        // Never closed, so the permit is always given.
        let _turn = self.0.in_flight.acquire().await.ok();
        let up = self.0.link.current().map_err(|health| match health {
            Health::Blocked { reason } => PublishError::Blocked { reason },
            health => PublishError::Disconnected { health },
        })?;
        let lost = |source| PublishError::Lost {
            routing_key: message.routing_key.to_owned(),
            source,
        };
        let channel = self.channel(&up).await.map_err(lost)?;
        let confirmation = confirmed(&channel, &message).await.map_err(lost)?;
        // Only here does the channel become free again. When this future ends earlier, by an error or because the caller
        // gave up, the channel is dropped, so a late confirmation is never taken for another message's.
        self.put_back(&up, channel);
        match confirmation {
            Confirmation::Ack(None) => Ok(()),
            Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned)) => {
                self.declare_again(&up).await;
                Err(PublishError::Unroutable {
                    exchange: message.exchange.to_owned(),
                    routing_key: message.routing_key.to_owned(),
                    reason: returned.reply_text.to_string(),
                })
            }
            Confirmation::Nack(None) | Confirmation::NotRequested => Err(PublishError::Refused {
                routing_key: message.routing_key.to_owned(),
            }),
        }
    }

    async fn channel(&self, up: &Up) -> Result<Channel, lapin::Error> {
        if let Some(channel) = self.take_idle(up) {
            return Ok(channel);
        }
        let channel = up.connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(channel)
    }

    fn take_idle(&self, up: &Up) -> Option<Channel> {
        let mut idle = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(number, channel)| *number == up.number && channel.status().connected());
        idle.pop().map(|(_, channel)| channel)
    }

    fn put_back(&self, up: &Up, channel: Channel) {
        self.0
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((up.number, channel));
    }

    /// Somebody deleted a queue or a binding while we were connected: made anew, the next try succeeds.
    async fn declare_again(&self, up: &Up) {
        if let Err(error) = self.0.config.topology.declare(&up.connection).await {
            warn!(
                error = telemetry::chain(&error),
                "a message was returned, and the topology cannot be declared again"
            );
        }
    }
}

async fn confirmed(channel: &Channel, message: &Outgoing<'_>) -> Result<Confirmation, lapin::Error> {
    let mut properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_delivery_mode(PERSISTENT)
        .with_headers(message.headers.clone());
    if let Some(id) = &message.message_id {
        properties = properties.with_message_id(id.as_str().into());
    }
    let options = BasicPublishOptions {
        mandatory: true,
        ..Default::default()
    };
    channel
        .basic_publish(
            message.exchange.into(),
            message.routing_key.into(),
            options,
            message.body,
            properties,
        )
        .await?
        .await
}
