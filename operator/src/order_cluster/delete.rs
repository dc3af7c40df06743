//! The end of a cluster.
//!
//! Its shards go first, each in its own orderly way. Then, by the deletion policy, credentials and ring stay for a cluster
//! created again under the name, or go too. Volumes are the shards' part.

use std::time::Duration;

use crds::{DeletionPolicy, OrderCluster, OrderShard, labels};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
    runtime::controller::Action,
};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{Error, Operator, build, names, status};
use crate::{finalizer, metrics};

/// How often it is looked whether the shards are gone, should their watch have missed the end of one.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

/// Takes the next step of the deletion; the watch on the shards brings the one after.
pub(crate) async fn delete(operator: &Operator, resource: &OrderCluster) -> Result<Action, Error> {
    let (namespace, name) = (resource.namespace().unwrap_or_default(), resource.name_any());
    // A move that is cut off is finished by a cluster created again over the kept volumes.
    operator.movers.forget(&resource.uid().unwrap_or_default());
    let shards = shards_owned_by(operator, resource).await?;
    if !shards.is_empty() {
        let api = operator.context.api::<OrderShard>(&namespace);
        for shard in &shards {
            delete_shard(&api, shard, resource.spec.deletion_policy).await?;
        }
        let message = format!("waiting for {} shards to go", shards.len());
        status::deleting(operator, resource, message).await?;
        return Ok(Action::requeue(LOOK_AGAIN));
    }
    if resource.spec.deletion_policy == DeletionPolicy::Delete {
        let secrets = operator.context.api::<Secret>(&namespace);
        for secret in build::secret_names(&name) {
            delete_if_there(&secrets, &secret).await?;
        }
        delete_if_there(&operator.context.api::<ConfigMap>(&namespace), &names::ring(&name)).await?;
    }
    operator
        .context
        .metrics
        .forget_cluster(&metrics::Cluster::new(&namespace, &name));
    if let Some(uid) = resource.uid() {
        operator.memory.forget(&uid);
    }
    let api = operator.context.api::<OrderCluster>(&namespace);
    finalizer::remove(&api, resource, labels::CLUSTER_FINALIZER).await?;
    Ok(Action::await_change())
}

/// Found by owner: those of another cluster that once had the name are not touched. One whose owner was taken off by hand
/// is still known by its label.
async fn shards_owned_by(operator: &Operator, resource: &OrderCluster) -> Result<Vec<OrderShard>, Error> {
    let selected = kube::api::ListParams::default().fields(&format!("spec.cluster={}", resource.name_any()));
    let api = operator
        .context
        .api::<OrderShard>(&resource.namespace().unwrap_or_default());
    let uid = resource.uid().unwrap_or_default();
    let all = api.list(&selected).await?;
    let owned = |shard: &OrderShard| match shard.owner_references() {
        [] => shard
            .labels()
            .get(labels::MANAGED_BY)
            .is_some_and(|by| by == labels::MANAGED_BY_OPERATOR),
        owners => owners.iter().any(|owner| owner.uid == uid),
    };
    Ok(all.items.into_iter().filter(owned).collect())
}

/// Deletes a shard, after telling it what is to become of its volumes: the policy may have been changed a moment ago.
pub(crate) async fn delete_shard(
    api: &Api<OrderShard>,
    shard: &OrderShard,
    policy: DeletionPolicy,
) -> Result<(), Error> {
    if shard.spec.deletion_policy != policy {
        let patch = json!({"spec": {"deletionPolicy": policy}});
        api.patch(&shard.name_any(), &PatchParams::default(), &Patch::Merge(patch))
            .await?;
    }
    if shard.meta().deletion_timestamp.is_some() {
        return Ok(());
    }
    delete_if_there(api, &shard.name_any()).await
}

async fn delete_if_there<K>(api: &Api<K>, name: &str) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    match api.delete(name, &DeleteParams::default()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error.into()),
    }
}
