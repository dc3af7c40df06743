//! A shard whose specification has been checked: what planners and builders work on.

use std::collections::BTreeMap;

use crds::OrderShard;
use k8s_openapi::api::core::v1::{ResourceRequirements, Toleration};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};

use super::durability::Commit;
use super::parameters::{self, ParameterError, Size};
use super::quantity::{self, BadQuantity};

/// A checked shard.
#[derive(Debug, Clone)]
pub(crate) struct Shard {
    /// `<cluster>-<ordinal>`, also the name of its StatefulSet and Patroni's scope.
    pub name: String,
    pub namespace: String,
    pub cluster: String,
    pub ordinal: u16,
    /// Lasting id of the cluster's data: what its volumes are recognised by.
    pub data_id: String,
    /// Makes the garbage collector take the children away with the resource.
    pub owner: OwnerReference,
    pub instances: u32,
    pub commit: Commit,
    pub image: String,
    /// Names of Secrets.
    pub image_pull_secrets: Vec<String>,
    /// The PostgreSQL parameters of the specification.
    pub asked: BTreeMap<String, String>,
    /// Every PostgreSQL parameter of Patroni's dynamic configuration: owned, users' and derived.
    pub parameters: BTreeMap<String, String>,
    pub resources: ResourceRequirements,
    pub storage: Storage,
    pub node_selector: BTreeMap<String, String>,
    pub tolerations: Vec<Toleration>,
    pub topology_key: String,
    /// Whether volumes, and what Patroni knows of them, outlive the resource.
    pub keep_data: bool,
    /// PostgreSQL's system identifier, once seen.
    pub system_identifier: Option<String>,
}

/// The volume of each member.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Storage {
    /// As written in the specification.
    pub size: Quantity,
    pub bytes: u64,
    /// `None`: the cluster's default class.
    pub class: Option<String>,
}

/// Why a specification cannot be carried out; the reader has to change it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidShard {
    #[error("the resource has no {0}: it does not come from the API server")]
    Incomplete(&'static str),
    #[error("spec.{field} is {value}, which is not between {low} and {high}")]
    OutOfRange {
        field: &'static str,
        value: i32,
        low: i32,
        high: i32,
    },
    #[error(
        "spec.postgres.durability is required, which waits for a standby with every commit, but spec.postgres.instances is {0}: ask for 2 or more"
    )]
    RequiredNeedsStandby(i32),
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    #[error("spec.postgres.storage.size: {0}")]
    Storage(#[source] BadQuantity),
    #[error("spec.postgres.resources: memory: {0}")]
    Memory(#[source] BadQuantity),
}

/// Requests of a shard that asks for nothing: enough for a small one, and the scheduler knows that it is not free.
const DEFAULT_REQUESTS: [(&str, &str); 2] = [("cpu", "100m"), ("memory", "512Mi")];

impl Shard {
    /// Checks everything the schema cannot, and what it should have refused already.
    pub(crate) fn parse(resource: &OrderShard, default_image: &str) -> Result<Self, InvalidShard> {
        let spec = &resource.spec;
        let postgres = &spec.postgres;
        let instances = u32::try_from(in_range("postgres.instances", postgres.instances, 1, 5)?).unwrap_or(1);
        if postgres.durability == crds::Durability::Required && instances < 2 {
            return Err(InvalidShard::RequiredNeedsStandby(postgres.instances));
        }
        let resources = requirements(&postgres.resources);
        let storage = Storage {
            size: Quantity(postgres.storage.size.clone()),
            bytes: quantity::bytes(&postgres.storage.size).map_err(InvalidShard::Storage)?,
            class: postgres.storage.storage_class_name.clone(),
        };
        parameters::check(&postgres.parameters)?;
        let size = Size {
            memory: memory(&resources).map_err(InvalidShard::Memory)?,
            storage: storage.bytes,
        };
        let ordinal = in_range("ordinal", spec.ordinal, 0, i32::from(u16::MAX))?;
        Ok(Self {
            name: resource.name_any(),
            namespace: resource.namespace().ok_or(InvalidShard::Incomplete("namespace"))?,
            cluster: spec.cluster.clone(),
            ordinal: u16::try_from(ordinal).unwrap_or(u16::MAX),
            data_id: spec.data_id.clone(),
            owner: resource
                .controller_owner_ref(&())
                .ok_or(InvalidShard::Incomplete("uid"))?,
            instances,
            commit: Commit::of(postgres.durability, instances),
            image: postgres.image.clone().unwrap_or_else(|| default_image.to_owned()),
            image_pull_secrets: postgres.image_pull_secrets.clone(),
            asked: postgres.parameters.clone(),
            parameters: parameters::merged(size, &postgres.parameters),
            resources,
            storage,
            node_selector: postgres.scheduling.node_selector.clone(),
            tolerations: postgres.scheduling.tolerations.clone(),
            topology_key: postgres.scheduling.topology_key.clone(),
            keep_data: spec.deletion_policy == crds::DeletionPolicy::Retain,
            system_identifier: resource.status.as_ref().and_then(|s| s.system_identifier.clone()),
        })
    }

    /// Sizes what depends on the volume by the smallest there is, where that is less than asked for: it has not grown yet, or
    /// cannot. Log that may take a part of the volume would fill it otherwise.
    pub(crate) fn fit_in(&mut self, smallest: u64) {
        if smallest < self.storage.bytes {
            let size = Size {
                memory: memory(&self.resources).unwrap_or_default(),
                storage: smallest,
            };
            self.parameters = parameters::merged(size, &self.asked);
        }
    }

    /// Names of the members that the specification asks for, which are the names of their pods.
    pub(crate) fn members(&self) -> impl Iterator<Item = String> {
        self.first_members(self.instances)
    }

    /// Names of that many members: while some are on their way out, more than the specification asks for.
    pub(crate) fn first_members(&self, count: u32) -> impl Iterator<Item = String> {
        (0..count).map(|index| format!("{}-{index}", self.name))
    }
}

fn in_range(field: &'static str, value: i32, low: i32, high: i32) -> Result<i32, InvalidShard> {
    if (low..=high).contains(&value) {
        Ok(value)
    } else {
        Err(InvalidShard::OutOfRange {
            field,
            value,
            low,
            high,
        })
    }
}

fn requirements(wanted: &crds::PostgresResources) -> ResourceRequirements {
    let mut requests = wanted.requests.clone();
    if wanted.is_empty() {
        requests.extend(DEFAULT_REQUESTS.map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned()))));
    }
    let present = |map: BTreeMap<String, Quantity>| (!map.is_empty()).then_some(map);
    ResourceRequirements {
        requests: present(requests),
        limits: present(wanted.limits.clone()),
        claims: None,
    }
}

