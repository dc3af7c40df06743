//! The objects of a shard, built purely: from a checked [`Shard`] to what the API server should hold.

mod access;
pub(crate) mod dcs;
mod disruption;
mod files;
pub(crate) mod labels;
mod network;
mod patroni;
pub(crate) mod pod;
mod revision;
pub(crate) mod services;
mod statefulset;

#[cfg(test)]
mod tests;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use serde::Serialize;

pub(crate) use files::{Files, SystemPasswords};
pub(crate) use patroni::LOCK_LIFE;
pub(crate) use revision::template_revision;

use super::shard::Shard;

/// Everything the operator applies for a shard, in the order in which it must be there.
#[derive(Debug, Serialize)]
pub(crate) struct Children {
    pub service_account: ServiceAccount,
    pub role: Role,
    pub role_binding: RoleBinding,
    /// Patroni's state: before any pod, which may not create it.
    pub dcs: Vec<ConfigMap>,
    pub configuration: ConfigMap,
    pub credentials: Secret,
    pub services: Vec<Service>,
    pub network_policy: NetworkPolicy,
    pub disruption_budget: PodDisruptionBudget,
    pub stateful_set: StatefulSet,
}

impl Children {
    /// Of all of them, and of whether some are held back: the same in one process means the same objects.
    pub(crate) fn fingerprint(&self, held: bool) -> u64 {
        let mut hasher = DefaultHasher::new();
        // What cannot be written as JSON is never applied either, and so never found to be as it should.
        (serde_json::to_string(self).ok(), held).hash(&mut hasher);
        hasher.finish()
    }
}

/// Builds all of them. `replicas`: see [`statefulset::stateful_set`]; `operator`: the namespace that the operator runs in.
pub(crate) fn children(shard: &Shard, files: &Files, replicas: u32, operator: &str) -> Children {
    Children {
        service_account: access::service_account(shard),
        role: access::role(shard, replicas),
        role_binding: access::role_binding(shard),
        dcs: dcs::config_maps(shard),
        configuration: files.config_map(shard),
        credentials: files.secret(shard),
        services: services::all(shard),
        network_policy: network::policy(shard, operator),
        disruption_budget: disruption::budget(shard),
        stateful_set: statefulset::stateful_set(shard, replicas),
    }
}
