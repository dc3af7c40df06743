//! The store itself: pools, role discovery, routing.

use std::sync::Arc;
use std::time::Duration;

use ring::{Ordinal, Ring};
use tokio::sync::watch;

use crate::config::StoreConfig;
use crate::error::StoreError;
use crate::token::{Lsn, Term};

/// Typed access to all shards. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    _inner: Arc<()>,
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
    pub fn open(config: StoreConfig, ring: watch::Receiver<Arc<Ring>>) -> Result<Self, StoreError> {
        let _ = (config, ring);
        unimplemented!()
    }

    /// The ring in use.
    pub fn ring(&self) -> Arc<Ring> {
        unimplemented!()
    }

    /// The ordinals of all shards in the ring in use.
    pub fn shards(&self) -> Vec<Ordinal> {
        unimplemented!()
    }

    /// What the monitors last saw.
    pub fn health(&self) -> Vec<ShardHealth> {
        unimplemented!()
    }

    /// Stops the monitors and closes all connections; running commits are waited for.
    pub async fn close(&self) {
        unimplemented!()
    }
}
