//! Exchanges, queues and bindings. Every program declares all of them, so none has to be started first.

use std::time::Duration;

use lapin::{
    Channel, Connection, ErrorKind, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};

/// Deliveries of one message that ended without an answer (the consumer died with it) before it counts as poisonous and
/// goes to the dead-letter queue. Generous, as every lost connection counts too.
const DELIVERY_LIMIT: i64 = 20;

/// How long a message rests before it is delivered again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RetryTier {
    /// 5 seconds.
    Soon,
    /// 30 seconds.
    Later,
    /// 5 minutes.
    MuchLater,
}

impl RetryTier {
    /// All tiers, shortest first.
    pub const ALL: [Self; 3] = [Self::Soon, Self::Later, Self::MuchLater];

    /// The tier for a message that has already been put back `attempt` times: three short rests, then seven of half a
    /// minute, then long ones.
    #[must_use]
    pub fn for_attempt(attempt: u32) -> Self {
        match attempt {
            0..3 => Self::Soon,
            3..10 => Self::Later,
            _ => Self::MuchLater,
        }
    }

    /// How long a message rests in this tier.
    #[must_use]
    pub fn rest(self) -> Duration {
        Duration::from_secs(match self {
            Self::Soon => 5,
            Self::Later => 30,
            Self::MuchLater => 300,
        })
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::Soon => "5s",
            Self::Later => "30s",
            Self::MuchLater => "5m",
        }
    }
}

/// The names of everything at the broker; all share one prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    prefix: String,
}

impl Default for Topology {
    /// The names every installation uses: `ringwright.events`, `ringwright.notifier`, ...
    fn default() -> Self {
        Self::with_prefix("ringwright")
    }
}

impl Topology {
    /// The same shape under other names, for tests or several installations on one virtual host.
    #[must_use]
    pub fn with_prefix(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into() }
    }

    /// The topic exchange that events are published to.
    #[must_use]
    pub fn events(&self) -> String {
        format!("{}.events", self.prefix)
    }

    /// The queue the notifier consumes.
    #[must_use]
    pub fn notifier(&self) -> String {
        format!("{}.notifier", self.prefix)
    }

    /// The exchange for messages nobody could handle; the routing key is the queue they come from.
    #[must_use]
    pub fn dead(&self) -> String {
        format!("{}.dead", self.prefix)
    }

    /// The queue where the notifier's unhandled messages wait for a person.
    #[must_use]
    pub fn notifier_dead(&self) -> String {
        format!("{}.notifier.dead", self.prefix)
    }

    /// The queue where messages rest before the notifier gets them again.
    #[must_use]
    pub fn notifier_retry(&self, tier: RetryTier) -> String {
        format!("{}.notifier.retry.{}", self.prefix, tier.suffix())
    }

    /// Declares everything. Doing so again changes nothing.
    ///
    /// # Errors
    /// [`TopologyError::Conflict`] when something of the name exists with other properties, else why the broker refused.
    pub(crate) async fn declare(&self, connection: &Connection) -> Result<(), TopologyError> {
        let channel = connection.create_channel().await.map_err(TopologyError::Channel)?;
        self.declare_exchange(&channel, self.events(), ExchangeKind::Topic)
            .await?;
        self.declare_exchange(&channel, self.dead(), ExchangeKind::Direct)
            .await?;
        self.declare_queue(&channel, self.notifier_dead(), &[]).await?;
        self.bind(&channel, self.notifier_dead(), self.dead(), &self.notifier())
            .await?;
        self.declare_queue(
            &channel,
            self.notifier(),
            &[
                ("x-delivery-limit", AMQPValue::LongLongInt(DELIVERY_LIMIT)),
                ("x-dead-letter-exchange", text(self.dead())),
                ("x-dead-letter-routing-key", text(self.notifier())),
                ("x-dead-letter-strategy", text("at-least-once")),
                // What at-least-once dead-lettering asks for; without a length limit it never rejects.
                ("x-overflow", text("reject-publish")),
            ],
        )
        .await?;
        for pattern in ["order.*", "invoice.*"] {
            self.bind(&channel, self.notifier(), self.events(), pattern).await?;
        }
        for tier in RetryTier::ALL {
            let rest = i64::try_from(tier.rest().as_millis()).unwrap_or(i64::MAX);
            self.declare_queue(
                &channel,
                self.notifier_retry(tier),
                &[
                    ("x-message-ttl", AMQPValue::LongLongInt(rest)),
                    // The default exchange delivers to the queue of that name.
                    ("x-dead-letter-exchange", text("")),
                    ("x-dead-letter-routing-key", text(self.notifier())),
                    ("x-dead-letter-strategy", text("at-least-once")),
                    ("x-overflow", text("reject-publish")),
                ],
            )
            .await?;
        }
        // The declarations are made; that the channel closes cleanly adds nothing.
        channel.close(200, "declared".into()).await.ok();
        Ok(())
    }

    async fn declare_exchange(&self, channel: &Channel, name: String, kind: ExchangeKind) -> Result<(), TopologyError> {
        let options = ExchangeDeclareOptions {
            durable: true,
            ..Default::default()
        };
        channel
            .exchange_declare(name.as_str().into(), kind, options, FieldTable::default())
            .await
            .map_err(|source| TopologyError::of("exchange", name, source))
    }

    async fn declare_queue(
        &self,
        channel: &Channel,
        name: String,
        arguments: &[(&str, AMQPValue)],
    ) -> Result<(), TopologyError> {
        let mut table = FieldTable::default();
        table.insert("x-queue-type".into(), text("quorum"));
        for (key, value) in arguments {
            table.insert((*key).into(), value.clone());
        }
        let options = QueueDeclareOptions {
            durable: true,
            ..Default::default()
        };
        match channel.queue_declare(name.as_str().into(), options, table).await {
            Ok(_) => Ok(()),
            Err(source) => Err(TopologyError::of("queue", name, source)),
        }
    }

    async fn bind(&self, channel: &Channel, queue: String, exchange: String, key: &str) -> Result<(), TopologyError> {
        channel
            .queue_bind(
                queue.as_str().into(),
                exchange.as_str().into(),
                key.into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await
            .map_err(|source| TopologyError::of("binding of queue", queue, source))
    }
}

