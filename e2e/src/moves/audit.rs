//! Reads along what the shards publish.
//!
//! An event that a move lost leaves an empty outbox, which is what everybody wants to see. So a queue of its own takes
//! everything that reaches the exchange, and the judge compares it with the numbers that the orders have given out.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use broker::{Event, Topology};
use futures::StreamExt;
use lapin::options::{BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties, Consumer};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::history::contents::Published;
use crate::{Platform, database};

const SECRET: &str = "ringwright-rabbitmq";
const PODS: &str = "app.kubernetes.io/name=ringwright-rabbitmq";
/// What was published arrives within this time, or does not.
const QUIET: Duration = Duration::from_secs(2);

/// What was published, as long as this is kept.
pub(super) struct Audit {
    seen: Arc<Mutex<BTreeSet<Published>>>,
    /// Ends only with the connection.
    reading: JoinHandle<Result<()>>,
    /// The queue lives as long as its connection.
    _connection: Connection,
}

impl Audit {
    /// Begins to read along.
    ///
    /// # Errors
    /// When the broker refuses.
    pub(super) async fn start(platform: &Platform) -> Result<Self> {
        let connection = connect(platform).await.context("connecting to RabbitMQ")?;
        let events = consume(&connection).await.context("making the audit's queue")?;
        let seen = Arc::default();
        Ok(Self {
            reading: tokio::spawn(read(events, Arc::clone(&seen))),
            seen,
            _connection: connection,
        })
    }

    /// Everything that was published, once nothing more comes.
    ///
    /// # Errors
    /// When it was cut off from the broker meanwhile, and so cannot tell.
    pub(super) async fn published(&self) -> Result<BTreeSet<Published>> {
        let count = || self.seen.lock().unwrap_or_else(PoisonError::into_inner).len();
        let mut before = count();
        loop {
            sleep(QUIET).await;
            if self.reading.is_finished() {
                bail!("the audit lost its connection to RabbitMQ and cannot tell what was published");
            }
            match count() {
                now if now == before => break,
                now => before = now,
            }
        }
        Ok(self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

async fn connect(platform: &Platform) -> Result<Connection> {
    let (kubernetes, namespace) = (&platform.kubernetes, &platform.namespace);
    let url = database::secret(kubernetes, namespace, SECRET, "url").await?;
    // Not shown: there is a password in it.
    let mut uri: AMQPUri = url
        .parse()
        .map_err(|_| anyhow::anyhow!("Secret {SECRET} holds no AMQP URL"))?;
    // Names of services are known inside the cluster only.
    uri.authority.host = kubernetes.ready_pod_address(namespace, PODS).await?;
    Ok(Connection::connect_uri(uri, ConnectionProperties::default()).await?)
}

async fn consume(connection: &Connection) -> Result<Consumer> {
    let channel = connection.create_channel().await?;
    let exclusive = QueueDeclareOptions {
        exclusive: true,
        auto_delete: true,
        ..QueueDeclareOptions::default()
    };
    let queue = channel
        .queue_declare("".into(), exclusive, FieldTable::default())
        .await?;
    let name = queue.name().clone();
    let exchange = Topology::default().events();
    channel
        .queue_bind(
            name.clone(),
            exchange.as_str().into(),
            "#".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await?;
    let unacknowledged = BasicConsumeOptions {
        no_ack: true,
        ..BasicConsumeOptions::default()
    };
    Ok(channel
        .basic_consume(name, "audit".into(), unacknowledged, FieldTable::default())
        .await?)
}

async fn read(mut events: Consumer, seen: Arc<Mutex<BTreeSet<Published>>>) -> Result<()> {
    while let Some(delivery) = events.next().await {
        let event = Event::from_json(&delivery?.data)?;
        let published = Published {
            order: event.order_id.uuid(),
            sequence: event.sequence,
        };
        seen.lock().unwrap_or_else(PoisonError::into_inner).insert(published);
    }
    Ok(())
}
