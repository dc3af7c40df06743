//! What a database pod may do at the API server: read its shard's state, and write the named objects of it.

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};

use super::dcs;
use super::labels::{self, component, names};
use crate::order_shard::shard::Shard;

pub(super) fn service_account(shard: &Shard) -> ServiceAccount {
    ServiceAccount {
        metadata: labels::owned(shard, shard.name.clone(), component::SHARD),
        // The pod asks for its token itself; whoever else runs under this account gets none by accident.
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

/// Patroni lists and watches ConfigMaps and pods by label, which RBAC cannot narrow to names; everything else names
/// its objects. Patroni patches and never updates, and needs no `create` because the operator made the objects.
/// `replicas`: members that run; those on their way out still tell their state.
pub(super) fn role(shard: &Shard, replicas: u32) -> Role {
    let rule = |resource: &str, verbs: &[&str], names: Option<Vec<String>>| PolicyRule {
        api_groups: Some(vec![String::new()]),
        resources: Some(vec![resource.to_owned()]),
        resource_names: names,
        verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
        ..PolicyRule::default()
    };
    let state = dcs::ALL.iter().map(|key| names::dcs(&shard.name, key)).collect();
    Role {
        metadata: labels::owned(shard, shard.name.clone(), component::SHARD),
        rules: Some(vec![
            rule("configmaps", &["list", "watch"], None),
            rule("configmaps", &["get", "patch"], Some(state)),
            rule("pods", &["list", "watch"], None),
            rule("pods", &["patch"], Some(shard.first_members(replicas).collect())),
        ]),
    }
}

pub(super) fn role_binding(shard: &Shard) -> RoleBinding {
    RoleBinding {
        metadata: labels::owned(shard, shard.name.clone(), component::SHARD),
        role_ref: RoleRef {
            api_group: "rbac.authorization.k8s.io".to_owned(),
            kind: "Role".to_owned(),
            name: shard.name.clone(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".to_owned(),
            name: shard.name.clone(),
            namespace: Some(shard.namespace.clone()),
            api_group: None,
        }]),
    }
}
