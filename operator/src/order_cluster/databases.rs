//! The databases of the shards: sessions with their masters.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client, ResourceExt};
use store::moves::{MoveError, ShardSession};
use tokio::time::timeout;

use super::{
    masters::{ConnectError, Keeper, Masters},
    rebalance::{Fault, Pacing},
};
use crate::{
    context::Context,
    order_shard::consensus::{self, Standbys},
};

/// A shard that does not answer in this time is looked at again later.
const PATIENCE: Duration = Duration::from_secs(10);
/// A session that was idle for longer is not used again: who may be promoted is read when one is opened.
const IDLE: Duration = Duration::from_secs(20);
/// How many idle sessions are kept for a shard.
const KEPT: usize = 8;

/// Everything done in the databases is done by this.
pub(crate) struct Databases {
    pub(crate) masters: Masters,
    pub(crate) context: Arc<Context>,
    pub(crate) pacing: Pacing,
    client: Client,
    idle: Mutex<HashMap<(String, String), Vec<Idle>>>,
}

struct Idle {
    session: ShardSession,
    master: String,
    since: Instant,
}

impl std::fmt::Debug for Databases {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Databases")
    }
}

impl Databases {
    pub(crate) fn new(context: &Arc<Context>) -> Self {
        Self {
            masters: Masters::new(context.client.clone()),
            client: context.client.clone(),
            context: Arc::clone(context),
            pacing: Pacing::default(),
            idle: Mutex::default(),
        }
    }

    /// A session with the shard's master: one that is idle, or a new one.
    pub(crate) async fn session(&self, keeper: &Keeper) -> Result<ShardSession, Fault> {
        if let Some(session) = self.idle(keeper) {
            return Ok(session);
        }
        let unreachable = |error| Fault::Unreachable {
            shard: keeper.shard.clone(),
            source: Box::new(error),
        };
        let opening = async {
            let standbys = self.standbys(keeper).await.map_err(unreachable)?;
            let connection = self.masters.connect(keeper).await.map_err(unreachable)?;
            ShardSession::open(connection, keeper.ordinal, keeper.hosts.clone(), standbys)
                .await
                .map_err(Fault::from)
        };
        timeout(PATIENCE, opening).await.unwrap_or_else(|_| {
            Err(Fault::Silent {
                shard: keeper.shard.clone(),
                after: PATIENCE,
            })
        })
    }

    /// Gives a session back after an exchange that ended like this. One that met more than a refusal is closed: a new one
    /// finds the master anew, and who may be promoted.
    pub(crate) fn give_back<T>(&self, keeper: &Keeper, session: ShardSession, outcome: &Result<T, MoveError>) {
        if !matches!(
            outcome,
            Ok(_) | Err(MoveError::Busy { .. } | MoveError::Refused { .. } | MoveError::Differs { .. })
        ) {
            return;
        }
        self.with(|idle| {
            let kept = idle.entry(key(keeper)).or_default();
            if kept.len() < KEPT {
                kept.push(Idle {
                    session,
                    master: keeper.master.clone(),
                    since: Instant::now(),
                });
            }
        });
    }

    /// Closes every idle session.
    pub(crate) fn close_idle(&self) {
        self.with(HashMap::clear);
    }

    fn idle(&self, keeper: &Keeper) -> Option<ShardSession> {
        self.with(|idle| {
            idle.retain(|_, kept| {
                kept.retain(|one| one.since.elapsed() < IDLE);
                !kept.is_empty()
            });
            let kept = idle.get_mut(&key(keeper))?;
            kept.retain(|one| one.master == keeper.master);
            kept.pop().map(|one| one.session)
        })
    }

    /// The other members that Patroni may promote: all, or with synchronous commit those it has named.
    async fn standbys(&self, keeper: &Keeper) -> Result<Vec<String>, ConnectError> {
        if !keeper.synchronous {
            return Ok(keeper.others.clone());
        }
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &keeper.namespace);
        let unknown = |why: String| ConnectError::Standbys {
            shard: keeper.shard.clone(),
            why,
        };
        let map = maps
            .get(&consensus::sync_config_map(&keeper.shard))
            .await
            .map_err(|error| unknown(error.to_string()))?;
        match consensus::standbys(map.annotations(), &keeper.master) {
            Standbys::Named(names) => Ok(names),
            Standbys::Anybody => Ok(keeper.others.clone()),
            Standbys::OfAnotherMaster(leader) => Err(unknown(format!(
                "the list is {leader}'s, and {} has not written its own yet",
                keeper.master
            ))),
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut HashMap<(String, String), Vec<Idle>>) -> T) -> T {
        work(&mut self.idle.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn key(keeper: &Keeper) -> (String, String) {
    (keeper.namespace.clone(), keeper.shard.clone())
}
