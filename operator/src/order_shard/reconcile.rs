//! One look at one shard.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crds::{OrderShard, Rebuild};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::ResourceExt;
use kube::runtime::controller::Action;
use telemetry::chain;
use tracing::info;

use super::act::{self, ActError};
use super::apply_children::{Written, apply_children};
use super::bootstrap::{self, TakeBackError};
use super::build::labels::names;
use super::build::{self, Files, dcs};
use super::database::{self, DatabaseError};
use super::failover::Noticed;
use super::finalize::{self, Deletion, FinalizeError};
use super::observe::{ObserveError, Observed, observe};
use super::preparation::prepare_database;
use super::rebuild;
use super::reload::{self, ReloadError};
use super::rollout::{self, View};
use super::secrets::{self, Credentials, SecretError};
use super::settings::{self, Agreement};
use super::shard::Shard;
use super::stale_slots;
use super::status::{self, Because, DatabaseFacts, Found};
use super::storage;
use super::touched::Seen;
use super::volumes::{self, VolumeError};
use super::{Memory, Shards};
use crate::apply::ApplyError;
use crate::conditions::{Standing, now, write_status};

/// A settled shard is looked at again after this time even if nothing told of a change.
const CALM: Duration = Duration::from_secs(300);
/// One that stalls: a person may mend it where no watch tells, in the database or at a storage class.
const STALLED: Duration = Duration::from_secs(30);
/// An unsettled one: what it waits for may not tell (files on their way into a mount, a database that starts).
const RESTLESS: Duration = Duration::from_secs(2);

/// Patroni looks at its configuration every second, applies it within another and then says which parameters wait for a
/// restart. Before that the absence of such parameters means nothing.
const TAKING_IN: Duration = Duration::from_secs(5);
/// After so long even a Patroni that the API server keeps waiting has taken it in.
const SURELY_IN: Duration = Duration::from_secs(60);