/// What the container can count on: its limit, or what was set aside for it.
fn memory(resources: &ResourceRequirements) -> Result<Option<u64>, BadQuantity> {
    let of = |map: &Option<BTreeMap<String, Quantity>>| map.as_ref().and_then(|m| m.get("memory")).cloned();
    of(&resources.limits)
        .or_else(|| of(&resources.requests))
        .map(|amount| quantity::bytes(&amount.0))
        .transpose()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A shard as the API server would hand it over: `shop-0` of cluster `shop`.
    pub(crate) fn resource(postgres: serde_json::Value) -> OrderShard {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "ringwright.dev/v1alpha1",
            "kind": "OrderShard",
            "metadata": {"name": "shop-0", "namespace": "market", "uid": "6c1d41a6-4df3-4c0f-9a53-3b9a1f8d2a10"},
            "spec": {"cluster": "shop", "ordinal": 0, "dataId": "d1", "postgres": postgres},
        }))
        .expect("a resource")
    }

    pub(crate) fn shard(postgres: serde_json::Value) -> Shard {
        Shard::parse(&resource(postgres), "registry.test/postgres:1").expect("a valid shard")
    }

    fn refusal(postgres: serde_json::Value) -> String {
        Shard::parse(&resource(postgres), "registry.test/postgres:1")
            .expect_err("a refusal")
            .to_string()
    }

    #[test]
    fn a_shard_that_asks_for_little_gets_sensible_values() {
        let shard = shard(serde_json::json!({"storage": {"size": "1Gi"}}));
        assert_eq!(shard.instances, 2);
        assert_eq!(shard.commit, Commit::Synchronous { strict: false });
        assert_eq!(shard.image, "registry.test/postgres:1");
        assert_eq!(shard.parameters["shared_buffers"], "128MB");
        assert!(shard.keep_data);
        assert_eq!(shard.members().collect::<Vec<_>>(), ["shop-0-0", "shop-0-1"]);
    }

    #[test]
    fn parameters_go_by_the_volume_that_there_is() {
        const GIB: u64 = 1 << 30;
        let of = |size: &str| shard(serde_json::json!({"storage": {"size": size}, "parameters": {"work_mem": "8MB"}}));
        let mut wants_more = of("100Gi");
        wants_more.fit_in(10 * GIB);
        assert_eq!(wants_more.parameters, of("10Gi").parameters);
        let mut has_more = of("10Gi");
        has_more.fit_in(12 * GIB);
        assert_eq!(has_more.parameters, of("10Gi").parameters);
        assert_ne!(of("10Gi").parameters, of("100Gi").parameters);
    }

    #[test]
    fn specifications_that_cannot_be_carried_out_say_what_to_change() {
        let storage = serde_json::json!({"size": "1Gi"});
        let cases = [
            (
                serde_json::json!({"storage": storage, "instances": 1, "durability": "required"}),
                "ask for 2 or more",
            ),
            (
                serde_json::json!({"storage": storage, "instances": 9}),
                "not between 1 and 5",
            ),
            (
                serde_json::json!({"storage": {"size": "big"}}),
                "spec.postgres.storage.size",
            ),
            (
                serde_json::json!({"storage": storage, "parameters": {"fsync": "off"}}),
                "parameters.fsync is owned by the operator",
            ),
            (
                serde_json::json!({"storage": storage, "resources": {"limits": {"memory": "lots"}}}),
                "resources: memory",
            ),
        ];
        for (postgres, expected) in cases {
            let text = refusal(postgres);
            assert!(text.contains(expected), "{text}");
        }
    }
}
