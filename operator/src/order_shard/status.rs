//! From what was observed and done to the resource's status. Pure.

use crds::{DurabilityNow, Failover, OrderShard, OrderShardStatus, Rebuild};
use kube::ResourceExt;

use super::database::Prepared;
use super::durability::Commit;
use super::members::Member;
use super::observe::Observed;
use super::rollout::View;
use super::storage;
use crate::conditions::{Reason, Standing};

/// Reasons of an OrderShard's conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Because {
    /// Ready: master and replicas are there, the newest template and parameters run, the database is prepared.
    Settled,
    /// Stalled: the specification cannot be carried out; the message says what to change.
    InvalidSpec,
    /// Stalled: the volumes cannot get the size asked for.
    StorageRefused,
    /// Stalled: PostgreSQL does not know a parameter of the specification, or does not take its value; everything else goes
    /// on, and the message names the parameter.
    ParametersRefused,
    /// Stalled: the volume belongs to another shard or cluster, or a newer operator has migrated it.
    DatabaseRefused,
    /// Stalled: the shard is to be deleted but owns keys, which would be lost.
    OwnsRanges,
    /// Reconciling: the cluster's Secrets are being made.
    WaitingForCredentials,
    /// Reconciling: no member is master.
    WaitingForMaster,
    /// Reconciling: members are missing, starting, or being copied from the master.
    WaitingForReplicas,
    /// Reconciling: a member could not follow the master any more and is being copied anew.
    RebuildingReplica,
    /// Reconciling: all members are there, but commits do not wait for a standby yet.
    WaitingForSynchronousStandby,
    /// Reconciling: roles, schema and identity are being made.
    PreparingDatabase,
    /// Reconciling: the database has an older schema than this operator's, and keeps it until keys have moved.
    MigrationWaiting,
    /// Reconciling: pods are replaced or PostgreSQL is restarted, one after the other.
    RollingOut,
    /// Reconciling: changed files are on their way into the members.
    ReloadingConfiguration,
    /// Reconciling: volumes have not reached the size asked for.
    GrowingVolumes,
    /// Reconciling: the last attempt failed and is repeated.
    Failed,
    /// Reconciling: the resource is being deleted and its members stop.
    Deleting,
}

impl Reason for Because {
    fn as_str(self) -> &'static str {
        match self {
            Self::Settled => "Settled",
            Self::InvalidSpec => "InvalidSpec",
            Self::StorageRefused => "StorageRefused",
            Self::ParametersRefused => "ParametersRefused",
            Self::DatabaseRefused => "DatabaseRefused",
            Self::OwnsRanges => "OwnsRanges",
            Self::WaitingForCredentials => "WaitingForCredentials",
            Self::WaitingForMaster => "WaitingForMaster",
            Self::WaitingForReplicas => "WaitingForReplicas",
            Self::RebuildingReplica => "RebuildingReplica",
            Self::WaitingForSynchronousStandby => "WaitingForSynchronousStandby",
            Self::PreparingDatabase => "PreparingDatabase",
            Self::MigrationWaiting => "MigrationWaiting",
            Self::RollingOut => "RollingOut",
            Self::ReloadingConfiguration => "ReloadingConfiguration",
            Self::GrowingVolumes => "GrowingVolumes",
            Self::Failed => "Failed",
            Self::Deleting => "Deleting",
        }
    }
}

/// Whether a shard that is not ready serves all the same, with all its members: only its schema or its settings are on
/// their way.
pub(crate) fn serves(resource: &OrderShard) -> bool {
    let on_its_way = [
        Because::PreparingDatabase,
        Because::MigrationWaiting,
        Because::ReloadingConfiguration,
    ];
    let status = resource.status.as_ref().filter(|status| status.initialised);
    let ready = status.and_then(|status| status.conditions.iter().find(|condition| condition.type_ == "Ready"));
    ready.is_some_and(|ready| on_its_way.iter().any(|reason| reason.as_str() == ready.reason))
}

/// What a commit waits for now.
pub(crate) fn durability_now(commit: Commit, view: &View<'_>) -> DurabilityNow {
    let Some(master) = view.master else {
        return DurabilityNow::Unknown;
    };
    let named =
        view.consensus.sync_leader.as_deref() == Some(master.name.as_str()) && !view.consensus.sync_standbys.is_empty();
    // A strict master without a standby acknowledges nothing, so nothing is acknowledged asynchronously.
    if named || commit.strict() {
        DurabilityNow::Synchronous
    } else {
        DurabilityNow::Asynchronous
    }
}

/// How far the members are; none when they are all as asked for.
pub(crate) fn members_standing(view: &View<'_>, observed: &Observed, rebuilding: Option<&Rebuild>) -> Option<Standing> {
    let Some(master) = view.master else {
        let states = describe(&observed.members);
        return Some(Standing::reconciling(
            Because::WaitingForMaster,
            format!("no member is master ({states})"),
        ));
    };
    let lagging: Vec<&Member> = observed
        .members
        .iter()
        .filter(|m| m.name != master.name && !m.is_streaming())
        .collect();
    let present = observed.members.len();
    if present < view.instances as usize || !lagging.is_empty() {
        let missing = (view.instances as usize).saturating_sub(present);
        let mut parts: Vec<String> = lagging.iter().map(|m| state_of(m)).collect();
        if missing > 0 {
            parts.push(format!("{missing} not there yet"));
        }
        if let Some(rebuild) = rebuilding {
            let (member, why, states) = (&rebuild.member, &rebuild.why, parts.join(", "));
            return Some(Standing::reconciling(
                Because::RebuildingReplica,
                format!("{member} is copied anew from {}: {why} ({states})", master.name),
            ));
        }
        return Some(Standing::reconciling(
            Because::WaitingForReplicas,
            format!("waiting for replicas of {}: {}", master.name, parts.join(", ")),
        ));
    }
    let waits = view.commit != Commit::Asynchronous;
    if waits && !view.is_whole() && !view.consensus.switchover_pending {
        return Some(Standing::reconciling(
            Because::WaitingForSynchronousStandby,
            format!("{} has replicas, but none is named synchronous yet", master.name),
        ));
    }
    None
}

