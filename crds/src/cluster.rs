//! `OrderCluster`: what a person asks for.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::postgres::{DurabilityNow, Postgres};

/// A sharded order store: N Postgres shards and the ring that says which of them owns which keys.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "ringwright.dev",
    version = "v1alpha1",
    kind = "OrderCluster",
    namespaced,
    status = "OrderClusterStatus",
    derive = "PartialEq",
    shortname = "oc",
    category = "ringwright",
    category = "all",
    doc = "A sharded order store: N Postgres shards, each a master and its replicas, and the ring that says which of them owns which keys.",
    scale(
        spec_replicas_path = ".spec.shards",
        status_replicas_path = ".status.shards",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Shards", type_ = "integer", json_path = ".spec.shards", description = "Shards asked for"),
    printcolumn(name = "Ready shards", type_ = "integer", json_path = ".status.readyShards", description = "Shards that are as asked for"),
    printcolumn(name = "Masters", type_ = "integer", json_path = ".status.masters", description = "Shards with a master that accepts writes"),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".status.replicas", description = "Replicas that follow their master, over all shards"),
    printcolumn(name = "Durability", type_ = "string", json_path = ".status.durability", description = "What a commit waits for now, on the weakest shard"),
    printcolumn(name = "Ring", type_ = "integer", json_path = ".status.ringEpoch", description = "Epoch of the published ring"),
    printcolumn(name = "Rebalance", type_ = "string", json_path = ".status.rebalance.phase", description = "What the running rebalance does, or how the last one ended", priority = 1),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status", description = "Whether everything is as the specification asks"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", description = "Why it is ready or not"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", description = "The reason in words", priority = 1),
    validation = Rule::new("self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("the name begins with a letter and has at most 40 characters of a-z, 0-9 and -: every name derived from it must stay valid"),
    validation = Rule::new("!self.metadata.name.matches('-[0-9]+$')")
        .message("the name must not end in -<number>: it would be the name of a shard of another cluster")
)]
#[serde(rename_all = "camelCase")]
pub struct OrderClusterSpec {
    /// How many shards the keys are spread over, those that are drained among them. Changed, the keys that must move do
    /// so online. It is also the scale subresource: kubectl scale ordercluster/shop --replicas=5.
    #[schemars(range(min = 1, max = 1000))]
    pub shards: i32,
    /// What becomes of the data when this resource is deleted. 'Retain' keeps volumes, credentials and the ring, and a
    /// cluster created again under the same name adopts them. 'Delete' removes everything.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// How the Postgres of every shard is run.
    pub postgres: Postgres,
    /// How keys are moved when the number or the weights of the shards change. At any other time it has no effect.
    #[serde(default)]
    pub rebalance: Rebalance,
    /// How changes are rolled out over the shards, those of a newer operator among them.
    #[serde(default)]
    pub rollout: Rollout,
    /// What is different for single shards, by ordinal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["ordinal".to_owned()]))]
    pub shard_overrides: Vec<ShardOverride>,
    /// Reserved for encryption of connections; empty for now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Reserved for backups; empty for now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<Backup>,
}

/// What becomes of the data when the cluster is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// Volumes, credentials and the ring stay; a cluster created again under the name adopts them.
    #[default]
    Retain,
    /// Everything goes.
    Delete,
}

/// How keys are moved between shards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rebalance {
    /// How many pairs of shards exchange keys at the same time. Of one shard no more than 4.
    #[serde(default = "two_moves")]
    #[schemars(range(min = 1, max = 64))]
    pub max_parallel_moves: i32,
    /// For how long a hand-over may hold up writes to its batch of keys before it is given up, such as '100ms'. Once the
    /// source has given the batch away it is finished, however long that takes: milliseconds, unless a database fails.
    /// Clients wait for 8 s at most.
    #[serde(default = "hundred_milliseconds")]
    #[schemars(length(max = 16), regex(pattern = "^[0-9]+(ms|s)$"))]
    #[x_kube(
        validation = Rule::new("duration(self) >= duration('10ms') && duration(self) <= duration('5s')")
            .message("maxPause is between 10ms and 5s")
    )]
    pub max_pause: String,
    /// The most rows in a second that each pair of shards hands over, and that a shard deletes after it; 0 is without
    /// limit. Postgres' own first copy of a pair is not slowed down by it: how many of those run at once is
    /// maxParallelMoves.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub copy_rows_per_second: i64,
    /// Holds the rebalance: moves under way are finished or undone, none is begun.
    #[serde(default)]
    pub paused: bool,
}

impl Default for Rebalance {
    fn default() -> Self {
        Self {
            max_parallel_moves: two_moves(),
            max_pause: hundred_milliseconds(),
            copy_rows_per_second: 0,
            paused: false,
        }
    }
}

fn two_moves() -> i32 {
    2
}

fn hundred_milliseconds() -> String {
    "100ms".to_owned()
}

/// How changes are rolled out over the shards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// How many shards may be unready at once because of a change.
    #[serde(default = "one_shard")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_unavailable_shards: i32,
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            max_unavailable_shards: one_shard(),
        }
    }
}