/// Why a look failed; it is repeated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReconcileError {
    #[error(transparent)]
    Observe(#[from] ObserveError),
    #[error(transparent)]
    Finalize(#[from] FinalizeError),
    #[error(transparent)]
    Secrets(#[from] SecretError),
    #[error(transparent)]
    Volumes(#[from] VolumeError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error(transparent)]
    Reload(#[from] ReloadError),
    #[error(transparent)]
    TakeBack(#[from] TakeBackError),
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error(transparent)]
    Act(#[from] ActError),
    #[error("could not write the status")]
    Status(#[source] kube::Error),
}

/// Where the work on a shard stands after one look.
struct Outcome {
    standing: Standing,
    /// Nothing is under way, whatever the standing says of the specification.
    settled: bool,
    /// The checked specification; none when it was refused or could not be looked at.
    shard: Option<Shard>,
    facts: DatabaseFacts,
    /// The member that is copied anew, or that none is; `None` when nobody looked.
    rebuilding: Option<Option<Rebuild>>,
}

impl From<Standing> for Outcome {
    fn from(standing: Standing) -> Self {
        Self {
            settled: standing.is_ready() || standing.is_stalled(),
            standing,
            shard: None,
            facts: DatabaseFacts::default(),
            rebuilding: None,
        }
    }
}

pub(super) async fn reconcile(resource: Arc<OrderShard>, shards: Arc<Shards>) -> Result<Action, ReconcileError> {
    let started = Instant::now();
    let result = look(&resource, &shards).await;
    shards
        .context
        .metrics
        .reconciled("OrderShard", result.is_ok(), started.elapsed());
    result
}

async fn look(resource: &OrderShard, shards: &Shards) -> Result<Action, ReconcileError> {
    let (namespace, name) = (resource.namespace().unwrap_or_default(), resource.name_any());
    let mut observed = observe(&shards.context, &namespace, &name).await?;
    let lapsed = |holder: &str| shards.renewals.lapsed(Some(&namespace), &name, holder, Instant::now());
    observed.free_lapsed_lock(lapsed);
    let failover = notice_failover(shards, resource, &observed);
    let credentials = credentials(resource, shards, &namespace).await;
    let refusal = match deletion(resource, shards, &observed, credentials.as_ref().ok()).await {
        Ok(Some(Deletion::Done)) => return Ok(Action::await_change()),
        Ok(Some(Deletion::Stopping)) => {
            let standing = Standing::reconciling(Because::Deleting, "the members are stopping");
            report(resource, shards, &observed, standing.into(), failover).await?;
            return Ok(Action::requeue(RESTLESS));
        }
        Ok(Some(Deletion::Refused(standing))) => Some(standing),
        Ok(None) => None,
        Err(error) => {
            let outcome = failed(resource, shards, &error);
            report(resource, shards, &observed, outcome, failover).await?;
            return Err(error);
        }
    };
    let (mut outcome, error) = match converge(resource, shards, &observed, credentials).await {
        Ok(outcome) => (outcome, None),
        Err(error) => (failed(resource, shards, &error), Some(error)),
    };
    if let Some(refusal) = refusal {
        outcome.standing = refusal;
    }
    let again = match (outcome.settled, outcome.standing.is_stalled()) {
        (false, _) => RESTLESS,
        (true, true) => STALLED,
        (true, false) => CALM,
    };
    report(resource, shards, &observed, outcome, failover).await?;
    error.map_or(Ok(Action::requeue(again)), Err)
}

/// The passwords, read again when a watch has told of a change.
async fn credentials(resource: &OrderShard, shards: &Shards, namespace: &str) -> Result<Credentials, SecretError> {
    let (touched, now) = (
        shards.touched.times(Some(namespace), &resource.name_any()),
        Instant::now(),
    );
    let known = |memory: &mut Memory| memory.credentials.as_ref()?.now(touched, now).cloned();
    if let Some(credentials) = shards.remember(resource, known) {
        return Ok(credentials);
    }
    let secrets = shards.context.api::<Secret>(namespace);
    let credentials = secrets::read(&secrets, &resource.spec.cluster).await?;
    let seen = Seen::new(credentials.clone(), touched, now);
    shards.remember(resource, |memory| memory.credentials = Some(seen));
    Ok(credentials)
}

/// Brings the shard nearer to its specification.
async fn converge(
    resource: &OrderShard,
    shards: &Shards,
    observed: &Observed,
    credentials: Result<Credentials, SecretError>,
) -> Result<Outcome, ReconcileError> {
    let shard = match Shard::parse(resource, &shards.context.config.postgres_image) {
        Ok(shard) => shard,
        Err(invalid) => return Ok(Standing::stalled(Because::InvalidSpec, invalid.to_string()).into()),
    };
    let credentials = match credentials {
        Err(missing) if missing.is_missing() => {
            return Ok(Standing::reconciling(Because::WaitingForCredentials, missing.to_string()).into());
        }
        other => other?,
    };
    let (shard, storage_refused) = fit_volumes(shards, shard, observed).await?;
    let view = view(&shard, observed);
    let replicas = rollout::replicas_now(&view, observed.current_replicas());
    let files = Files::render(&shard, &credentials.system, replicas);
    let children = build::children(&shard, &files, replicas, &shards.context.config.namespace);
    let is_new_set = apply(resource, shards, &children).await?;
    // What was observed is older than a set that has just been written: no pod may pass for made from its template.
    let newest_revision = view.newest_revision.filter(|_| !is_new_set);
    let view = View {
        newest_revision,
        ..view
    };
    free_first_start(resource, shards, &shard, observed).await?;
    remove_surplus_volumes(resource, shards, &shard, observed, &view).await?;
    let rebuilding = rebuild::mend(resource, shards, &view, &credentials).await;
    stale_slots::sweep(resource, shards, &view, &credentials).await;

    if let Some(step) = rollout::urgent_step(&view) {
        act::act(shards, resource, observed, &credentials.system, &step).await?;
        let standing = Standing::reconciling(Because::RollingOut, "replacing a pod that cannot do its work");
        return Ok(Outcome {
            standing,
            settled: false,
            shard: Some(shard),
            facts: DatabaseFacts::remembered(resource),
            rebuilding: Some(rebuilding),
        });
    }
    let database = prepare_database(resource, shards, &view, &credentials, &shard).await?;
    let pods = shards.context.api::<Pod>(&shard.namespace);
    let loaded = reload::reload(&pods, &observed.members, &files, |m| view.is_outdated(m)).await?;
    let step = rollout::next_step(&view).filter(|_| loaded && database.is_ok());
    if let Some(step) = &step {
        act::act(shards, resource, observed, &credentials.system, step).await?;
    }

    let taken_in = shards.remember(resource, |memory| {
        memory.configured.is_none_or(|at| at.elapsed() > TAKING_IN)
    });
    let reloading = || {
        Standing::reconciling(
            Because::ReloadingConfiguration,
            "changed settings are on their way into the members",
        )
    };
    let facts = database.as_ref().copied().unwrap_or_default();
    let progress = database
        .err()
        .or_else(|| status::members_standing(&view, observed, rebuilding.as_ref()))
        .or_else(|| status::rollout_standing(&view, observed))
        .or_else(|| (!loaded || !taken_in).then(reloading))
        .or_else(|| (!facts.initialised).then(preparing))
        .unwrap_or_else(|| status::settled(&view));
    let refused = match storage_refused.or_else(|| unknown_parameters(&shard)) {
        None if progress.is_ready() => parameters_refused(resource, shards, &shard, &view, &credentials).await?,
        refused => refused,
    };
    let settled = [Some(&progress), refused.as_ref()]
        .into_iter()
        .flatten()
        .all(|standing| standing.is_ready() || standing.is_stalled());
    Ok(Outcome {
        standing: refused.unwrap_or(progress),
        settled,
        shard: Some(shard),
        facts,
        rebuilding: Some(rebuilding),
    })
}

fn preparing() -> Standing {
    Standing::reconciling(Because::PreparingDatabase, "roles and schema are being made")
}

fn view<'a>(shard: &Shard, observed: &'a Observed) -> View<'a> {
    View {
        instances: shard.instances,
        commit: shard.commit,
        members: &observed.members,
        consensus: &observed.consensus,
        master: observed.master(),
        newest_revision: observed.newest_revision(),
    }
}

/// Grows the volumes. What cannot be is reported, and everything else goes on with the size there is.
async fn fit_volumes(
    shards: &Shards,
    mut shard: Shard,
    observed: &Observed,
) -> Result<(Shard, Option<Standing>), ReconcileError> {
    if let Some(smallest) = storage::smallest(&observed.claims) {
        shard.fit_in(smallest);
    }
    match volumes::fit(&shards.context, &shard, observed).await {
        Ok(()) => Ok((shard, None)),
        Err(refusal) if refusal.is_refusal() => {
            if let Some(size) = observed.template_storage_text() {
                shard.storage.size = size;
            }
            let standing = Standing::stalled(Because::StorageRefused, chain(&refusal));
            Ok((shard, Some(standing)))
        }
        Err(other) => Err(other.into()),
    }
}

/// Applies the children, and tells by an event what had to be put right on a shard that was complete before. Whether the
/// StatefulSet was written.
async fn apply(resource: &OrderShard, shards: &Shards, children: &build::Children) -> Result<bool, ReconcileError> {
    let namespace = resource.namespace().unwrap_or_default();
    let held = resource.spec.template_revision.as_deref() != Some(build::template_revision());
    // Before anything is read: a change that is told of meanwhile counts.
    let touched = shards.touched.times(Some(&namespace), &resource.name_any());
    let (wanted, at) = (children.fingerprint(held), Instant::now());
    let is_wanted = |applied: &Seen<u64>| applied.now(touched, at) == Some(&wanted);
    if shards.remember(resource, |memory| memory.applied.as_ref().is_some_and(is_wanted)) {
        return Ok(false);
    }
    let Written { what, stateful_set } = apply_children(&shards.context, &namespace, children, held).await?;
    if what.is_empty() {
        let applied = Seen::new(wanted, touched, at);
        shards.remember(resource, |memory| memory.applied = Some(applied));
        return Ok(false);
    }
    let configuration = format!("changed ConfigMap {}", names::dcs(&resource.name_any(), dcs::CONFIG));
    if what.contains(&configuration) {
        shards.remember(resource, |memory| memory.configured = Some(Instant::now()));
    }
    info!(shard = resource.name_any(), written = ?what, "applied");
    shards.context.tell(resource, "Applied", what.join(", ")).await;
    Ok(stateful_set)
}

/// Removes what members left that have gone for good, once all others are well.
async fn remove_surplus_volumes(
    resource: &OrderShard,
    shards: &Shards,
    shard: &Shard,
    observed: &Observed,
    view: &View<'_>,
) -> Result<(), ReconcileError> {
    let none_leaves =
        observed.members.len() == shard.instances as usize && observed.current_replicas() == Some(shard.instances);
    if !none_leaves || !view.is_whole() {
        return Ok(());
    }
    let removed = volumes::remove_surplus(&shards.context, shard, observed).await?;
    if removed > 0 {
        let note = format!("removed {removed} volumes of members that the specification no longer asks for");
        shards.context.tell(resource, "VolumesRemoved", note).await;
    }
    Ok(())
}

/// Takes back the claim of a first start that nobody makes.
async fn free_first_start(
    resource: &OrderShard,
    shards: &Shards,
    shard: &Shard,
    observed: &Observed,
) -> Result<(), ReconcileError> {
    let abandoned = shards.remember(resource, |memory| {
        let (consensus, members) = (&observed.consensus, &observed.members);
        memory.start.look(shard.instances, consensus, members, Instant::now())
    });
    let config_maps = shards.context.api::<ConfigMap>(&shard.namespace);
    let config_map = names::dcs(&shard.name, dcs::CONFIG);
    if abandoned && bootstrap::take_back(&config_maps, &config_map).await? {
        let note = "all members waited for one of them to make the database; they may try again";
        shards.context.warn(resource, "FirstStartFreed", note).await;
    }
    Ok(())
}

/// Whether the parameters of the specification are in force, once everything else is as asked. Told as on its way for a
/// while: the members may be slow to take a change in.
async fn parameters_refused(
    resource: &OrderShard,
    shards: &Shards,
    shard: &Shard,
    view: &View<'_>,
    credentials: &Credentials,
) -> Result<Option<Standing>, ReconcileError> {
    let (Some(master), false) = (view.master, shard.asked.is_empty()) else {
        return Ok(None);
    };
    let agreement = Agreement::of(master, shard);
    if shards.remember(resource, |memory| {
        memory.agreed.as_ref().is_some_and(|a| a.still_holds(&agreement))
    }) {
        return Ok(None);
    }
    let refused = settings::refused(&shard.asked, &database::settings(master, credentials).await?);
    if refused.is_empty() {
        shards.remember(resource, |memory| memory.agreed = Some(agreement));
        return Ok(None);
    }
    let message = settings::message(&refused);
    let lately = shards.remember(resource, |memory| {
        memory.configured.is_some_and(|at| at.elapsed() < SURELY_IN)
    });
    Ok(Some(if lately {
        Standing::reconciling(Because::ReloadingConfiguration, message)
    } else {
        Standing::stalled(Because::ParametersRefused, message)
    }))
}

/// Names that PostgreSQL does not know are told at once, and everything else goes on without them.
fn unknown_parameters(shard: &Shard) -> Option<Standing> {
    let unknown = settings::unknown(&shard.asked);
    (!unknown.is_empty()).then(|| Standing::stalled(Because::ParametersRefused, settings::message(&unknown)))
}

fn notice_failover(shards: &Shards, resource: &OrderShard, observed: &Observed) -> Option<Noticed> {
    let before = resource.status.as_ref().and_then(|s| s.master.clone());
    let (namespace, shard) = (resource.namespace(), resource.name_any());
    let sign_of_life = |member: &str| shards.renewals.last_of(namespace.as_deref(), &shard, member);
    shards.remember(resource, |memory| {
        let (master, members) = (observed.master(), &observed.members);
        memory.master.look(
            before.as_deref(),
            master,
            members,
            sign_of_life,
            (Instant::now(), now()),
        )
    })
}

async fn deletion(
    resource: &OrderShard,
    shards: &Shards,
    observed: &Observed,
    credentials: Option<&Credentials>,
) -> Result<Option<Deletion>, ReconcileError> {
    if resource.metadata.deletion_timestamp.is_none() {
        finalize::hold(&shards.context, resource).await?;
        return Ok(None);
    }
    let deletion = finalize::finalize(&shards.context, resource, observed, credentials).await?;
    if matches!(deletion, Deletion::Done) {
        shards.forget(resource);
    }
    Ok(Some(deletion))
}

/// A failed look is told in the status too: whoever reads it sees why nothing goes on.
fn failed(resource: &OrderShard, shards: &Shards, error: &ReconcileError) -> Outcome {
    Outcome {
        standing: Standing::reconciling(Because::Failed, chain(error)),
        settled: false,
        shard: Shard::parse(resource, &shards.context.config.postgres_image).ok(),
        facts: DatabaseFacts::default(),
        rebuilding: None,
    }
}

/// Writes the status if it changed, and tells of what changed by events.
async fn report(
    resource: &OrderShard,
    shards: &Shards,
    observed: &Observed,
    outcome: Outcome,
    failover: Option<Noticed>,
) -> Result<(), ReconcileError> {
    let view = outcome.shard.as_ref().map(|shard| view(shard, observed));
    if let Some(Noticed { failover, planned }) = &failover {
        shards.context.metrics.shards.failed_over(resource, *planned);
        let from = failover.from.as_deref().unwrap_or("nobody");
        let took = failover
            .milliseconds_without_writes
            .map_or_else(String::new, |ms| format!(", after {ms} ms without a master"));
        let note = format!("{} is master in place of {from}{took}: {}", failover.to, failover.cause);
        shards.context.warn(resource, "MasterChanged", note).await;
    }
    let before = resource.status.as_ref();
    let rebuilding = outcome
        .rebuilding
        .unwrap_or_else(|| before.and_then(|status| status.rebuilding.clone()));
    let found = Found {
        database: outcome.facts,
        failover: failover.map(|noticed| noticed.failover),
        rebuilding,
    };
    let status = status::assemble(resource, observed, view.as_ref(), found, &outcome.standing);
    let api = shards
        .context
        .api::<OrderShard>(&resource.namespace().unwrap_or_default());
    let wrote = write_status(&api, &resource.name_any(), before, &status)
        .await
        .map_err(ReconcileError::Status)?;
    if wrote {
        tell_transition(resource, shards, &outcome.standing).await;
    }
    Ok(())
}

/// An event for each new reason; messages change too often for that.
async fn tell_transition(resource: &OrderShard, shards: &Shards, standing: &Standing) {
    let conditions = resource
        .status
        .as_ref()
        .map(|s| s.conditions.as_slice())
        .unwrap_or_default();
    let before = conditions
        .iter()
        .find(|c| c.type_ == "Ready")
        .map(|c| c.reason.as_str());
    if before == Some(standing.reason()) {
        return;
    }
    if standing.is_stalled() {
        shards
            .context
            .warn(resource, standing.reason(), standing.message())
            .await;
    } else {
        shards
            .context
            .tell(resource, standing.reason(), standing.message())
            .await;
    }
}
