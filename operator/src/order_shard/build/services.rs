//! The shard's Services. Programs connect to pods directly; `-rw` and `-ro` are for people.

use std::collections::BTreeMap;

use crds::labels::{ROLE, ROLE_MASTER, ROLE_REPLICA};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::labels::{self, component, names};
use crate::order_shard::shard::Shard;

/// PostgreSQL's port.
pub(crate) const POSTGRES_PORT: i32 = 5432;
/// Port of Patroni's REST API.
pub(crate) const PATRONI_PORT: i32 = 8008;

pub(super) fn all(shard: &Shard) -> Vec<Service> {
    vec![
        headless(shard),
        by_role(shard, names::read_write(&shard.name), ROLE_MASTER),
        by_role(shard, names::read_only(&shard.name), ROLE_REPLICA),
    ]
}

/// Gives each pod a name in DNS, also before it is ready: a member is asked how it is when it is not well.
fn headless(shard: &Shard) -> Service {
    Service {
        metadata: labels::owned(shard, shard.name.clone(), component::SHARD),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            publish_not_ready_addresses: Some(true),
            ports: Some(vec![port("postgres", POSTGRES_PORT), port("patroni", PATRONI_PORT)]),
            selector: Some(labels::selector(shard)),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// Follows the label that Patroni moves.
fn by_role(shard: &Shard, name: String, role: &str) -> Service {
    let mut selector: BTreeMap<String, String> = labels::selector(shard);
    selector.insert(ROLE.to_owned(), role.to_owned());
    Service {
        metadata: labels::owned(shard, name, component::SHARD),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            ports: Some(vec![port("postgres", POSTGRES_PORT)]),
            selector: Some(selector),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

fn port(name: &str, number: i32) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: number,
        protocol: Some("TCP".to_owned()),
        target_port: Some(IntOrString::String(name.to_owned())),
        ..ServicePort::default()
    }
}
