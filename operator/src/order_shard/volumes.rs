//! Carrying out what [`super::storage`] decided.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt};
use serde_json::json;
use tracing::info;

use super::build::labels::names;
use super::observe::Observed;
use super::shard::Shard;
use super::storage::{self, Growth, StorageRefusal};
use crate::context::Context;

/// Volumes that could not be grown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    #[error(transparent)]
    Refused(#[from] StorageRefusal),
    #[error("could not read storage class {class} to learn whether volumes may grow")]
    ReadClass {
        class: String,
        #[source]
        source: kube::Error,
    },
    #[error("could not {operation} of shard {shard}")]
    Api {
        operation: &'static str,
        shard: String,
        #[source]
        source: kube::Error,
    },
}

impl VolumeError {
    /// Somebody has to change something before the volumes can be as asked; everything else can go on meanwhile.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::Refused(_) => true,
            // A quota, an admission policy, a claim that is not bound yet.
            Self::Api {
                source: kube::Error::Api(status),
                ..
            } => matches!(status.code, 403 | 422),
            Self::Api { .. } | Self::ReadClass { .. } => false,
        }
    }
}

/// Removes the volumes of members that have gone because the specification asks for fewer. Only when those that stay are
/// well: until then a volume may be the only other one with the data. Returns how many were removed.
pub(crate) async fn remove_surplus(
    context: &Context,
    shard: &Shard,
    observed: &Observed,
) -> Result<usize, VolumeError> {
    let kept: BTreeSet<String> = shard.members().map(|member| names::volume_claim(&member)).collect();
    let api: Api<PersistentVolumeClaim> = context.api(&shard.namespace);
    let mut removed = 0;
    for claim in observed.claims.iter().filter(|claim| !kept.contains(&claim.name_any())) {
        match api.delete(&claim.name_any(), &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(source) => {
                return Err(VolumeError::Api {
                    operation: "remove the volumes of members that have gone",
                    shard: shard.name.clone(),
                    source,
                });
            }
            Ok(_) => removed += 1,
        }
    }
    Ok(removed)
}

/// Makes the volumes as large as the specification asks for.
pub(crate) async fn fit(context: &Context, shard: &Shard, observed: &Observed) -> Result<(), VolumeError> {
    let growth = plan(context, shard, observed).await?;
    if growth.is_done() {
        return Ok(());
    }
    info!(shard = shard.name, ?growth, "growing volumes");
    grow(context, shard, observed, &growth).await
}

/// Compares the volumes with the specification.
async fn plan(context: &Context, shard: &Shard, observed: &Observed) -> Result<Growth, VolumeError> {
    let mut growing_classes = Vec::new();
    for class in classes_to_ask(shard, observed) {
        let api: Api<StorageClass> = Api::all(context.client.clone());
        let found = api.get_opt(&class).await.map_err(|source| VolumeError::ReadClass {
            class: class.clone(),
            source,
        })?;
        if found.and_then(|c| c.allow_volume_expansion).unwrap_or(false) {
            growing_classes.push(class);
        }
    }
    let can_grow = |class: &str| growing_classes.iter().any(|c| c == class);
    Ok(storage::growth(
        shard.storage.bytes,
        &observed.claims,
        observed.template_storage(),
        can_grow,
    )?)
}

/// Classes of the volumes that are smaller than asked for; none in the ordinary case, and then none is read.
fn classes_to_ask(shard: &Shard, observed: &Observed) -> Vec<String> {
    let mut classes: Vec<String> = observed
        .claims
        .iter()
        .filter(|claim| storage::requested(claim).is_some_and(|size| size < shard.storage.bytes))
        .filter_map(|claim| claim.spec.as_ref()?.storage_class_name.clone())
        .collect();
    classes.sort();
    classes.dedup();
    classes
}

/// Grows them. The StatefulSet is taken away without its pods, which the next apply of it adopts again.
async fn grow(context: &Context, shard: &Shard, observed: &Observed, growth: &Growth) -> Result<(), VolumeError> {
    let failed = |operation: &'static str| {
        move |source: kube::Error| VolumeError::Api {
            operation,
            shard: shard.name.clone(),
            source,
        }
    };
    let claims: Api<PersistentVolumeClaim> = context.api(&shard.namespace);
    for claim in &growth.claims {
        let patch = json!({"spec": {"resources": {"requests": {"storage": shard.storage.size}}}});
        claims
            .patch(claim, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .map_err(failed("patch the volume claims, to grow the volumes,"))?;
    }
    if let (true, Some(set)) = (growth.recreate_set, &observed.stateful_set) {
        let sets: Api<StatefulSet> = context.api(&shard.namespace);
        let parameters = DeleteParams {
            preconditions: Some(Preconditions {
                uid: set.uid(),
                resource_version: None,
            }),
            ..DeleteParams::orphan()
        };
        match sets.delete(&shard.name, &parameters).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            other => drop(other.map_err(failed(
                "take the StatefulSet away from around the pods, to grow the volumes,",
            ))?),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn answered(code: u16) -> VolumeError {
        let status = Status {
            code,
            ..Status::failure("exceeded quota", "Forbidden")
        };
        VolumeError::Api {
            operation: "patch the volume claims",
            shard: "shop-0".to_owned(),
            source: kube::Error::Api(Box::new(status)),
        }
    }

    #[test]
    fn what_the_api_server_refuses_is_told_and_what_it_fails_at_is_tried_again() {
        assert!(answered(403).is_refusal() && answered(422).is_refusal());
        assert!(!answered(500).is_refusal() && !answered(409).is_refusal());
    }
}
