//! What the status of a cluster says. Pure, but for writing it.

use std::collections::BTreeMap;

use crds::{DurabilityNow, OrderCluster, OrderClusterStatus, OrderShard, RebalancePhase, ShardFailover, labels};
use kube::ResourceExt;

use super::{
    Error, Operator,
    plan::{Plan, Step, shard_is_ready},
    publish::RingState,
    rebalance::{Report, Standing as Mover},
    validate::InvalidCluster,
};
use crate::{
    conditions::{self, Reason, Standing},
    metrics,
};

/// Why a cluster is ready or not. These names are part of the API: alerts and scripts match them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClusterReason {
    /// Ready: every shard is as asked and the ring is published.
    AllShardsReady,
    /// Reconciling: shards were just created.
    CreatingShards,
    /// Reconciling: a change is on its way through the shards, so many at a time.
    RollingOut,
    /// Reconciling: shards are not ready; the message names them.
    ShardsNotReady,
    /// Reconciling: the ring waits for shards that do not say what they own.
    WaitingForRing,
    /// Reconciling: keys move between shards.
    Rebalancing,
    /// Reconciling: keys have to move, and something has to come first that comes by itself; the message says what.
    RebalanceWaiting,
    /// Reconciling: shards that hold nothing any more, or nearly so, are about to go.
    ShardsLeaving,
    /// Reconciling: something failed and is tried again.
    Retrying,
    /// Reconciling: the cluster is being deleted.
    Deleting,
    /// Stalled: the specification makes no sense; the message says what to change.
    InvalidSpec,
    /// Stalled: keys have to move, and somebody has to make that possible first; the message says how.
    RebalanceBlocked,
    /// Stalled: keys have to move, and spec.rebalance.paused holds them.
    RebalancePaused,
    /// Stalled: keys have to move, but the rebalance was aborted by request and waits for another specification.
    RebalanceAborted,
    /// Stalled: a resource that is not the operator's has the name of a shard.
    NameTaken,
    /// Stalled: the shards contradict each other about who owns what, or one lost its data.
    RingInconsistent,
    /// Stalled: a shard is stalled; the message names it.
    ShardStalled,
}

impl Reason for ClusterReason {
    fn as_str(self) -> &'static str {
        match self {
            Self::AllShardsReady => "AllShardsReady",
            Self::CreatingShards => "CreatingShards",
            Self::RollingOut => "RollingOut",
            Self::ShardsNotReady => "ShardsNotReady",
            Self::WaitingForRing => "WaitingForRing",
            Self::Rebalancing => "Rebalancing",
            Self::RebalanceWaiting => "RebalanceWaiting",
            Self::ShardsLeaving => "ShardsLeaving",
            Self::Retrying => "Retrying",
            Self::Deleting => "Deleting",
            Self::InvalidSpec => "InvalidSpec",
            Self::RebalanceBlocked => "RebalanceBlocked",
            Self::RebalancePaused => "RebalancePaused",
            Self::RebalanceAborted => "RebalanceAborted",
            Self::NameTaken => "NameTaken",
            Self::RingInconsistent => "RingInconsistent",
            Self::ShardStalled => "ShardStalled",
        }
    }
}

/// How far a reconcile came.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) plan: Plan,
    /// The shards after the plan was applied.
    pub(crate) shards: BTreeMap<u16, OrderShard>,
    pub(crate) ring: RingState,
    /// Whether every key is where the specification wants it, as far as is known.
    pub(crate) balanced: bool,
    /// Whether the books told of ranges on their way.
    pub(crate) in_flight: bool,
    /// `spec.rebalance.paused`.
    pub(crate) paused: bool,
    /// What the mover tells.
    pub(crate) mover: Option<Report>,
}

