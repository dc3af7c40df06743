//! Finalizers, set and taken off without disturbing those of others.

use std::fmt::Debug;

use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::json;

/// Puts `finalizer` on the object unless it is there. Says whether it wrote.
pub(crate) async fn ensure<K>(api: &Api<K>, object: &K, finalizer: &str) -> Result<bool, kube::Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    if object.finalizers().iter().any(|found| found == finalizer) {
        return Ok(false);
    }
    let mut finalizers = object.finalizers().to_vec();
    finalizers.push(finalizer.to_owned());
    set(api, object, &finalizers).await?;
    Ok(true)
}

/// Takes `finalizer` off the object if it is there: the last thing a deletion does.
pub(crate) async fn remove<K>(api: &Api<K>, object: &K, finalizer: &str) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let left: Vec<String> = object
        .finalizers()
        .iter()
        .filter(|found| *found != finalizer)
        .cloned()
        .collect();
    if left.len() == object.finalizers().len() {
        return Ok(());
    }
    match set(api, object, &left).await {
        // It went in the meantime.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        done => done,
    }
}

/// The resource version makes the patch fail with a conflict when anyone else changed the list meanwhile.
async fn set<K>(api: &Api<K>, object: &K, finalizers: &[String]) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let patch = json!({
        "metadata": {"resourceVersion": object.resource_version(), "finalizers": finalizers},
    });
    api.patch_metadata(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    Ok(())
}
