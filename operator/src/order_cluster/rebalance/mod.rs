//! Moving keys online: one mover a cluster, beside the reconciler.
//!
//! The reconciler gives [`Orders`] and reads [`Report`]s; the mover looks, decides and acts on its own time. What is
//! decided comes from `crates/moves`, what is done is in `store::moves`; the record of everything is in the databases of
//! the shards. `docs/moving-keys.md` explains the protocol.

mod act;
mod asking;
mod batches;
mod course;
mod delay;
mod desk;
mod hands;
mod lanes;
mod look;
mod mover;
mod orders;
mod pacing;
mod preflight;
mod report;
mod setbacks;
mod suspects;
mod teller;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crds::{OrderCluster, RebalanceStatus};
use kube::runtime::reflector::ObjectRef;
use ring::Tokens;
use tokio::{sync::mpsc::UnboundedSender, time::timeout};
use tokio_util::task::AbortOnDropHandle;

#[cfg(test)]
pub(crate) use self::hands::{Batch, Done, HandedOver, Job, Survey};
pub(crate) use self::mover::Pauses;
use self::{asking::Asking, desk::Desk, mover::Mover, teller::Teller};
pub(crate) use self::{
    hands::{Fault, Hands},
    orders::{Abort, Orders, Settings},
    pacing::Pacing,
    report::{Report, Standing},
};
use crate::context::Context;

/// How long a mover may take to finish what it has begun when it is told to stop.
const LAST_ROUND: Duration = Duration::from_secs(5);

/// How often a mover looks, and has its progress shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tempo {
    /// The least time between two requests for a reconcile that only shows progress.
    pub(crate) show: Duration,
    pub(crate) pauses: Pauses,
}

impl Default for Tempo {
    fn default() -> Self {
        Self {
            show: Duration::from_secs(2),
            pauses: Pauses::default(),
        }
    }
}

/// The movers of all clusters, by uid.
pub(crate) struct Movers {
    context: Arc<Context>,
    hands: Arc<dyn Hands>,
    /// Asks for a reconcile.
    ask: UnboundedSender<ObjectRef<OrderCluster>>,
    tempo: Tempo,
    all: Mutex<HashMap<String, Running>>,
}

struct Running {
    desk: Arc<Desk>,
    task: AbortOnDropHandle<()>,
}

impl Running {
    /// Whether the mover is gone without a word: it panicked.
    fn is_lost(&self) -> bool {
        self.task.is_finished() && !self.desk.is_closed()
    }
}

impl std::fmt::Debug for Movers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Movers")
    }
}

impl Movers {
    pub(crate) fn new(
        context: Arc<Context>,
        hands: Arc<dyn Hands>,
        ask: UnboundedSender<ObjectRef<OrderCluster>>,
        tempo: Tempo,
    ) -> Self {
        Self {
            context,
            hands,
            ask,
            tempo,
            all: Mutex::default(),
        }
    }

    /// Gives a cluster's mover its orders. Starts one if there never was one; after one that has gone, if one is `needed` or
    /// something else is asked for.
    /// `account` is what the resource's status tells of an earlier rebalance.
    pub(crate) fn direct(&self, uid: &str, mut orders: Orders, needed: bool, account: Option<RebalanceStatus>) {
        self.with(|all| {
            if let Some(running) = all.get(uid) {
                orders.abort = orders.abort.after(running.desk.abort());
            }
            if let Some(running) = all.get(uid)
                && !running.is_lost()
                && running.desk.give(&orders, needed)
            {
                return;
            }
            let account = all
                .get(uid)
                .and_then(|running| running.desk.report().course)
                .or(account);
            let teller = Teller::new(
                Arc::clone(&self.context),
                &orders.namespace,
                &orders.cluster,
                orders.reference.clone(),
            );
            let cluster = ObjectRef::new(&orders.cluster).within(&orders.namespace);
            let mover = Mover::new(Arc::clone(&self.hands), teller, self.tempo.pauses, account);
            let desk = Arc::new(Desk::new(orders));
            let asking = Asking::new(self.ask.clone(), cluster, self.tempo.show);
            let task = tokio::spawn(work(mover, Arc::clone(&desk), asking));
            let running = Running {
                desk,
                task: AbortOnDropHandle::new(task),
            };
            all.insert(uid.to_owned(), running);
        });
    }

    /// The newest report of a cluster's mover.
    pub(crate) fn report(&self, uid: &str) -> Option<Report> {
        self.with(|all| all.get(uid).map(|running| running.desk.report()))
    }

    /// Who owns what, and whether ranges are on their way, if a mover has just seen it.
    pub(crate) fn truth(&self, uid: &str) -> Option<(Tokens, bool)> {
        self.report(uid)?.truth()
    }

    /// Whether keys of the cluster move.
    pub(crate) fn is_moving(&self, uid: &str) -> bool {
        self.report(uid)
            .is_some_and(|report| report.standing == Standing::Moving)
    }

    /// How many rounds the cluster's mover has told of, and how it stands since the last; none if it has gone.
    #[cfg(test)]
    pub(crate) fn told(&self, uid: &str) -> Option<(u64, Standing)> {
        self.with(|all| {
            let running = all.get(uid).filter(|running| !running.task.is_finished())?;
            Some((running.desk.rounds(), running.desk.report().standing))
        })
    }

    /// Ends a cluster's mover where it stands: the cluster goes.
    pub(crate) fn forget(&self, uid: &str) {
        self.with(|all| drop(all.remove(uid)));
    }

    /// Tells all movers to stop, and lets them finish what they have begun.
    pub(crate) async fn stop(&self) {
        let all: Vec<Running> = self.with(|all| all.drain().map(|(_, running)| running).collect());
        for running in &all {
            running.desk.stop();
        }
        for running in all {
            // Whatever is cut off here is finished by the next operator.
            drop(timeout(LAST_ROUND, running.task).await);
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut HashMap<String, Running>) -> T) -> T {
        work(&mut self.all.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One mover's life: rounds until there is nothing left to do, or it is told to stop.
async fn work(mut mover: Mover, desk: Arc<Desk>, mut asking: Asking) {
    loop {
        let (version, orders) = desk.orders();
        let round = mover.round(&orders).await;
        let before = desk.file(version, round.report.clone());
        asking.consider(&before, &round.report, round.ended);
        if desk.is_stopped() || (round.ended && desk.close(version)) {
            mover.rest(&orders);
            return;
        }
        if !round.ended {
            drop(timeout(round.wait, desk.news(version)).await);
        }
    }
}