/// Where the cluster stands. What somebody has to act on comes first.
pub(crate) fn standing(progress: &Progress) -> Standing {
    let first = stalled(progress).or_else(|| shards_underway(progress));
    let then = || moving(progress).or_else(|| ring_underway(progress));
    first.or_else(then).unwrap_or_else(|| {
        let shards = progress.shards.len();
        Standing::ready(
            ClusterReason::AllShardsReady,
            format!("{shards} of {shards} shards are ready"),
        )
    })
}

fn stalled(progress: &Progress) -> Option<Standing> {
    if let RingState::Broken { why, .. } = &progress.ring {
        return Some(Standing::stalled(ClusterReason::RingInconsistent, why));
    }
    let taken: Vec<String> = progress
        .plan
        .with_step(Step::Taken)
        .map(|ordinal| ordinal.to_string())
        .collect();
    if !taken.is_empty() {
        let why = format!(
            "the OrderShard with ordinal {} exists and is not this cluster's: delete it",
            first_few(&taken)
        );
        return Some(Standing::stalled(ClusterReason::NameTaken, why));
    }
    if !progress.plan.refusals.is_empty() {
        let all: Vec<String> = progress.plan.refusals.iter().map(ToString::to_string).collect();
        return Some(Standing::stalled(ClusterReason::InvalidSpec, all.join("; ")));
    }
    let stuck: Vec<String> = progress
        .shards
        .values()
        .filter_map(|shard| {
            let conditions = &shard.status.as_ref()?.conditions;
            let stalled = conditions.iter().find(|c| c.type_ == "Stalled" && c.status == "True")?;
            Some(format!("{}: {}", shard.name_any(), stalled.message))
        })
        .collect();
    (!stuck.is_empty()).then(|| Standing::stalled(ClusterReason::ShardStalled, first_few(&stuck)))
}

/// Shards that are being made, changed or waited for.
fn shards_underway(progress: &Progress) -> Option<Standing> {
    let total = progress.plan.shards.len();
    let unready: Vec<String> = progress
        .plan
        .shards
        .keys()
        .filter(|ordinal| !progress.shards.get(ordinal).is_some_and(shard_is_ready))
        .map(|ordinal| format!("shard {ordinal}"))
        .collect();
    let count = |step: Step| progress.plan.with_step(step).count();
    let (created, held, updated) = (count(Step::Create), count(Step::Hold), count(Step::Update));
    let ready = format!("{} of {total} shards are ready", total - unready.len());
    if created > 0 {
        return Some(Standing::reconciling(ClusterReason::CreatingShards, ready));
    }
    if held > 0 || updated > 0 {
        let why = format!("{ready}; {held} wait for their turn to be changed");
        return Some(Standing::reconciling(ClusterReason::RollingOut, why));
    }
    if !unready.is_empty() {
        let why = format!("{ready}; waiting for {}", first_few(&unready));
        return Some(Standing::reconciling(ClusterReason::ShardsNotReady, why));
    }
    None
}

/// Keys that move, or should; shards that go for it.
fn moving(progress: &Progress) -> Option<Standing> {
    let wanted = !progress.balanced || progress.in_flight;
    let mover = progress
        .mover
        .as_ref()
        .map(|report| &report.standing)
        .unwrap_or(&Mover::Idle);
    match mover {
        Mover::Moving => return Some(Standing::reconciling(ClusterReason::Rebalancing, course(progress))),
        Mover::Waiting { why, person: true } if wanted => {
            return Some(Standing::stalled(ClusterReason::RebalanceBlocked, why));
        }
        Mover::Waiting { why, person: false } if wanted => {
            return Some(Standing::reconciling(ClusterReason::RebalanceWaiting, why));
        }
        Mover::Waiting { why, .. } => {
            return Some(Standing::reconciling(ClusterReason::ShardsLeaving, why));
        }
        Mover::Aborted if !progress.balanced => {
            let why =
                "keys have to move, but the rebalance was aborted by request: change the specification, or put it back";
            return Some(Standing::stalled(ClusterReason::RebalanceAborted, why));
        }
        Mover::Paused | Mover::Idle if !progress.balanced && progress.paused => {
            let why = "keys have to move, and spec.rebalance.paused holds them: set it to false";
            return Some(Standing::stalled(ClusterReason::RebalancePaused, why));
        }
        Mover::Idle | Mover::Paused | Mover::Aborted if wanted => {
            return Some(Standing::reconciling(ClusterReason::Rebalancing, "keys have to move"));
        }
        Mover::Idle | Mover::Paused | Mover::Aborted => {}
    }
    let leaving = progress.plan.leaving().into_iter().map(|ordinal| ordinal.get());
    let going: Vec<String> = leaving
        .chain(progress.plan.departing.iter().copied())
        .map(|ordinal| format!("shard {ordinal}"))
        .collect();
    (!going.is_empty()).then(|| {
        let why = format!("waiting for {} to go", first_few(&going));
        Standing::reconciling(ClusterReason::ShardsLeaving, why)
    })
}

