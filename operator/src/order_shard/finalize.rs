//! Deleting a shard: refused while it owns keys, orderly otherwise.

use std::collections::BTreeMap;

use crds::{DeletionPolicy, OrderCluster, OrderShard, ShardState, labels};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use ring::Ordinal;
use serde_json::json;
use telemetry::chain;

use super::build::{dcs, labels::names};
use super::database;
use super::observe::Observed;
use super::secrets::Credentials;
use super::status::Because;
use crate::conditions::Standing;
use crate::context::Context;
use crate::finalizer;

/// A step of the deletion that failed.
#[derive(Debug, thiserror::Error)]
#[error("could not {operation} while deleting shard {shard}")]
pub(crate) struct FinalizeError {
    operation: &'static str,
    shard: String,
    #[source]
    source: kube::Error,
}

/// How far a deletion is.
#[derive(Debug)]
pub(crate) enum Deletion {
    /// The shard goes on as before; the standing says why.
    Refused(Standing),
    /// Its members are stopping.
    Stopping,
    /// The finalizer is off.
    Done,
}

/// Makes sure that nobody deletes the resource past the operator.
pub(crate) async fn hold(context: &Context, resource: &OrderShard) -> Result<(), FinalizeError> {
    let api = context.api::<OrderShard>(&resource.namespace().unwrap_or_default());
    let held = finalizer::ensure(&api, resource, labels::SHARD_FINALIZER).await;
    held.map(drop).map_err(failed(resource, "set the finalizer"))
}

/// Works on a resource that is being deleted.
pub(crate) async fn finalize(
    context: &Context,
    resource: &OrderShard,
    observed: &Observed,
    credentials: Option<&Credentials>,
) -> Result<Deletion, FinalizeError> {
    if !resource.finalizers().iter().any(|f| f == labels::SHARD_FINALIZER) {
        return Ok(Deletion::Done);
    }
    let policy_of_cluster = policy_of_a_cluster_that_goes(context, resource).await?;
    if policy_of_cluster.is_none() && !was_let_go(resource) {
        if let Some(refusal) = refusal(resource, observed, credentials).await {
            return Ok(Deletion::Refused(refusal));
        }
        // Once its members stop there is nobody left to ask.
        let_go(context, resource).await?;
    }
    if !stopped(context, resource, observed).await? {
        return Ok(Deletion::Stopping);
    }
    let delete = match policy_of_cluster {
        Some(policy) => policy == DeletionPolicy::Delete,
        // A shard that has given everything away keeps nothing that a later one could take for its own.
        None => resource.spec.deletion_policy == DeletionPolicy::Delete || resource.spec.state == ShardState::Leaving,
    };
    if delete {
        delete_data(context, resource, &observed.claims).await?;
    }
    let api = context.api::<OrderShard>(&resource.namespace().unwrap_or_default());
    let removed = finalizer::remove(&api, resource, labels::SHARD_FINALIZER).await;
    removed.map_err(failed(resource, "take the finalizer off"))?;
    Ok(Deletion::Done)
}

/// With its cluster a shard goes whatever it owns: the cluster's deletion policy decides about the data, as it is when it
/// comes to that. The shard's own may be from before, or be that of a shard which was to leave and had to stay.
async fn policy_of_a_cluster_that_goes(
    context: &Context,
    resource: &OrderShard,
) -> Result<Option<DeletionPolicy>, FinalizeError> {
    let clusters = context.api::<OrderCluster>(&resource.namespace().unwrap_or_default());
    let cluster = clusters
        .get_opt(&resource.spec.cluster)
        .await
        .map_err(failed(resource, "read the cluster"))?;
    Ok(match cluster {
        None => Some(resource.spec.deletion_policy),
        Some(cluster) if cluster.metadata.deletion_timestamp.is_some() => Some(cluster.spec.deletion_policy),
        Some(_) => None,
    })
}

