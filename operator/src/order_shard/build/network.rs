//! Who may reach a shard over the network.

use std::collections::BTreeMap;

use crds::labels::{MANAGED_BY_OPERATOR, NAME, PART_OF, PART_OF_RINGWRIGHT};
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};

use super::labels::{self, component};
use super::services::{PATRONI_PORT, POSTGRES_PORT};
use crate::order_shard::shard::Shard;

/// Which the API server gives each namespace.
const NAMESPACE: &str = "kubernetes.io/metadata.name";

/// PostgreSQL: every part of Ringwright in this namespace (programs, and other shards for moves) and the operator, from the
/// namespace it runs in alone: a label any pod may give itself. Patroni's REST API: the shard's own members and the
/// operator. Probes come from the node, which no
/// policy shuts out. What the pods themselves reach is left open: the API server has no label to name it by.
pub(super) fn policy(shard: &Shard, operator: &str) -> NetworkPolicy {
    let here = |pairs: BTreeMap<String, String>| NetworkPolicyPeer {
        pod_selector: Some(labels::label_selector(pairs)),
        ..NetworkPolicyPeer::default()
    };
    let pair = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
    let operator = || NetworkPolicyPeer {
        namespace_selector: Some(labels::label_selector(pair(NAMESPACE, operator))),
        ..here(pair(NAME, MANAGED_BY_OPERATOR))
    };
    let rule = |port: i32, from: Vec<NetworkPolicyPeer>| NetworkPolicyIngressRule {
        from: Some(from),
        ports: Some(vec![NetworkPolicyPort {
            port: Some(k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int(port)),
            protocol: Some("TCP".to_owned()),
            ..NetworkPolicyPort::default()
        }]),
    };
    NetworkPolicy {
        metadata: labels::owned(shard, shard.name.clone(), component::SHARD),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(labels::label_selector(labels::selector(shard))),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(vec![
                rule(POSTGRES_PORT, vec![here(pair(PART_OF, PART_OF_RINGWRIGHT)), operator()]),
                rule(PATRONI_PORT, vec![here(labels::selector(shard)), operator()]),
            ]),
            ..NetworkPolicySpec::default()
        }),
    }
}
