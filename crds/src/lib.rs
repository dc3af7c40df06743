//! The Kubernetes resources of Ringwright: what a person asks for ([`OrderCluster`]) and what the operator makes of it
//! ([`OrderShard`]), with everything the API server can check without asking the operator.
//!
//! The YAML beside this crate (`crds/*.yaml`) is generated from these types by `cargo run -p crds --bin crdgen`; a test
//! fails when the two drift apart.

#![expect(
    unreachable_pub,
    reason = "derive(KubeSchema) copies each struct, visibility included, into a function body"
)]

mod cluster;
pub mod labels;
mod manifests;
mod postgres;
mod settings;
mod shard;

pub use cluster::{
    Backup, DeletionPolicy, OrderCluster, OrderClusterSpec, OrderClusterStatus, Rebalance, RebalanceError,
    RebalancePhase, RebalanceStatus, Rollout, ShardFailover, ShardOverride, Tls,
};
pub use manifests::{Manifest, manifests};
pub use postgres::{
    Durability, DurabilityNow, OWNED_PARAMETERS, Postgres, PostgresResources, Scheduling, Storage, is_owned_parameter,
};
pub use settings::{FREE_PARAMETERS, is_postgres_setting};
pub use shard::{Failover, OrderShard, OrderShardSpec, OrderShardStatus, Rebuild, ShardState};

/// The API group of every resource here.
pub const GROUP: &str = "ringwright.dev";
/// The most shards a cluster may ask for.
pub const MAX_SHARDS: i32 = 1000;
/// The most characters of a cluster's name.
///
/// The longest name derived from it that has a hard limit is a StatefulSet's: 52 characters, because Kubernetes puts
/// `<name>-<hash>` (11 characters more) into a label of 63. A shard's suffix takes up to 6 of them (`-65535`).
pub const MAX_CLUSTER_NAME: usize = 40;
