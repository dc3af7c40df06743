//! The OrderShard controller: one resource into a StatefulSet with everything around it, a prepared database and a
//! status.
//!
//! Data flows one way. [`observe`] reads, [`shard`] checks the specification, [`rollout`] and [`storage`] plan without
//! touching anything, [`build`] makes objects, [`apply_children`] and the others act, [`status`] tells.
//! High availability is Patroni's: nothing here promotes or demotes except by asking it.

mod act;
mod apply_children;
mod bootstrap;
mod build;
pub(crate) mod consensus;
mod database;
mod durability;
mod failover;
mod finalize;
mod members;
mod observe;
mod parameters;
mod passwords;
mod patroni_api;
mod pod_exec;
mod preparation;
pub(crate) mod quantity;
mod rebuild;
mod reconcile;
mod rejoin;
mod reload;
mod renewals;
mod rollout;
mod secrets;
mod settings;
mod shard;
mod stale_slots;
mod status;
mod storage;
mod touched;
mod vitals;
mod volumes;
mod watch;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crds::{OrderCluster, OrderShard, labels};
use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::runtime::controller::{self, Action, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource, ResourceExt};
use telemetry::chain;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::conditions::made_by_operator;
use crate::context::{Context, watching};
pub(crate) use build::template_revision;
pub(crate) use members::member_index;
pub(crate) use status::serves;

use bootstrap::StartWatch;
use database::{Done, Prepared};
use failover::MasterWatch;
use patroni_api::PatroniApi;
use preparation::Preparation;
use reconcile::ReconcileError;
use renewals::Renewals;
use secrets::Credentials;
use settings::Agreement;
use touched::{Seen, Touched};

/// Shards reconciled at the same time: most of a reconcile is waiting for answers.
const CONCURRENCY: u16 = 16;
/// Changes that come together are looked at together.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// A reconcile that failed is repeated after this time.
const RETRY: Duration = Duration::from_secs(5);

/// What the controller has between reconciles.
pub(crate) struct Shards {
    context: Arc<Context>,
    patroni: PatroniApi,
    renewals: Renewals,
    touched: Touched,
    memory: Mutex<HashMap<String, Memory>>,
}

/// What is remembered of one shard; all of it can be forgotten, at the price of looking again.
#[derive(Debug, Default)]
struct Memory {
    master: MasterWatch,
    start: StartWatch,
    database: Option<(Done, Prepared)>,
    /// The work on the database that is under way.
    preparation: Option<Preparation>,
    /// Members that do not follow.
    rejoin: rebuild::Memory,
    /// Members that were rid of slots nobody reads.
    slots: stale_slots::Memory,
    /// Its objects were all as they should be: those of this fingerprint.
    applied: Option<Seen<u64>>,
    credentials: Option<Seen<Credentials>>,
    /// The parameters that were last found in force.
    agreed: Option<Agreement>,
    /// When Patroni was last given another configuration.
    configured: Option<Instant>,
}

impl Shards {
    /// Works on what is remembered of a shard.
    fn remember<T>(&self, resource: &OrderShard, work: impl FnOnce(&mut Memory) -> T) -> T {
        let key = format!("{}/{}", resource.namespace().unwrap_or_default(), resource.name_any());
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        work(memory.entry(key).or_default())
    }

    fn forget(&self, resource: &OrderShard) {
        let key = format!("{}/{}", resource.namespace().unwrap_or_default(), resource.name_any());
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        self.renewals
            .forget(resource.namespace().as_deref(), &resource.name_any());
    }
}

/// Runs the controller, and samples the shards for the metrics, until `stop`.
pub(crate) async fn run(context: Arc<Context>, stop: CancellationToken) {
    tokio::join!(
        vitals::sample(Arc::clone(&context), stop.clone()),
        control(context, stop)
    );
}

