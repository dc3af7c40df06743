//! What this operator would make of any shard's pods, as a short text: it differs between two operators if, and only if, the
//! newer one makes something else of the same specification.

use std::sync::OnceLock;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{patroni, statefulset};
use crate::order_shard::durability::Commit;
use crate::order_shard::parameters::{self, Size};
use crate::order_shard::shard::{Shard, Storage};

const GIB: u64 = 1 << 30;

/// The revision of everything that a running pod takes over only by being replaced or restarted: the pod's template, and
/// the dynamic configuration with all parameters. Which image runs is no part of it: that is the specification's.
pub(crate) fn template_revision() -> &'static str {
    static REVISION: OnceLock<String> = OnceLock::new();
    REVISION.get_or_init(|| of(&reference()))
}

fn of(shard: &Shard) -> String {
    let template = statefulset::stateful_set(shard, shard.instances)
        .spec
        .map(|spec| spec.template);
    let content = json!([template, patroni::dynamic(shard)]).to_string();
    Sha256::digest(content)[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A shard that is always the same.
fn reference() -> Shard {
    let size = Size {
        memory: Some(4 * GIB),
        storage: 64 * GIB,
    };
    Shard {
        name: "reference-0".to_owned(),
        namespace: "reference".to_owned(),
        cluster: "reference".to_owned(),
        ordinal: 0,
        data_id: "reference".to_owned(),
        owner: OwnerReference::default(),
        instances: 2,
        commit: Commit::Synchronous { strict: false },
        image: "reference".to_owned(),
        image_pull_secrets: Vec::new(),
        asked: Default::default(),
        parameters: parameters::merged(size, &Default::default()),
        resources: ResourceRequirements::default(),
        storage: Storage {
            size: Quantity("64Gi".to_owned()),
            bytes: size.storage,
            class: None,
        },
        node_selector: Default::default(),
        tolerations: Vec::new(),
        topology_key: "kubernetes.io/hostname".to_owned(),
        keep_data: true,
        system_identifier: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_revision_stays_until_something_that_restarts_a_pod_changes() {
        assert_eq!(template_revision(), of(&reference()));
        let mut other = reference();
        other.parameters.insert("max_connections".to_owned(), "201".to_owned());
        assert_ne!(of(&other), template_revision());
        let mut other = reference();
        other.topology_key = "zone".to_owned();
        assert_ne!(of(&other), template_revision());
    }
}
