//! The OrderCluster controller: one cluster into its shards, its credentials and its ring.

mod apply;
mod books;
mod build;
mod databases;
mod delete;
mod masters;
mod members;
mod memory;
mod names;
mod observe;
mod plan;
mod publish;
mod rebalance;
mod record;
mod ring_truth;
mod roster;
mod status;
mod validate;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use crds::{OrderCluster, OrderShard, labels};
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::{
        Controller,
        controller::{Action, Config},
        events::EventType,
        reflector::ObjectRef,
    },
};
use ring::Ordinal;
use serde_json::json;
use telemetry::chain;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use self::{
    books::{BookError, Books},
    databases::Databases,
    memory::Memory,
    observe::Observed,
    plan::{Plan, plan},
    publish::{RingState, Settled},
    rebalance::{Abort, Movers, Orders, Tempo},
    record::Record,
    status::Progress,
    validate::Cluster,
};
use crate::{
    apply::ApplyError,
    conditions::made_by_operator,
    context::{Context, watching},
    finalizer, metrics,
};

/// What the controller works with.
#[derive(Debug)]
pub(crate) struct Operator {
    context: Arc<Context>,
    books: Arc<dyn Books>,
    movers: Movers,
    memory: Memory,
}

/// Why a reconcile failed. It is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error("could not read or write the cluster's objects")]
    Api(#[from] kube::Error),
    #[error("could not publish the ring in ConfigMap {name}")]
    Publish {
        name: String,
        #[source]
        source: kube::Error,
    },
    #[error("could not give a shard its first ranges")]
    Claim(#[from] BookError),
    #[error("could not give shard {shard} its first ranges: {why}")]
    NoMaster { shard: String, why: String },
    #[error("the shards form no ring")]
    Ring(#[from] ring::RingError),
}

/// Runs the controller until `stop`, and finishes the reconciles and the rounds of movers that have begun.
pub(crate) async fn run(context: Arc<Context>, stop: CancellationToken) {
    let databases = Arc::new(Databases::new(&context));
    let (ask, mut asked) = tokio::sync::mpsc::unbounded_channel();
    let operator = Arc::new(Operator {
        movers: Movers::new(Arc::clone(&context), Arc::clone(&databases) as _, ask, Tempo::default()),
        context: Arc::clone(&context),
        books: databases,
        memory: Memory::default(),
    });
    let made =
        |component: &str| watching().labels(&format!("{},{}={component}", made_by_operator(), labels::COMPONENT));
    // Several children that change at once are one reconcile.
    let config = Config::default().debounce(Duration::from_millis(100)).concurrency(8);
    Controller::new(context.watched::<OrderCluster>(), watching())
        .with_config(config)
        .watches(context.watched::<OrderShard>(), watching(), |shard| {
            cluster_named(&shard, &shard.spec.cluster)
        })
        .watches(context.watched::<Secret>(), made(build::CREDENTIALS), |secret| {
            cluster_of(&secret)
        })
        .watches(context.watched::<ConfigMap>(), made(build::RING), |map| {
            cluster_of(&map)
        })
        .reconcile_on(stream::poll_fn(move |task| asked.poll_recv(task)))
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile, retry, Arc::clone(&operator))
        .for_each(|result| async move {
            if let Err(error) = result {
                debug!(error = chain(&error), "reconcile failed");
            }
        })
        .await;
    operator.movers.stop().await;
}

/// The cluster an object without an owner belongs to, by its label.
fn cluster_of<K: Resource>(object: &K) -> Option<ObjectRef<OrderCluster>> {
    cluster_named(object, object.labels().get(labels::CLUSTER)?)
}

fn cluster_named<K: Resource>(object: &K, cluster: &str) -> Option<ObjectRef<OrderCluster>> {
    Some(ObjectRef::new(cluster).within(&object.namespace()?))
}

/// One cluster, brought one step nearer to what it asks for; the status tells how far, whatever happens.
async fn reconcile(resource: Arc<OrderCluster>, operator: Arc<Operator>) -> Result<Action, Error> {
    let started = Instant::now();
    let result = if resource.metadata.deletion_timestamp.is_some() {
        delete::delete(&operator, &resource).await
    } else {
        converge(&operator, &resource).await
    };
    operator
        .context
        .metrics
        .reconciled("OrderCluster", result.is_ok(), started.elapsed());
    match &result {
        Ok(_) => operator.memory.succeeded(&resource.uid().unwrap_or_default()),
        Err(error) => status::failed(&operator, &resource, error).await,
    }
    result
}

/// Observe, decide, act, report.
async fn converge(operator: &Operator, resource: &OrderCluster) -> Result<Action, Error> {
    let api = operator
        .context
        .api::<OrderCluster>(&resource.namespace().unwrap_or_default());
    if finalizer::ensure(&api, resource, labels::CLUSTER_FINALIZER).await? {
        return Ok(Action::await_change());
    }
    let cluster = match Cluster::parse(resource, &operator.context.config.postgres_image) {
        Ok(cluster) => cluster,
        Err(why) => {
            status::refuse(operator, resource, &why).await?;
            return Ok(Action::await_change());
        }
    };
    let observed = observe::observe(&operator.context, resource, &cluster).await?;
    operator.warn_of_strangers(&cluster, &observed).await;
    let report = operator.movers.report(&cluster.uid);
    let given_up = report.iter().flat_map(|report| &report.empty).map(|o| o.get());
    // One that never came up cannot be asked, and must not hold up the rest.
    let newcomers = observed
        .shards
        .iter()
        .filter(|(o, shard)| observed.is_newcomer(**o, shard));
    let empty: BTreeSet<u16> = given_up.chain(newcomers.map(|(ordinal, _)| *ordinal)).collect();
    let plan = plan(&cluster, observed.known(&empty));
    let record = planned_record(&observed, &plan);

    apply::secrets(operator, &cluster, &observed, &record).await?;
    let shards = apply::shards(operator, &cluster, &observed, &plan).await?;
    let settled = publish::settle(operator, &cluster, &observed, &record, &plan, &shards).await?;
    if matches!(settled.ring, RingState::Current(_)) {
        apply::departures(operator, &cluster, &observed, &plan).await?;
    }
    let balanced = direct_mover(operator, resource, &cluster, &plan, &shards, &settled);

    let progress = Progress {
        plan,
        shards,
        ring: settled.ring,
        balanced,
        in_flight: settled.in_flight,
        paused: cluster.rebalance.paused,
        mover: operator.movers.report(&cluster.uid),
    };
    status::report(operator, resource, &progress).await?;
    end_abort(operator, resource, &cluster, &progress).await?;
    operator.measure(&cluster, &progress);
    Ok(progress.next())
}

/// The record with the shards of the plan in it: what is written down before they are made.
fn planned_record(observed: &Observed, plan: &Plan) -> Record {
    let mut record = observed.record.clone();
    record.highest = plan.highest;
    if observed.known(&BTreeSet::new()).settled_roster().is_some() {
        record.roster = Some(plan.roster());
    }
    record
}

/// Tells the cluster's mover what is wanted. Whether every key is where the specification wants it, as far as is known.
fn direct_mover(
    operator: &Operator,
    resource: &OrderCluster,
    cluster: &Cluster,
    plan: &Plan,
    shards: &BTreeMap<u16, OrderShard>,
    settled: &Settled,
) -> bool {
    let is_balanced = |tokens| operator.memory.is_balanced(&cluster.uid, tokens, &plan.owners);
    let balanced = settled.tokens.as_ref().is_none_or(is_balanced);
    // Without a ring to read nobody knows whom it lists; a mover that there is goes on under the orders it has.
    if let (Some(listed), Some(_)) = (&settled.listed, settled.ring.epoch()) {
        let account = resource.status.as_ref().and_then(|status| status.rebalance.clone());
        let aborted = account.as_ref().and_then(|account| account.aborted_generation);
        let orders = Orders::of(cluster, plan, shards, listed, aborted);
        let held = orders.settings.paused || orders.abort != Abort::No;
        let needed = settled.in_flight || (!balanced && !held);
        operator.movers.direct(&cluster.uid, orders, needed, account);
    }
    balanced
}

/// Takes the request to abort off the resource, once it has been fulfilled and the status says so.
async fn end_abort(
    operator: &Operator,
    resource: &OrderCluster,
    cluster: &Cluster,
    progress: &Progress,
) -> Result<(), Error> {
    let done = progress.mover.as_ref().is_some_and(|report| report.aborted);
    if !cluster.abort || !done {
        return Ok(());
    }
    let api = operator.context.api::<OrderCluster>(&cluster.namespace);
    let annotations = BTreeMap::from([(labels::ABORT_REBALANCE, None::<String>)]);
    let patch = json!({"metadata": {"annotations": annotations}});
    api.patch(&resource.name_any(), &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    Ok(())
}

impl Progress {
    /// When to look again though no watch says so.
    fn next(&self) -> Action {
        match &self.ring {
            // Somebody may change a shard's book by hand.
            RingState::Current(_) => Action::requeue(Duration::from_secs(600)),
            RingState::Soon(_, wait) => Action::requeue(*wait),
            // A database that does not answer says nothing when it does again.
            RingState::Unread { .. } if self.shards.values().all(plan::shard_is_ready) => {
                Action::requeue(Duration::from_secs(5))
            }
            RingState::Unread { .. } | RingState::Broken { .. } => Action::requeue(Duration::from_secs(30)),
        }
    }
}

/// After a failure: again, later each time.
#[expect(clippy::needless_pass_by_value, reason = "the controller's interface")]
fn retry(resource: Arc<OrderCluster>, error: &Error, operator: Arc<Operator>) -> Action {
    let wait = operator.memory.failed(&resource.uid().unwrap_or_default());
    warn!(
        cluster = resource.name_any(),
        namespace = resource.namespace(),
        error = chain(error),
        again_in_seconds = wait.as_secs(),
        "could not reconcile"
    );
    Action::requeue(wait)
}

impl Operator {
    /// Tells a step on the cluster's resource.
    async fn tell(&self, cluster: &Cluster, reason: &str, note: String) {
        tracing::info!(cluster = cluster.name, namespace = cluster.namespace, reason, note);
        self.context
            .event(&cluster.reference, EventType::Normal, reason, note)
            .await;
    }

    /// Warns on the cluster's resource, once for each saying.
    async fn warn_once(&self, cluster: &Cluster, reason: &str, note: String) {
        if self.memory.first_time(&cluster.uid, &note) {
            warn!(cluster = cluster.name, namespace = cluster.namespace, reason, note);
            self.context
                .event(&cluster.reference, EventType::Warning, reason, note)
                .await;
        }
    }

    /// Whoever makes OrderShards by hand gets past the admission policy only where it is not installed.
    async fn warn_of_strangers(&self, cluster: &Cluster, observed: &Observed) {
        for stranger in &observed.foreign {
            let note = format!(
                "OrderShard {} was not made by the operator and is ignored",
                stranger.name_any()
            );
            self.warn_once(cluster, "ForeignShard", note).await;
        }
    }

    fn measure(&self, cluster: &Cluster, progress: &Progress) {
        let labels = metrics::Cluster::new(&cluster.namespace, &cluster.name);
        let metrics = &self.context.metrics;
        let leaving = progress.plan.leaving();
        let staying = progress.shards.iter().filter(|(o, _)| !leaving.contains(&Ordinal(**o)));
        let ready = staying.filter(|(_, shard)| plan::shard_is_ready(shard)).count();
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        metrics.shards_wanted.get_or_create(&labels).set(cluster.shards.into());
        metrics.shards_ready.get_or_create(&labels).set(number(ready));
        if let Some(epoch) = progress.ring.epoch() {
            metrics
                .ring_epoch
                .get_or_create(&labels)
                .set(i64::try_from(epoch.get()).unwrap_or(i64::MAX));
        }
    }
}

#[cfg(test)]
pub(crate) mod fake_api;
#[cfg(test)]
mod fake_databases;
#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod held_tests;
#[cfg(test)]
mod rebalance_tests;
#[cfg(test)]
mod scenario_tests;
#[cfg(test)]
mod world;
