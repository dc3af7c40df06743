//! The databases of the shards: sessions with their masters.

use std::{
    collections::HashMap,
    ops::{Deref, DerefMut},
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
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// A session that was opened longer ago is not used again, however busy it is: who may be promoted is read when one is
/// opened.
///
/// Within an exchange the list may become old, and no step becomes less durable by that. With synchronous commit the
/// commit itself has waited for whom the server then had in `synchronous_standby_names`. And whom Patroni adds there it
/// writes into the list, and so may promote, only when that member has flushed the master's log as far as it reached when
/// the addition took effect (`SyncHandler` in its `postgresql/sync.py`): all that was committed before, and what comes
/// after waits for it by itself. (With a quorum it may be listed earlier, and is promoted only with so many votes that one
/// comes from a member that has the commit.) Only with asynchronous commit can a member that was added a moment ago be
/// promoted without a step that the list did not ask it for; that is bounded by this, and by the copy such a member begins
/// with.
const FRESH: Duration = Duration::from_secs(5);
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
    session: Session,
    master: String,
}

/// A session, and when it was opened.
#[derive(Debug)]
pub(crate) struct Session {
    inner: ShardSession,
    opened: Instant,
}

impl Session {
    fn is_fresh(&self) -> bool {
        self.opened.elapsed() < FRESH
    }
}

impl Deref for Session {
    type Target = ShardSession;

    fn deref(&self) -> &ShardSession {
        &self.inner
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut ShardSession {
        &mut self.inner
    }
}

/// What an exchange came to, as far as its sessions are concerned.
pub(crate) trait Answer {
    /// Whether something was not done, or may be forgotten: perhaps because another master is there by now, or other
    /// members may be promoted, so that it is tried again in a new session.
    fn is_in_doubt(&self) -> bool {
        false
    }
}

impl<T: Answer> Answer for Result<T, MoveError> {
    fn is_in_doubt(&self) -> bool {
        match self {
            Ok(answer) => answer.is_in_doubt(),
            Err(MoveError::Busy { .. } | MoveError::Refused { .. } | MoveError::Differs { .. }) => false,
            Err(_) => true,
        }
    }
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
    pub(crate) async fn session(&self, keeper: &Keeper) -> Result<Session, Fault> {
        if let Some(session) = self.idle(keeper) {
            return Ok(session);
        }
        let unreachable = |error| Fault::Unreachable {
            shard: keeper.shard.clone(),
            source: Box::new(error),
        };
        // From before the list is read: that is what grows old.
        let opened = Instant::now();
        let opening = async {
            let standbys = self.standbys(keeper).await.map_err(unreachable)?;
            let connection = self.masters.connect(keeper).await.map_err(unreachable)?;
            let inner = ShardSession::open(connection, keeper.ordinal, keeper.hosts.clone(), standbys).await?;
            Ok(Session { inner, opened })
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
    pub(crate) fn give_back(&self, keeper: &Keeper, session: Session, outcome: &impl Answer) {
        if outcome.is_in_doubt() || !session.is_fresh() {
            return;
        }
        self.with(|idle| {
            let kept = idle.entry(key(keeper)).or_default();
            if kept.len() < KEPT {
                kept.push(Idle {
                    session,
                    master: keeper.master.clone(),
                });
            }
        });
    }

    /// Closes the idle sessions with these shards.
    pub(crate) fn close_idle(&self, keepers: &[&Keeper]) {
        self.with(|idle| keepers.iter().for_each(|keeper| drop(idle.remove(&key(keeper)))));
    }

    fn idle(&self, keeper: &Keeper) -> Option<Session> {
        self.with(|idle| {
            idle.retain(|_, kept| {
                kept.retain(|one| one.session.is_fresh());
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