async fn control(context: Arc<Context>, stop: CancellationToken) {
    let patroni = match PatroniApi::new() {
        Ok(patroni) => patroni,
        Err(error) => {
            error!(error = chain(&error), "the controller of shards does not start");
            return;
        }
    };
    let shards = Arc::new(Shards {
        context: Arc::clone(&context),
        patroni,
        renewals: Renewals::default(),
        touched: Touched::default(),
        memory: Mutex::default(),
    });
    let controller = Controller::new(context.watched::<OrderShard>(), watching()).with_config(
        controller::Config::default()
            .concurrency(CONCURRENCY)
            .debounce(DEBOUNCE),
    );
    let controller = with_triggers(controller, &context, &shards);
    controller
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile::reconcile, retry, shards)
        .for_each(|result| async move {
            // Errors of reconciles are told by `retry`; what is left is of the queue itself.
            if let Err(error) = result
                && !matches!(
                    error,
                    controller::Error::ReconcilerFailed(..) | controller::Error::ObjectNotFound(_)
                )
            {
                warn!(error = chain(&error), "the queue of shards had a fault");
            }
        })
        .await;
}

/// Everything whose change, loss or edit concerns a shard.
fn with_triggers(controller: Controller<OrderShard>, context: &Context, shards: &Shards) -> Controller<OrderShard> {
    let (store, renewals, touched) = (controller.store(), shards.renewals.clone(), &shards.touched);
    let noting = move |object: &ConfigMap| {
        renewals.take_in(object, Instant::now());
        watch::config_map(object)
    };
    let made = || watching().labels(&made_by_operator());
    let of_cluster = |store: Store<OrderShard>| {
        move |object: &Secret| match watch::by_label(object) {
            own if !own.is_empty() => own,
            _ => shards_of(&store, object, object.labels().get(labels::CLUSTER).map(String::as_str)),
        }
    };
    let going =
        |store: Store<OrderShard>| move |cluster: &OrderCluster| shards_of(&store, cluster, Some(&cluster.name_any()));
    controller
        .reconcile_on(watch::changes(
            context.watched::<Pod>(),
            made(),
            watch::pod,
            watch::by_label,
        ))
        .reconcile_on(touched.noting(watch::changes(
            context.watched::<ConfigMap>(),
            made(),
            noting,
            watch::by_label,
        )))
        .reconcile_on(touched.noting(watch::changes(
            context.watched::<Secret>(),
            made(),
            watch::any_change,
            of_cluster(store.clone()),
        )))
        .reconcile_on(watch::changes(
            context.watched::<OrderCluster>(),
            watching(),
            watch::deletion,
            going(store),
        ))
        .reconcile_on(touched.noting(plain::<StatefulSet>(context)))
        .reconcile_on(plain::<PersistentVolumeClaim>(context))
        .reconcile_on(touched.noting(plain::<Service>(context)))
        .reconcile_on(touched.noting(plain::<ServiceAccount>(context)))
        .reconcile_on(touched.noting(plain::<Role>(context)))
        .reconcile_on(touched.noting(plain::<RoleBinding>(context)))
        .reconcile_on(touched.noting(plain::<PodDisruptionBudget>(context)))
        .reconcile_on(touched.noting(plain::<NetworkPolicy>(context)))
}

/// Any change of an object that the operator made for a shard.
fn plain<K>(context: &Context) -> impl futures::Stream<Item = ObjectRef<OrderShard>> + Send + use<K>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + 'static,
{
    let made = watching().labels(&made_by_operator());
    watch::changes(context.watched::<K>(), made, watch::any_change, watch::by_label)
}

/// All shards of a cluster in the namespace of `object`.
fn shards_of<K: Resource>(store: &Store<OrderShard>, object: &K, cluster: Option<&str>) -> Vec<ObjectRef<OrderShard>> {
    let namespace = object.meta().namespace.as_deref();
    store
        .state()
        .iter()
        .filter(|s| s.metadata.namespace.as_deref() == namespace && Some(s.spec.cluster.as_str()) == cluster)
        .map(|s| ObjectRef::from_obj(s.as_ref()))
        .collect()
}

fn retry(resource: Arc<OrderShard>, error: &ReconcileError, _: Arc<Shards>) -> Action {
    warn!(
        shard = resource.name_any(),
        namespace = resource.namespace(),
        error = chain(error),
        "reconcile failed; it is repeated"
    );
    Action::requeue(RETRY)
}
