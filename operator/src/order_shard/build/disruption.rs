//! How many members a drain may take away at once.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::labels::{self, component};
use crate::order_shard::shard::Shard;

/// One at a time, and none while another is not ready: a drain of the master's node waits until the standby is there.
pub(super) fn budget(shard: &Shard) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: labels::owned(shard, shard.name.clone(), component::SHARD),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(labels::label_selector(labels::selector(shard))),
            // A member that does not work may always be moved to another node.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}
