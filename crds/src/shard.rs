//! `OrderShard`: one shard of a cluster, made by the operator only.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    cluster::DeletionPolicy,
    postgres::{DurabilityNow, Postgres},
};

/// One shard of an [`OrderCluster`](crate::OrderCluster): a Postgres master and its replicas.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "ringwright.dev",
    version = "v1alpha1",
    kind = "OrderShard",
    namespaced,
    status = "OrderShardStatus",
    derive = "PartialEq",
    shortname = "osh",
    category = "ringwright",
    category = "all",
    selectable = ".spec.cluster",
    doc = "One shard of an OrderCluster: a Postgres master and its replicas. The operator makes it; edit the OrderCluster instead.",
    printcolumn(name = "State", type_ = "string", json_path = ".spec.state", description = "Whether the shard takes keys or gives them up"),
    printcolumn(name = "Master", type_ = "string", json_path = ".status.master", description = "The member that accepts writes"),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".status.replicas", description = "Members that follow the master"),
    printcolumn(name = "Instances", type_ = "integer", json_path = ".spec.postgres.instances", description = "Members asked for, the master among them"),
    printcolumn(name = "Durability", type_ = "string", json_path = ".status.durability", description = "What a commit waits for now"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status", description = "Whether the shard is as the specification asks"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", description = "Why it is ready or not"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Term", type_ = "integer", json_path = ".status.term", description = "Postgres timeline: grows with each failover", priority = 1),
    printcolumn(name = "Schema", type_ = "integer", json_path = ".status.schemaVersion", description = "The newest migration the database has", priority = 1),
    printcolumn(name = "Weight", type_ = "integer", json_path = ".spec.weight", description = "Share of the keys in relation to the other shards", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", description = "The reason in words", priority = 1),
    validation = Rule::new("self.metadata.name == '%s-%d'.format([self.spec.cluster, self.spec.ordinal])")
        .message("an OrderShard is named <cluster>-<ordinal>")
)]
#[serde(rename_all = "camelCase")]
pub struct OrderShardSpec {
    /// The OrderCluster this shard belongs to, in the same namespace.
    #[schemars(length(min = 1, max = 40))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("a shard cannot change its cluster"))]
    pub cluster: String,
    /// The shard's number. It is never given to another shard, so that an old volume is never taken for a new shard's.
    #[schemars(range(min = 0, max = 65535))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("a shard cannot change its ordinal"))]
    pub ordinal: i32,
    /// Lasting id of the cluster's data. It is written into the database at first, and a volume with another one is
    /// refused; a cluster created again under its name over kept volumes has the id of before.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("a shard cannot change the data it belongs to"))]
    pub data_id: String,
    /// Its share of the keys in relation to the other shards.
    #[serde(default = "plain_weight")]
    #[schemars(range(min = 1, max = 100))]
    pub weight: i32,
    /// Whether the shard takes keys (active) or gives them up (leaving).
    #[serde(default)]
    pub state: ShardState,
    /// What becomes of the shard's volumes when its cluster is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// How its Postgres is run: the cluster's settings with the override of this shard.
    pub postgres: Postgres,
    /// Revision of the operator's pod template that the shard's pods are made from. A newer operator may bring another
    /// template; it gives it to as many shards at a time as the cluster's rollout.maxUnavailableShards allows, and until
    /// then a shard keeps the template and the Patroni configuration it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub template_revision: Option<String>,
}

fn plain_weight() -> i32 {
    1
}

/// What a shard is to do with keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ShardState {
    /// It takes its share.
    #[default]
    Active,
    /// It gives them all up, and goes when it owns none.
    Leaving,
}

/// What the operator last saw of the shard.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderShardStatus {
    /// The generation of the specification that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling and Stalled, by the rules of kstatus.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
    /// Name of the pod that is master; absent while there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master: Option<String>,
    /// Members that stream from the master.
    #[serde(default)]
    pub replicas: i32,
    /// Members whose pods are ready, the master among them.
    #[serde(default)]
    pub ready_instances: i32,
    /// Postgres timeline of the master: grows with each failover and switchover.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<i64>,
    /// What a commit waits for now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durability: Option<DurabilityNow>,
    /// Whether the database has been set up: schema migrated, roles made. From then on the shard can own keys.
    #[serde(default)]
    pub initialised: bool,
    /// The newest migration the database has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_version: Option<i64>,
    /// Postgres' system identifier: says that volumes belong together. Known, it forbids an empty volume to start a new
    /// database under the shard's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_identifier: Option<String>,
    /// The last failover, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failover: Option<Failover>,
    /// The member that is being copied anew because it could not follow the master any more; absent once it follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebuilding: Option<Rebuild>,
}

/// A member that is copied anew from the master.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rebuild {
    /// The member's pod.
    pub member: String,
    /// When the copy was last asked for.
    pub since: Time,
    /// Why the member could not follow.
    pub why: String,
}

/// A failover of a shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failover {
    /// When the new master took over.
    pub at: Time,
    /// What made it necessary.
    pub cause: String,
    /// The master before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The master after.
    pub to: String,
    /// Milliseconds without writes, on the operator's clock: from the last sign of life of the master before, which renews
    /// its lock every second, until the operator saw the new one. Absent when the operator did not see the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub milliseconds_without_writes: Option<i64>,
}