/// Work on pods, parameters and volumes that is not through; none when it is.
pub(crate) fn rollout_standing(view: &View<'_>, observed: &Observed) -> Option<Standing> {
    let mut parts = Vec::new();
    let count = observed.members.iter().filter(|m| view.is_outdated(m)).count();
    if count > 0 {
        parts.push(format!("{count} pods to replace"));
    }
    let pending = observed.members.iter().filter(|m| m.pending_restart()).count();
    if pending > 0 {
        parts.push(format!("{pending} members to restart for changed parameters"));
    }
    let surplus = observed.members.len().saturating_sub(view.instances as usize);
    if surplus > 0 {
        parts.push(format!("{surplus} members to remove"));
    }
    if view.consensus.switchover_pending {
        parts.push("a switchover under way".to_owned());
    }
    if view.newest_revision.is_none() {
        parts.push("the StatefulSet's controller has not seen the newest template".to_owned());
    }
    if !parts.is_empty() {
        return Some(Standing::reconciling(Because::RollingOut, parts.join(", ")));
    }
    let growing: Vec<String> = observed
        .claims
        .iter()
        .filter(|claim| storage::is_growing(claim))
        .map(ResourceExt::name_any)
        .collect();
    (!growing.is_empty()).then(|| {
        Standing::reconciling(
            Because::GrowingVolumes,
            format!("waiting for {} to grow", growing.join(", ")),
        )
    })
}

/// Everything is as asked for.
pub(crate) fn settled(view: &View<'_>) -> Standing {
    let master = view.master.map_or("nobody", |m| m.name.as_str());
    let replicas = view.instances.saturating_sub(1);
    Standing::ready(
        Because::Settled,
        format!("{master} is master, {replicas} replicas follow"),
    )
}

fn describe(members: &[Member]) -> String {
    if members.is_empty() {
        return "no pods yet".to_owned();
    }
    members.iter().map(state_of).collect::<Vec<_>>().join(", ")
}

fn state_of(member: &Member) -> String {
    let state = match &member.patroni {
        _ if member.terminating => "stopping".to_owned(),
        None => member.trouble.clone().unwrap_or_else(|| "starting".to_owned()),
        Some(_) if member.trouble.is_some() => member.trouble.clone().unwrap_or_default(),
        Some(patroni) if patroni.state == "running" && patroni.role == "replica" => match &patroni.replication_state {
            Some(replication) => replication.clone(),
            None => "running, not streaming".to_owned(),
        },
        Some(patroni) => patroni.state.clone(),
    };
    format!("{} {state}", member.name)
}

/// What the database step found, carried over while it is not repeated.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct DatabaseFacts {
    pub schema_version: Option<i64>,
    pub initialised: bool,
}

impl DatabaseFacts {
    /// After the step.
    pub(crate) fn of(prepared: Prepared) -> Self {
        Self {
            schema_version: Some(prepared.schema.0),
            initialised: true,
        }
    }

    /// Without a master the last thing known of the database is what the status says.
    pub(crate) fn remembered(resource: &OrderShard) -> Self {
        let status = resource.status.as_ref();
        Self {
            schema_version: status.and_then(|s| s.schema_version),
            initialised: status.is_some_and(|s| s.initialised),
        }
    }
}

/// What a look found beside the members.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub database: DatabaseFacts,
    /// The failover that has just ended.
    pub failover: Option<Failover>,
    /// The copy that is under way.
    pub rebuilding: Option<Rebuild>,
}

/// Puts the status together. Without a view (the specification is invalid) what was known stays.
pub(crate) fn assemble(
    resource: &OrderShard,
    observed: &Observed,
    view: Option<&View<'_>>,
    found: Found,
    standing: &Standing,
) -> OrderShardStatus {
    let before = resource.status.clone().unwrap_or_default();
    let generation = resource.metadata.generation;
    let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
    let master = observed.master();
    OrderShardStatus {
        observed_generation: generation,
        conditions: standing.conditions(&before.conditions, generation),
        master: master.map(|m| m.name.clone()),
        replicas: count(observed.members.iter().filter(|m| m.is_streaming()).count()),
        ready_instances: count(observed.members.iter().filter(|m| m.is_up()).count()),
        term: master.and_then(Member::timeline).or(before.term),
        durability: view.map_or(before.durability, |view| Some(durability_now(view.commit, view))),
        initialised: before.initialised || found.database.initialised,
        schema_version: found.database.schema_version.or(before.schema_version),
        system_identifier: observed
            .consensus
            .system_identifier
            .clone()
            .or(before.system_identifier),
        last_failover: found.failover.or(before.last_failover),
        rebuilding: found.rebuilding,
    }
}
