//! Names of labels, annotations and finalizers that several programs agree on.

/// The cluster an object belongs to: `ringwright.dev/cluster=shop`.
pub const CLUSTER: &str = "ringwright.dev/cluster";
/// The shard an object belongs to: `ringwright.dev/shard=shop-0`.
pub const SHARD: &str = "ringwright.dev/shard";
/// The moving role of a database pod, set by Patroni: [`ROLE_MASTER`] or [`ROLE_REPLICA`].
pub const ROLE: &str = "ringwright.dev/role";
/// Value of [`ROLE`] on the member that accepts writes.
pub const ROLE_MASTER: &str = "master";
/// Value of [`ROLE`] on the members that follow it.
pub const ROLE_REPLICA: &str = "replica";
/// Who manages an object; [`MANAGED_BY_OPERATOR`] on everything the operator made.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY`].
pub const MANAGED_BY_OPERATOR: &str = "ringwright-operator";
/// The system an object is part of; always [`PART_OF_RINGWRIGHT`].
pub const PART_OF: &str = "app.kubernetes.io/part-of";
/// Value of [`PART_OF`].
pub const PART_OF_RINGWRIGHT: &str = "ringwright";
/// The name of the software: `postgres`, `ring`.
pub const NAME: &str = "app.kubernetes.io/name";
/// The instance of it: the cluster's or the shard's name.
pub const INSTANCE: &str = "app.kubernetes.io/instance";
/// The part it plays: `shard`, `credentials`, `ring`.
pub const COMPONENT: &str = "app.kubernetes.io/component";

/// Finalizer on an OrderCluster: shards, credentials and ring are dealt with before it goes.
pub const CLUSTER_FINALIZER: &str = "ringwright.dev/cluster";
/// Finalizer on an OrderShard: volumes and ranges are dealt with before it goes.
pub const SHARD_FINALIZER: &str = "ringwright.dev/shard";
/// Annotation: hash of what the operator last applied, so that an unchanged object is not written again.
pub const APPLIED_HASH: &str = "ringwright.dev/applied-hash";
/// Annotation on the cluster's system Secret: the highest ring epoch ever handed out, so that a ring published after the
/// ConfigMap and the cluster were both lost is still newer than any a program may hold.
pub const RING_EPOCH: &str = "ringwright.dev/ring-epoch";
/// Annotation on the cluster's system Secret and ring: lasting id of the cluster's data (see
/// [`OrderShardSpec::data_id`](crate::OrderShardSpec::data_id)).
pub const DATA_ID: &str = "ringwright.dev/data-id";
/// Annotation on the cluster's system Secret: the ordinals that share the keys (`0-2,5`), written before the first key
/// is given to one of them. From then on a missing shard is one that was lost, not one that was never there.
pub const ROSTER: &str = "ringwright.dev/shards";
/// Annotation on an OrderCluster, set by a person (`kubectl ringwright rebalance abort`): undo what the running rebalance has not
/// handed over yet. The operator takes it away when that is done.
pub const ABORT_REBALANCE: &str = "ringwright.dev/abort-rebalance";
/// Annotation on the cluster's system Secret and ring: the highest ordinal a shard of the cluster ever had. The next new
/// shard gets the one above it, so that no ordinal is used twice.
pub const HIGHEST_ORDINAL: &str = "ringwright.dev/highest-ordinal";
/// Annotation on an OrderShard that is being deleted: its database was asked and holds nothing, so its members may stop.
pub const HOLDS_NOTHING: &str = "ringwright.dev/holds-nothing";
