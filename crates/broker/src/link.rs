//! One supervised connection: always either up with its topology declared, or on its way there.

use std::{path::PathBuf, sync::Arc, time::Duration};

use futures::StreamExt;
use lapin::{Connect, Connection, ConnectionProperties};
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{AmqpUrl, Health, Topology, TopologyError, UrlError, backoff::Backoff};

/// TCP, TLS, handshake and every declaration together.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);
/// A connection that lived this long was a good one: the next failure begins with short waits again.
const PROVEN_AFTER: Duration = Duration::from_secs(30);
/// lapin reports losses and blocks as events; this look at its state is the second line, should an event be missed
/// between connecting and listening.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// What a link connects to, and as whom.
#[derive(Clone, Debug)]
pub(crate) struct LinkConfig {
    /// Holds the URL; read anew at each try, so a rotated password needs no restart.
    pub(crate) url_file: PathBuf,
    /// Shown by the broker's tools.
    pub(crate) connection_name: String,
    pub(crate) topology: Topology,
}

/// A connection that is up.
#[derive(Clone)]
pub(crate) struct Up {
    pub(crate) connection: Arc<Connection>,
    /// Counts connections, so that a channel of an older one is recognised.
    pub(crate) number: u64,
}

#[derive(Clone)]
enum State {
    Down { reason: Option<String> },
    Up { up: Up, blocked: Option<String> },
    Closed,
}

/// Handle to the supervised connection.
pub(crate) struct Link {
    state: watch::Receiver<State>,
    stop: CancellationToken,
    supervisor: JoinHandle<()>,
}

#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error(transparent)]
    Url(#[from] UrlError),
    #[error("cannot connect to {url}: {source}")]
    Refused { url: AmqpUrl, source: lapin::Error },
    #[error("connecting to {url} took longer than {}s", CONNECT_LIMIT.as_secs())]
    Late { url: AmqpUrl },
    #[error(transparent)]
    Topology(#[from] TopologyError),
}

impl Link {
    /// Starts connecting in the background.
    pub(crate) fn start(config: LinkConfig) -> Self {
        let (sender, state) = watch::channel(State::Down { reason: None });
        let stop = CancellationToken::new();
        let supervisor = tokio::spawn(supervise(config, sender, stop.clone()));
        Self {
            state,
            stop,
            supervisor,
        }
    }

    pub(crate) fn health(&self) -> Health {
        match &*self.state.borrow() {
            State::Down { reason } => Health::Connecting { reason: reason.clone() },
            State::Up { blocked: None, .. } => Health::Connected,
            State::Up {
                blocked: Some(reason), ..
            } => Health::Blocked { reason: reason.clone() },
            State::Closed => Health::Closed,
        }
    }

    /// The connection of this moment, for publishing: an unhealthy one is told by its health.
    pub(crate) fn current(&self) -> Result<Up, Health> {
        match &*self.state.borrow() {
            State::Up { up, blocked: None } => Ok(up.clone()),
            _ => Err(self.health()),
        }
    }

    /// Waits for a connection, for consuming: a blocked one still delivers. `None` when the link was closed.
    pub(crate) async fn up(&self) -> Option<Up> {
        let mut state = self.state.clone();
        let settled = state
            .wait_for(|state| !matches!(state, State::Down { .. }))
            .await
            .ok()?;
        match &*settled {
            State::Up { up, .. } => Some(up.clone()),
            State::Down { .. } | State::Closed => None,
        }
    }

    /// Closes the connection in order and ends the supervision.
    pub(crate) async fn close(&self) {
        self.stop.cancel();
        let mut state = self.state.clone();
        state.wait_for(|state| matches!(state, State::Closed)).await.ok();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Dropping the task drops the connection, which closes it.
        self.supervisor.abort();
    }
}

async fn supervise(config: LinkConfig, state: watch::Sender<State>, stop: CancellationToken) {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(15));
    let mut number = 0;
    loop {
        let attempt = tokio::select! {
            attempt = connect(&config) => attempt,
            () = stop.cancelled() => break,
        };
        let reason = match attempt {
            Ok(connection) => {
                number += 1;
                let connected = tokio::time::Instant::now();
                let connection = Arc::new(connection);
                let reason = watch_over(&config, &connection, number, &state, &stop).await;
                if stop.is_cancelled() {
                    // A blocked connection never answers the close.
                    timeout(CLOSE_LIMIT, connection.close(200, "shutting down".into()))
                        .await
                        .ok();
                    break;
                }
                if connected.elapsed() > PROVEN_AFTER {
                    backoff.reset();
                }
                reason
            }
            Err(error) => telemetry::chain(&error),
        };
        let wait = backoff.next();
        warn!(
            connection = config.connection_name,
            reason,
            wait_ms = wait.as_millis() as u64,
            "no connection to the broker"
        );
        state.send_replace(State::Down { reason: Some(reason) });
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => break,
        }
    }
    state.send_replace(State::Closed);
}

async fn connect(config: &LinkConfig) -> Result<Connection, ConnectError> {
    let url = AmqpUrl::read(&config.url_file).await?;
    let properties = ConnectionProperties::default().with_connection_name(config.connection_name.as_str().into());
    let prepare = async {
        let connection = url
            .uri()
            .connect(properties)
            .await
            .map_err(|source| ConnectError::Refused {
                url: url.clone(),
                source,
            })?;
        config.topology.declare(&connection).await?;
        Ok(connection)
    };
    timeout(CONNECT_LIMIT, prepare)
        .await
        .map_err(|_| ConnectError::Late { url: url.clone() })?
}

/// Publishes the connection's state until it is lost or the link is stopped; tells why.
async fn watch_over(
    config: &LinkConfig,
    connection: &Arc<Connection>,
    number: u64,
    state: &watch::Sender<State>,
    stop: &CancellationToken,
) -> String {
    let up = Up {
        connection: Arc::clone(connection),
        number,
    };
    let mut events = std::pin::pin!(connection.events_listener());
    let mut look = tokio::time::interval(LOOK_EVERY);
    info!(connection = config.connection_name, "connected to the broker");
    let mut announced = None;
    let mut reason = "the broker raised an alarm".to_owned();
    loop {
        let status = connection.status();
        if !status.connected() {
            return "the connection ended".to_owned();
        }
        if announced != Some(status.blocked()) {
            let before = announced.replace(status.blocked());
            let blocked = status.blocked().then(|| reason.clone());
            if let Some(reason) = &blocked {
                warn!(
                    connection = config.connection_name,
                    reason, "the broker takes no messages for now"
                );
            } else if before.is_some() {
                info!(connection = config.connection_name, "the broker takes messages");
            }
            state.send_replace(State::Up {
                up: up.clone(),
                blocked,
            });
        }
        tokio::select! {
            _ = look.tick() => {}
            event = events.next() => match event {
                Some(lapin::Event::ConnectionBlocked(words)) => reason = words,
                Some(lapin::Event::Error(error)) if !status.connected() => return telemetry::chain(&error),
                Some(_) => {}
                None => return "the connection ended".to_owned(),
            },
            () = stop.cancelled() => return "stopped".to_owned(),
        }
    }
}