/// Why the shard must stay: it owns keys, or holds anything else that would be lost. What cannot be asked is taken to: a
/// wrong yes costs patience, a wrong no data.
async fn refusal(resource: &OrderShard, observed: &Observed, credentials: Option<&Credentials>) -> Option<Standing> {
    if !resource.status.as_ref().is_some_and(|s| s.initialised) {
        return None;
    }
    let ordinal = Ordinal(u16::try_from(resource.spec.ordinal).unwrap_or(u16::MAX));
    let why = match (observed.master(), credentials) {
        (Some(master), Some(credentials)) => match database::holdings(master, credentials, ordinal).await {
            Ok(None) => return None,
            Ok(Some(why)) => why,
            Err(error) => format!("it cannot be asked whether it owns keys: {}", chain(&error)),
        },
        _ => "it has no master to ask whether it owns keys".to_owned(),
    };
    Some(Standing::stalled(
        Because::OwnsRanges,
        format!(
            "the shard is marked for deletion, but {why}; it goes on serving. Delete the OrderCluster to delete its shards"
        ),
    ))
}

/// Whether it was found before that nothing keeps this resource from going.
fn was_let_go(resource: &OrderShard) -> bool {
    resource.annotations().contains_key(labels::HOLDS_NOTHING)
}

async fn let_go(context: &Context, resource: &OrderShard) -> Result<(), FinalizeError> {
    let api = context.api::<OrderShard>(&resource.namespace().unwrap_or_default());
    let annotations = BTreeMap::from([(labels::HOLDS_NOTHING, "true")]);
    let patch = json!({"metadata": {"annotations": annotations}});
    let patched = api
        .patch_metadata(&resource.name_any(), &PatchParams::default(), &Patch::Merge(patch))
        .await;
    ignore_missing(patched.map(drop)).map_err(failed(resource, "write down that it holds nothing"))
}

/// Whether no member runs any more; begins to stop them otherwise.
async fn stopped(context: &Context, resource: &OrderShard, observed: &Observed) -> Result<bool, FinalizeError> {
    let namespace = resource.namespace().unwrap_or_default();
    match &observed.stateful_set {
        Some(set) if set.metadata.deletion_timestamp.is_none() => {
            let sets = context.api::<StatefulSet>(&namespace);
            let deleted = sets.delete(&resource.name_any(), &DeleteParams::foreground()).await;
            ignore_missing(deleted.map(drop)).map_err(failed(resource, "stop the members"))?;
        }
        Some(_) => {}
        // A set that was taken away without its pods leaves them to nobody.
        None => {
            let pods = context.api::<Pod>(&namespace);
            for member in observed.members.iter().filter(|member| !member.terminating) {
                let deleted = pods.delete(&member.name, &member.deletion()).await;
                ignore_missing(deleted.map(drop)).map_err(failed(resource, "stop a member that has no StatefulSet"))?;
            }
        }
    }
    Ok(observed.stateful_set.is_none() && observed.members.is_empty())
}

/// Volumes and what Patroni knows of them.
async fn delete_data(
    context: &Context,
    resource: &OrderShard,
    claims: &[PersistentVolumeClaim],
) -> Result<(), FinalizeError> {
    let namespace = resource.namespace().unwrap_or_default();
    let shard = resource.name_any();
    let volumes = context.api::<PersistentVolumeClaim>(&namespace);
    for claim in claims {
        let deleted = volumes.delete(&claim.name_any(), &DeleteParams::default()).await;
        ignore_missing(deleted.map(drop)).map_err(failed(resource, "delete the volumes"))?;
    }
    for key in [dcs::CONFIG, dcs::SYNC] {
        let name = names::dcs(&shard, key);
        let deleted = context
            .api::<ConfigMap>(&namespace)
            .delete(&name, &DeleteParams::default())
            .await;
        ignore_missing(deleted.map(drop)).map_err(failed(resource, "delete Patroni's ConfigMaps"))?;
    }
    Ok(())
}

fn ignore_missing(result: Result<(), kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other,
    }
}

fn failed(resource: &OrderShard, operation: &'static str) -> impl FnOnce(kube::Error) -> FinalizeError {
    let shard = resource.name_any();
    move |source| FinalizeError {
        operation,
        shard,
        source,
    }
}

#[cfg(test)]
#[path = "finalize_tests.rs"]
mod tests;