fn text(value: impl AsRef<str>) -> AMQPValue {
    AMQPValue::LongString(value.as_ref().into())
}

/// Why the topology could not be declared.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// No channel to declare on.
    #[error("cannot open a channel to declare exchanges and queues: {0}")]
    Channel(#[source] lapin::Error),
    /// It exists and is different.
    #[error(
        "the {what} {name} exists at the broker with other properties than this version declares ({broker}); drain it, \
         delete it with `rabbitmqctl delete_queue` (or remove the exchange), and it is made anew at the next try"
    )]
    Conflict {
        /// Queue, exchange or binding.
        what: &'static str,
        /// Its name.
        name: String,
        /// The broker's words.
        broker: String,
    },
    /// Refused for another reason, such as missing permissions.
    #[error("cannot declare the {what} {name}: {source}")]
    Refused {
        /// Queue, exchange or binding.
        what: &'static str,
        /// Its name.
        name: String,
        /// The broker's words.
        source: lapin::Error,
    },
}

impl TopologyError {
    fn of(what: &'static str, name: String, source: lapin::Error) -> Self {
        /// AMQP's PRECONDITION_FAILED.
        const PRECONDITION_FAILED: u16 = 406;
        match source.kind() {
            ErrorKind::ProtocolError(refusal) if refusal.get_id() == PRECONDITION_FAILED => Self::Conflict {
                what,
                name,
                broker: refusal.get_message().to_string(),
            },
            _ => Self::Refused { what, name, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_the_operations_guide_lists() {
        let names = Topology::default();
        assert_eq!(names.events(), "ringwright.events");
        assert_eq!(names.notifier(), "ringwright.notifier");
        assert_eq!(names.notifier_dead(), "ringwright.notifier.dead");
        let retries = RetryTier::ALL.map(|tier| names.notifier_retry(tier));
        assert_eq!(
            retries,
            [
                "ringwright.notifier.retry.5s",
                "ringwright.notifier.retry.30s",
                "ringwright.notifier.retry.5m"
            ]
        );
    }

    #[test]
    fn rests_never_get_shorter_with_more_attempts() {
        let rests: Vec<Duration> = (0..20).map(|attempt| RetryTier::for_attempt(attempt).rest()).collect();
        assert!(rests.is_sorted());
        assert_eq!(rests.last(), Some(&RetryTier::MuchLater.rest()));
    }
}