fn one_shard() -> i32 {
    1
}

/// What is different for one shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShardOverride {
    /// The shard's number, the last part of its name.
    #[schemars(range(min = 0, max = 65535))]
    pub ordinal: i32,
    /// Its share of the keys in relation to the others, which have 1 unless they are named here too.
    #[serde(default = "plain_weight")]
    #[schemars(range(min = 1, max = 100))]
    pub weight: i32,
    /// Whether the shard is to give up its keys. It stays, empty, until the number of shards is lowered; then it is the
    /// first to go.
    #[serde(default)]
    pub drain: bool,
    /// Another database image for this shard, to try one out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
}

fn plain_weight() -> i32 {
    1
}

/// Reserved for encryption of connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tls {}

/// Reserved for backups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Backup {}

/// What the operator last saw of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderClusterStatus {
    /// The generation of the specification that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling and Stalled, by the rules of kstatus.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
    /// Shards that exist.
    #[serde(default)]
    pub shards: i32,
    /// Shards that are as the specification asks.
    #[serde(default)]
    pub ready_shards: i32,
    /// Shards with a master that accepts writes.
    #[serde(default)]
    pub masters: i32,
    /// Replicas that follow their master, over all shards.
    #[serde(default)]
    pub replicas: i32,
    /// Label selector of the database pods, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Epoch of the last published ring.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring_epoch: Option<i64>,
    /// What a commit waits for now, on the weakest shard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durability: Option<DurabilityNow>,
    /// The running rebalance, or the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebalance: Option<RebalanceStatus>,
    /// The last failover of each shard that had one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["shard".to_owned()]))]
    pub last_failovers: Vec<ShardFailover>,
}

/// Progress of a rebalance, or what the last one came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RebalanceStatus {
    /// What it is doing. Finished and Aborted stay until the next one begins.
    #[serde(default)]
    pub phase: RebalancePhase,
    /// Shards that owned keys when it began.
    #[serde(default)]
    pub shards_before: i32,
    /// Shards that are to own keys when it ends.
    #[serde(default)]
    pub shards_after: i32,
    /// Pairs of shards that are done with each other.
    #[serde(default)]
    pub moves_done: i64,
    /// Pairs of shards that exchange keys. What is planned anew after a move was undone counts again, here and in all that
    /// is of a plan.
    #[serde(default)]
    pub moves_total: i64,
    /// Ranges that have changed hands.
    #[serde(default)]
    pub ranges_done: i64,
    /// Ranges that were to change hands.
    #[serde(default)]
    pub ranges_total: i64,
    /// Rows that have changed hands.
    #[serde(default)]
    pub rows_done: i64,
    /// Rows that were to change hands, as estimated at the start.
    #[serde(default)]
    pub rows_total: i64,
    /// Rows that changed hands in a second, over the last minute; over all of it once it has ended. 0 during the first copy.
    #[serde(default)]
    pub rows_per_second: i64,
    /// When it will end if it goes on at this rate; absent while that cannot be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_end: Option<Time>,
    /// The longest pause of writes to a batch of keys so far, in milliseconds; of those that were given up too.
    #[serde(default)]
    pub longest_pause_milliseconds: i64,
    /// The median of the pauses in which a batch changed hands, in milliseconds, since the operator leads.
    #[serde(default)]
    pub median_pause_milliseconds: i64,
    /// Of a million keys, how many move by the plan.
    #[serde(default)]
    pub keys_moved_per_million: i64,
    /// Of a million keys, how many must move at least: K/n for one shard that joins or leaves.
    #[serde(default)]
    pub keys_ideal_per_million: i64,
    /// The last thing that went wrong; stays when it has been overcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<RebalanceError>,
    /// The generation of the specification whose rebalance was aborted by request: no other is begun until the
    /// specification changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aborted_generation: Option<i64>,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it ended; absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
}

/// What a rebalance is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RebalancePhase {
    /// The moves are planned and written down.
    #[default]
    Planning,
    /// Rows are copied; nothing has changed hands yet.
    Copying,
    /// Batch by batch, ranges change hands; other moves may still copy.
    HandingOver,
    /// Every range has its new owner; the rows left behind are deleted.
    CleaningUp,
    /// Held by spec.rebalance.paused.
    Paused,
    /// What has not changed hands yet is undone, as was asked.
    Aborting,
    /// It cannot go on for now; lastError says why and what is done about it.
    Blocked,
    /// It has ended as planned.
    Finished,
    /// It has ended by being undone.
    Aborted,
}

/// Something that went wrong in a rebalance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RebalanceError {
    /// When it was seen first.
    pub at: Time,
    /// What happened.
    pub message: String,
    /// What the operator does about it.
    pub action: String,
}

/// The last failover of one shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShardFailover {
    /// The shard's name.
    pub shard: String,
    /// When the new master took over.
    pub at: Time,
    /// What made it necessary.
    pub cause: String,
    /// Milliseconds without writes, on the operator's clock: from the last sign of life of the master before, which renews
    /// its lock every second, until the operator saw the new one. Absent when the operator did not see the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub milliseconds_without_writes: Option<i64>,
}
