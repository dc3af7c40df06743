//! Growing the volumes. Pure: it sees claims and says what to do.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;

use super::quantity;

/// What the volumes need.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Growth {
    /// Claims to be asked for the new size.
    pub claims: Vec<String>,
    /// The StatefulSet's template, which cannot be changed, names another size: make the set anew around its pods.
    pub recreate_set: bool,
}

impl Growth {
    /// There is nothing to do.
    pub(crate) fn is_done(&self) -> bool {
        self.claims.is_empty() && !self.recreate_set
    }
}

/// Why the volumes cannot be made as asked.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum StorageRefusal {
    #[error(
        "spec.postgres.storage.size is {wanted} bytes but volume {claim} has {current}: volumes never shrink; ask for at least its size"
    )]
    Shrinks { claim: String, wanted: u64, current: u64 },
    #[error(
        "volume {claim} cannot grow: its storage class {class} does not allow expansion; set allowVolumeExpansion on the class"
    )]
    ClassCannotGrow { claim: String, class: String },
}

/// Compares `claims` and the set's template with the wanted size. `can_grow` tells whether a storage class allows it.
pub(crate) fn growth(
    wanted: u64,
    claims: &[PersistentVolumeClaim],
    template: Option<u64>,
    can_grow: impl Fn(&str) -> bool,
) -> Result<Growth, StorageRefusal> {
    let mut growth = Growth {
        claims: Vec::new(),
        recreate_set: template.is_some_and(|size| size != wanted),
    };
    for claim in claims {
        let Some(requested) = requested(claim) else { continue };
        if requested > wanted {
            return Err(StorageRefusal::Shrinks {
                claim: claim.name_any(),
                wanted,
                current: requested,
            });
        }
        if requested < wanted {
            let class = claim
                .spec
                .as_ref()
                .and_then(|s| s.storage_class_name.clone())
                .unwrap_or_default();
            if !can_grow(&class) {
                return Err(StorageRefusal::ClassCannotGrow {
                    claim: claim.name_any(),
                    class,
                });
            }
            growth.claims.push(claim.name_any());
        }
    }
    Ok(growth)
}

/// Bytes a claim asks for.
pub(crate) fn requested(claim: &PersistentVolumeClaim) -> Option<u64> {
    let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    quantity::bytes(&requests.get("storage")?.0).ok()
}

/// A claim whose volume has not reached the size it asks for.
pub(crate) fn is_growing(claim: &PersistentVolumeClaim) -> bool {
    matches!((requested(claim), capacity(claim)), (Some(wanted), Some(has)) if has < wanted)
}

/// Bytes of the smallest volume that there is.
pub(crate) fn smallest(claims: &[PersistentVolumeClaim]) -> Option<u64> {
    claims.iter().filter_map(capacity).min()
}

fn capacity(claim: &PersistentVolumeClaim) -> Option<u64> {
    let capacity = claim.status.as_ref()?.capacity.as_ref()?;
    quantity::bytes(&capacity.get("storage")?.0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn claim(name: &str, size: &str) -> PersistentVolumeClaim {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": name},
            "spec": {"storageClassName": "fast", "resources": {"requests": {"storage": size}}},
        }))
        .expect("a claim")
    }

    #[test]
    fn claims_and_the_set_follow_a_larger_size() {
        let claims = [claim("data-a-0", "1Gi"), claim("data-a-1", "2Gi")];
        let plan = growth(2 * GIB, &claims, Some(GIB), |_| true).expect("allowed");
        assert_eq!(
            plan,
            Growth {
                claims: vec!["data-a-0".to_owned()],
                recreate_set: true
            }
        );
        let done = growth(2 * GIB, &claims[1..], Some(2 * GIB), |_| true).expect("allowed");
        assert!(done.is_done());
    }

    #[test]
    fn shrinking_and_classes_that_cannot_grow_are_refused() {
        let claims = [claim("data-a-0", "2Gi")];
        assert!(matches!(
            growth(GIB, &claims, Some(2 * GIB), |_| true),
            Err(StorageRefusal::Shrinks { .. })
        ));
        assert!(matches!(
            growth(3 * GIB, &claims, Some(2 * GIB), |class| class != "fast"),
            Err(StorageRefusal::ClassCannotGrow { .. })
        ));
    }
}
