//! The ring of a cluster as a running program sees it, always the newest good one.
//!
//! A program watches the ring's ConfigMap and also has it mounted: the watch is quick, and the mounted copy is there when
//! the API server is not, so that a program starts and goes on without it. Whatever is damaged, or older than what the
//! same place gave before, is refused, and the last good ring stays. The ring is not what guards the data: a program
//! with an old ring is redirected by the shards themselves.

mod config_map;
mod directory;
mod keeper;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ring::Ring;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use keeper::Keeper;
pub use keeper::{Origin, Refusal, Status};

/// The three entries of the ConfigMap, and the three files of the mounted directory.
const RING_JSON: &str = "ring.json";
const DIGEST: &str = "digest";
const TOKENS: &str = "tokens";

/// Where a ring comes from; at least one place must be given.
#[derive(Clone)]
pub struct RingSourceConfig {
    /// Where the ConfigMap is mounted.
    pub directory: Option<PathBuf>,
    /// Namespace and name of the ConfigMap to watch.
    pub config_map: Option<(String, String)>,
    /// The client to watch it with.
    pub client: Option<kube::Client>,
    /// How long to wait for the first good ring.
    pub first_ring_within: Duration,
}

impl RingSourceConfig {
    /// The places of a program in a pod: the mounted ConfigMap, and the watch on it if it is named, with the client that
    /// the pod's service account gives.
    ///
    /// # Errors
    /// If the ConfigMap is named and there is no cluster to ask for it.
    pub async fn of_program(
        directory: PathBuf,
        config_map: Option<(String, String)>,
        first_ring_within: Duration,
    ) -> Result<Self, kube::Error> {
        let client = match &config_map {
            Some(_) => Some(kube::Client::try_default().await?),
            None => None,
        };
        Ok(Self {
            directory: Some(directory),
            config_map,
            client,
            first_ring_within,
        })
    }
}

/// Keeps the newest good ring up to date, until it is dropped.
pub struct RingSource {
    ring: watch::Receiver<Arc<Ring>>,
    status: Arc<ArcSwap<Status>>,
    _tasks: JoinSet<()>,
}

/// Why there is no ring to start with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingSourceError {
    /// Neither a directory nor a ConfigMap.
    #[error(
        "no place to read the ring from; give the directory where its ConfigMap is mounted, or the ConfigMap's name"
    )]
    NoPlace,
    /// A ConfigMap and nothing to ask for it.
    #[error(
        "the ring's ConfigMap {0} cannot be watched without a Kubernetes client; run within a cluster, or leave it out"
    )]
    NoClient(String),
    /// No good ring came in time.
    #[error("no ring within {waited:?}: {reasons}; has the operator published it?")]
    NoRing {
        /// How long was waited.
        waited: Duration,
        /// What each place said last.
        reasons: String,
    },
}

impl RingSource {
    /// Starts reading, and waits for the first good ring. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If there is nothing to read from, or no good ring in time.
    pub async fn start(config: RingSourceConfig) -> Result<Self, RingSourceError> {
        let RingSourceConfig {
            directory,
            config_map,
            client,
            first_ring_within: limit,
        } = config;
        if directory.is_none() && config_map.is_none() {
            return Err(RingSourceError::NoPlace);
        }
        let (offers, mut offered) = mpsc::channel(4);
        let mut tasks = JoinSet::new();
        if let Some(directory) = directory {
            tasks.spawn(directory::follow(directory, offers.clone()));
        }
        if let Some((namespace, name)) = config_map {
            let client = client.ok_or_else(|| RingSourceError::NoClient(format!("{namespace}/{name}")))?;
            tasks.spawn(config_map::follow(client, namespace, name, offers));
        }
        let mut keeper = Keeper::default();
        let first = async {
            loop {
                match offered.recv().await {
                    Some(offer) => {
                        if let Some(ring) = keeper.judge(offer) {
                            return ring;
                        }
                    }
                    // The readers end only with this function.
                    None => std::future::pending().await,
                }
            }
        };
        let Ok(first) = timeout(limit, first).await else {
            return Err(RingSourceError::NoRing {
                waited: limit,
                reasons: keeper.reasons(),
            });
        };
        let (publish, ring) = watch::channel(first);
        let status = keeper.status_handle();
        tasks.spawn(async move {
            while let Some(offer) = offered.recv().await {
                if let Some(ring) = keeper.judge(offer) {
                    publish.send_replace(ring);
                }
            }
        });
        Ok(Self {
            ring,
            status,
            _tasks: tasks,
        })
    }

    /// The ring, and a way to wait for the next one.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Ring>> {
        self.ring.clone()
    }

    /// The ring as it is now.
    pub fn current(&self) -> Arc<Ring> {
        self.ring.borrow().clone()
    }

    /// Which ring is in use and which was refused, for metrics and health.
    pub fn status(&self) -> Arc<Status> {
        self.status.load_full()
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
