//! The store itself: pools, role discovery, routing, transactions and reads.

pub(crate) mod commit;
pub(crate) mod connect;
pub(crate) mod fault;
mod heartbeat;
mod latency;
mod member;
mod monitor;
mod pause;
pub(crate) mod place;
pub(crate) mod pool;
mod positions;
pub(crate) mod query;
mod race;
mod read;
mod unattended;
pub(crate) mod write;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::registry::Registry;
use ring::{Ordinal, Ring};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::config::StoreConfig;
use crate::error::StoreError;
use crate::failpoint::Failpoint;
use crate::metrics::Metrics;
use crate::token::{Lsn, Term};
use member::Kind;
use monitor::{Shard, Shards};
use place::Places;

/// Typed access to all shards. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: StoreConfig,
    pub(crate) places: Places,
    shards: Arc<Shards>,
    pub(crate) metrics: Metrics,
    following: Mutex<Option<AbortHandle>>,
    pub(crate) failpoint: Failpoint,
}

/// What a member of a shard was last seen to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberRole {
    /// Takes writes.
    Master,
    /// In recovery.
    Replica,
    /// Not reached.
    Unreachable,
}

/// One member as last sampled.
#[derive(Debug, Clone)]
pub struct Member {
    /// `host:port` as the ring names it.
    pub host: String,
    /// Its role.
    pub role: MemberRole,
    /// Its timeline.
    pub term: Option<Term>,
    /// Flushed (master) or replayed (replica).
    pub lsn: Option<Lsn>,
    /// Age of the sample by this process's clock.
    pub sampled_ago: Option<Duration>,
    /// Why it was not reached.
    pub error: Option<String>,
}

/// A shard as this process sees it; for readiness, metrics and the API's view of the ring.
#[derive(Debug, Clone)]
pub struct ShardHealth {
    /// Which shard.
    pub shard: Ordinal,
    /// Its members.
    pub members: Vec<Member>,
}

impl ShardHealth {
    /// True when writes have somewhere to go.
    pub fn has_master(&self) -> bool {
        self.members.iter().any(|member| member.role == MemberRole::Master)
    }
}

impl Store {
    /// Starts the store on a ring. Connects lazily: shards that are away do not keep a program from starting.
    ///
    /// Must be called inside a tokio runtime; its monitor tasks end when the last clone is dropped.
    ///
    /// # Errors
    /// If the configuration cannot work at all.
    pub fn open(config: StoreConfig, ring: watch::Receiver<Arc<Ring>>) -> Result<Self, StoreError> {
        if config.pool.connections == 0 {
            return Err(StoreError::Config("the pool needs at least one connection".to_owned()));
        }
        if config.sample_interval.is_zero() {
            return Err(StoreError::Config(
                "the sample interval must be longer than nothing".to_owned(),
            ));
        }
        let metrics = Metrics::default();
        let shards = Arc::new(Shards::new(config.clone(), metrics.clone()));
        let places = Places::new(ring);
        shards.follow(&places.ring());
        let following = tokio::spawn(follow_ring(places.watch(), Arc::clone(&shards))).abort_handle();
        let inner = Inner {
            config,
            places,
            shards,
            metrics,
            following: Mutex::new(Some(following)),
            failpoint: Failpoint::default(),
        };
        let inner = Arc::new(inner);
        tokio::spawn(heartbeat::keep_replicas_fresh(Arc::downgrade(&inner)));
        Ok(Self { inner })
    }

    /// The ring in use.
    pub fn ring(&self) -> Arc<Ring> {
        self.inner.places.ring()
    }

    /// The ordinals of all shards in the ring in use.
    pub fn shards(&self) -> Vec<Ordinal> {
        self.ring().shards().iter().map(|shard| shard.ordinal).collect()
    }

    /// What the monitors last saw.
    pub fn health(&self) -> Vec<ShardHealth> {
        self.inner
            .shards
            .all()
            .iter()
            .map(|shard| shard_health(shard))
            .collect()
    }

    /// Makes what this store counts visible: reads by who answered, waits for connections, redirects and the like, all
    /// under the prefix `store`.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.inner.metrics.register(registry);
    }

    /// Stops the monitors and closes idle connections. Commits under way go on in their own tasks.
    pub async fn close(&self) {
        self.inner.stop();
    }
}

impl Inner {
    pub(crate) fn shard(&self, ordinal: Ordinal) -> Result<Arc<Shard>, StoreError> {
        if let Some(shard) = self.shards.get(ordinal) {
            return Ok(shard);
        }
        // The ring may be newer than the task that follows it.
        let ring = self.places.ring();
        self.shards.follow(&ring);
        self.shards.get(ordinal).ok_or_else(|| StoreError::NoSuchShard {
            shard: ordinal,
            epoch: ring.epoch().get(),
        })
    }

    fn stop(&self) {
        if let Some(task) = self.following.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
        self.shards.close();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn follow_ring(mut ring: watch::Receiver<Arc<Ring>>, shards: Arc<Shards>) {
    while ring.changed().await.is_ok() {
        let ring = Arc::clone(&ring.borrow_and_update());
        shards.follow(&ring);
    }
}

fn shard_health(shard: &Shard) -> ShardHealth {
    let view = shard.view.borrow();
    let now = Instant::now();
    let members = view.members.iter().map(|view| {
        let sample = view.sample();
        Member {
            host: view.host.clone(),
            role: match sample.map(|sample| &sample.kind) {
                Some(Kind::Master { .. }) => MemberRole::Master,
                Some(Kind::Replica { .. }) => MemberRole::Replica,
                None => MemberRole::Unreachable,
            },
            term: sample.and_then(|sample| sample.term),
            lsn: sample.map(|sample| sample.lsn),
            sampled_ago: sample.map(|sample| now.saturating_duration_since(sample.began)),
            error: view.last.as_ref().err().cloned(),
        }
    });
    ShardHealth {
        shard: shard.ordinal,
        members: members.collect(),
    }
}
