//! One look at one shard.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crds::{Failover, OrderShard};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::ResourceExt;
use kube::runtime::controller::Action;
use telemetry::chain;
use tracing::info;

use super::Shards;
use super::act::{self, ActError};
use super::apply_children::apply_children;
use super::bootstrap::{self, TakeBackError};
use super::build::labels::names;
use super::build::{self, Files, dcs};
use super::database::{self, DatabaseError, Done, Occasion};
use super::finalize::{self, Deletion, FinalizeError};
use super::observe::{ObserveError, Observed, observe};
use super::reload::{self, ReloadError};
use super::rollout::{self, View};
use super::secrets::{self, Credentials, SecretError};
use super::shard::Shard;
use super::status::{self, Because, DatabaseFacts};
use super::volumes::{self, VolumeError};
use crate::apply::ApplyError;
use crate::conditions::{Standing, now, write_status};

/// A settled shard is looked at again after this time even if nothing told of a change.
const CALM: Duration = Duration::from_secs(300);
/// An unsettled one: what it waits for may not tell (files on their way into a mount, a database that starts).
const RESTLESS: Duration = Duration::from_secs(2);

/// Patroni looks at its configuration every second, applies it within another and then says which parameters wait for a
/// restart. Before that the absence of such parameters means nothing.
const TAKING_IN: Duration = Duration::from_secs(5);

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
    /// The checked specification; none when it was refused or could not be looked at.
    shard: Option<Shard>,
    facts: DatabaseFacts,
}