/// How far a rebalance is, in words.
fn course(progress: &Progress) -> String {
    let course = progress.mover.as_ref().and_then(|report| report.course.as_ref());
    let Some(course) = course else {
        return "keys move between shards".to_owned();
    };
    let doing = match course.phase {
        RebalancePhase::Planning => "the moves are written down",
        RebalancePhase::Copying => "rows are copied",
        RebalancePhase::HandingOver => "ranges change hands",
        RebalancePhase::CleaningUp => "rows left behind are deleted",
        RebalancePhase::Aborting => "what has not changed hands is undone",
        RebalancePhase::Paused => "no further move is begun",
        RebalancePhase::Blocked => "something stands in the way",
        RebalancePhase::Finished | RebalancePhase::Aborted => "the end is near",
    };
    format!(
        "{doing}: {} of {} ranges have their new owner",
        course.ranges_done, course.ranges_total
    )
}

/// The ring, once nothing else is to be said.
fn ring_underway(progress: &Progress) -> Option<Standing> {
    let waiting = |why: String| Some(Standing::reconciling(ClusterReason::WaitingForRing, why));
    match &progress.ring {
        RingState::Current(_) => None,
        RingState::Soon(..) => waiting("the ring is published in a moment".to_owned()),
        RingState::Unread { why, .. } => {
            let all: Vec<String> = why
                .iter()
                .map(|(ordinal, why)| format!("shard {ordinal}: {why}"))
                .collect();
            waiting(format!(
                "the ring cannot be compared with what the shards own: {}",
                first_few(&all)
            ))
        }
        RingState::Broken { why, .. } => waiting(why.clone()),
    }
}

/// At most three, so that a message stays readable at a thousand shards.
fn first_few(all: &[String]) -> String {
    let shown = all[..all.len().min(3)].join(", ");
    if all.len() > 3 {
        format!("{shown} and {} more", all.len() - 3)
    } else {
        shown
    }
}

/// The whole status.
pub(crate) fn status(resource: &OrderCluster, progress: &Progress, standing: &Standing) -> OrderClusterStatus {
    let before = resource.status.clone().unwrap_or_default();
    let statuses = || progress.shards.values().filter_map(|shard| shard.status.as_ref());
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    OrderClusterStatus {
        observed_generation: resource.metadata.generation,
        conditions: standing.conditions(&before.conditions, resource.metadata.generation),
        shards: count(progress.shards.len() + progress.plan.departing.len()),
        ready_shards: count(progress.shards.values().filter(|shard| shard_is_ready(shard)).count()),
        masters: count(statuses().filter(|status| status.master.is_some()).count()),
        replicas: statuses().map(|status| status.replicas).sum(),
        selector: Some(format!("{}={},{}", labels::CLUSTER, resource.name_any(), labels::ROLE)),
        ring_epoch: progress
            .ring
            .epoch()
            .and_then(|epoch| i64::try_from(epoch.get()).ok())
            .max(before.ring_epoch),
        durability: weakest(progress),
        rebalance: progress
            .mover
            .as_ref()
            .and_then(|report| report.course.clone())
            .or(before.rebalance),
        last_failovers: failovers(&progress.shards),
    }
}