impl From<Standing> for Outcome {
    fn from(standing: Standing) -> Self {
        Self {
            standing,
            shard: None,
            facts: DatabaseFacts::default(),
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
    let namespace = resource.namespace().unwrap_or_default();
    let observed = observe(&shards.context, &namespace, &resource.name_any()).await?;
    let failover = notice_failover(shards, resource, &observed);
    let credentials = secrets::read(&shards.context.api::<Secret>(&namespace), &resource.spec.cluster).await;
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
    let calm = outcome.standing.is_ready() || outcome.standing.is_stalled();
    report(resource, shards, &observed, outcome, failover).await?;
    match error {
        Some(error) => Err(error),
        None => Ok(Action::requeue(if calm { CALM } else { RESTLESS })),
    }
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
    apply(resource, shards, &build::children(&shard, &files, replicas)).await?;
    free_first_start(resource, shards, &shard, observed).await?;
    remove_surplus_volumes(resource, shards, &shard, observed, &view).await?;

    if let Some(step) = rollout::urgent_step(&view) {
        act::act(shards, resource, observed, &credentials.system, &step).await?;
        let standing = Standing::reconciling(Because::RollingOut, "replacing a pod that cannot do its work");
        return Ok(Outcome {
            standing,
            shard: Some(shard),
            facts: remembered(resource),
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
    let standing = storage_refused
        .or(database.err())
        .or_else(|| status::members_standing(&view, observed))
        .or_else(|| status::rollout_standing(&view, observed))
        .or_else(|| (!loaded || !taken_in).then(reloading))
        .or_else(|| (!facts.initialised).then(preparing))
        .unwrap_or_else(|| status::settled(&view));
    Ok(Outcome {
        standing,
        shard: Some(shard),
        facts,
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
    match volumes::plan(&shards.context, &shard, observed).await {
        Ok(growth) if growth.is_done() => Ok((shard, None)),
        Ok(growth) => {
            info!(shard = shard.name, ?growth, "growing volumes");
            volumes::grow(&shards.context, &shard, observed, &growth).await?;
            Ok((shard, None))
        }
        Err(VolumeError::Refused(refusal)) => {
            if let Some(size) = observed.template_storage_text() {
                shard.storage.size = size;
            }
            Ok((
                shard,
                Some(Standing::stalled(Because::StorageRefused, refusal.to_string())),
            ))
        }
        Err(other) => Err(other.into()),
    }
}

/// Applies the children, and tells by an event what had to be put right on a shard that was complete before.
async fn apply(resource: &OrderShard, shards: &Shards, children: &build::Children) -> Result<(), ReconcileError> {
    let namespace = resource.namespace().unwrap_or_default();
    let written = apply_children(&shards.context, &namespace, children).await?;
    if written.is_empty() {
        return Ok(());
    }
    let configuration = format!("changed ConfigMap {}", names::dcs(&resource.name_any(), dcs::CONFIG));
    if written.contains(&configuration) {
        shards.remember(resource, |memory| memory.configured = Some(Instant::now()));
    }
    info!(shard = resource.name_any(), ?written, "applied");
    shards.context.tell(resource, "Applied", written.join(", ")).await;
    Ok(())
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

/// Prepares the database if something calls for it. A refusal that needs a person is a standing, not an error.
async fn prepare_database(
    resource: &OrderShard,
    shards: &Shards,
    view: &View<'_>,
    credentials: &Credentials,
    shard: &Shard,
) -> Result<Result<DatabaseFacts, Standing>, ReconcileError> {
    let known = |schema: i64| DatabaseFacts {
        schema_version: Some(schema),
        initialised: true,
    };
    let Some(master) = view.master else {
        return Ok(Ok(remembered(resource)));
    };
    let occasion = Occasion::of(master, credentials);
    let done = shards.remember(resource, |memory| memory.database.clone());
    if let Some((done, prepared)) = done
        && done.still_holds(&occasion)
    {
        return Ok(Ok(known(prepared.schema.0)));
    }
    let identity = database::identity(&shard.data_id, shard.ordinal);
    let pods = shards.context.api::<Pod>(&shard.namespace);
    let confirmed = !shard.commit.strict() || view.synchronous_standby().is_some();
    let _passage = shards.context.schemas.pass(&shard.namespace, &shard.name).await;
    match database::prepare(&pods, master, credentials, &identity, confirmed).await {
        Ok(None) => Ok(Ok(remembered(resource))),
        Ok(Some(prepared)) if prepared.migration_waits => Ok(Err(Standing::reconciling(
            Because::MigrationWaiting,
            format!(
                "the schema stays at version {} until the keys that move have arrived",
                prepared.schema.0
            ),
        ))),
        Ok(Some(prepared)) => {
            info!(
                shard = shard.name,
                schema = prepared.schema.0,
                "the database is prepared"
            );
            if prepared.passwords_reset {
                let note = "the passwords in the database were set to those of the cluster's Secrets";
                shards.context.tell(resource, "PasswordsReset", note).await;
            }
            shards.remember(resource, |memory| {
                memory.database = Some((Done::now(occasion), prepared))
            });
            Ok(Ok(known(prepared.schema.0)))
        }
        Err(refused) if refused.needs_a_person() => {
            Ok(Err(Standing::stalled(Because::DatabaseRefused, chain(&refused))))
        }
        Err(error) => Err(error.into()),
    }
}

/// Without a master the last thing known of the database is what the status says.
fn remembered(resource: &OrderShard) -> DatabaseFacts {
    let status = resource.status.as_ref();
    DatabaseFacts {
        schema_version: status.and_then(|s| s.schema_version),
        initialised: status.is_some_and(|s| s.initialised),
    }
}

fn notice_failover(shards: &Shards, resource: &OrderShard, observed: &Observed) -> Option<Failover> {
    let before = resource.status.as_ref().and_then(|s| s.master.clone());
    shards.remember(resource, |memory| {
        let (master, members) = (observed.master(), &observed.members);
        memory
            .master
            .look(before.as_deref(), master, members, Instant::now(), now())
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
        shard: Shard::parse(resource, &shards.context.config.postgres_image).ok(),
        facts: DatabaseFacts::default(),
    }
}

/// Writes the status if it changed, and tells of what changed by events.
async fn report(
    resource: &OrderShard,
    shards: &Shards,
    observed: &Observed,
    outcome: Outcome,
    failover: Option<Failover>,
) -> Result<(), ReconcileError> {
    let view = outcome.shard.as_ref().map(|shard| view(shard, observed));
    if let Some(failover) = &failover {
        let from = failover.from.as_deref().unwrap_or("nobody");
        let took = failover
            .milliseconds_without_writes
            .map_or_else(String::new, |ms| format!(", after {ms} ms without a master"));
        let note = format!("{} is master in place of {from}{took}: {}", failover.to, failover.cause);
        shards.context.warn(resource, "MasterChanged", note).await;
    }
    let before = resource.status.as_ref();
    let status = status::assemble(
        resource,
        observed,
        view.as_ref(),
        outcome.facts,
        failover,
        &outcome.standing,
    );
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