/// Of the weakest shard; unknown while one does not say.
fn weakest(progress: &Progress) -> Option<DurabilityNow> {
    progress
        .shards
        .values()
        .map(|shard| {
            shard
                .status
                .as_ref()
                .and_then(|s| s.durability)
                .unwrap_or(DurabilityNow::Unknown)
        })
        .max()
}

fn failovers(shards: &BTreeMap<u16, OrderShard>) -> Vec<ShardFailover> {
    shards
        .values()
        .filter_map(|shard| {
            let last = shard.status.as_ref()?.last_failover.as_ref()?;
            Some(ShardFailover {
                shard: shard.name_any(),
                at: last.at.clone(),
                cause: last.cause.clone(),
                milliseconds_without_writes: last.milliseconds_without_writes,
            })
        })
        .collect()
}

/// The status of a cluster of which only the standing is known: the rest stays as it was.
fn only_standing(resource: &OrderCluster, standing: &Standing) -> OrderClusterStatus {
    let before = resource.status.clone().unwrap_or_default();
    OrderClusterStatus {
        observed_generation: resource.metadata.generation,
        conditions: standing.conditions(&before.conditions, resource.metadata.generation),
        ..before
    }
}

/// Writes the status after a reconcile that came to its end.
pub(crate) async fn report(operator: &Operator, resource: &OrderCluster, progress: &Progress) -> Result<(), Error> {
    let standing = standing(progress);
    write(operator, resource, status(resource, progress, &standing), &standing).await
}

/// Writes the status of a specification that makes no sense.
pub(crate) async fn refuse(operator: &Operator, resource: &OrderCluster, why: &InvalidCluster) -> Result<(), Error> {
    let standing = Standing::stalled(ClusterReason::InvalidSpec, why.to_string());
    write(operator, resource, only_standing(resource, &standing), &standing).await
}

/// Writes the status while the cluster is deleted.
pub(crate) async fn deleting(operator: &Operator, resource: &OrderCluster, message: String) -> Result<(), Error> {
    let standing = Standing::reconciling(ClusterReason::Deleting, message);
    write(operator, resource, only_standing(resource, &standing), &standing).await
}

/// Writes the status after a failure; that this fails too is no news.
pub(crate) async fn failed(operator: &Operator, resource: &OrderCluster, error: &Error) {
    let standing = Standing::reconciling(ClusterReason::Retrying, super::chain(error));
    if let Err(error) = write(operator, resource, only_standing(resource, &standing), &standing).await {
        tracing::debug!(error = telemetry::chain(&error), "could not write the status");
    }
}

/// Writes the status if it changed, and tells when the reason did.
async fn write(
    operator: &Operator,
    resource: &OrderCluster,
    status: OrderClusterStatus,
    standing: &Standing,
) -> Result<(), Error> {
    let api = operator
        .context
        .api::<OrderCluster>(&resource.namespace().unwrap_or_default());
    let before = resource.status.as_ref();
    conditions::write_status(&api, &resource.name_any(), before, &status).await?;
    let labels = metrics::Cluster::new(&resource.namespace().unwrap_or_default(), &resource.name_any());
    let stalled = &operator.context.metrics.cluster_stalled;
    stalled.get_or_create(&labels).set(standing.is_stalled().into());
    let reason_before = before
        .and_then(|status| status.conditions.first())
        .map(|ready| ready.reason.as_str());
    if reason_before != Some(standing.reason()) {
        if standing.is_stalled() {
            operator
                .context
                .warn(resource, standing.reason(), standing.message())
                .await;
        } else if standing.is_ready() {
            operator
                .context
                .tell(resource, standing.reason(), standing.message())
                .await;
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
