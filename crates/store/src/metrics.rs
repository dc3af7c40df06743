//! What the store counts, under one set of names for all programs: for whoever has to find out at night which way the
//! shards' trouble takes. Labels are bounded; shards and members are named in the logs.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::store::connect::Purpose;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RoleLabels {
    /// `master` or `replica`.
    role: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabels {
    /// `read` or `write`.
    pool: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndLabels {
    /// `settled`, or `open` when the caller was told that the outcome is unknown.
    end: &'static str,
}

/// The counters of one store. The clones of one count together.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    reads: Family<RoleLabels, Counter>,
    pub(crate) reads_by_master: Counter,
    pub(crate) reads_by_replica: Counter,
    /// A second member was asked because the first took long.
    pub(crate) hedges: Counter,
    pool_waits: Family<PoolLabels, Counter>,
    pool_refusals: Family<PoolLabels, Counter>,
    /// SR001 and its like: the range is at another shard, and the caller went there.
    pub(crate) redirects: Counter,
    /// SR002: the range was frozen, and the write was tried again.
    pub(crate) frozen_retries: Counter,
    unknown_commits: Family<EndLabels, Counter>,
    pub(crate) unknown_settled: Counter,
    pub(crate) unknown_open: Counter,
}

/// What the pools of one purpose count.
#[derive(Clone, Debug)]
pub(crate) struct PoolMetrics {
    /// Callers that had to wait for a connection.
    pub(crate) waits: Counter,
    /// Callers that were refused one: too many waited already, or they had waited too long.
    pub(crate) refusals: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let reads = Family::<RoleLabels, Counter>::default();
        let by = |role| reads.get_or_create_owned(&RoleLabels { role });
        let unknown_commits = Family::<EndLabels, Counter>::default();
        let ended = |end| unknown_commits.get_or_create_owned(&EndLabels { end });
        Self {
            reads_by_master: by("master"),
            reads_by_replica: by("replica"),
            hedges: Counter::default(),
            pool_waits: Family::default(),
            pool_refusals: Family::default(),
            redirects: Counter::default(),
            frozen_retries: Counter::default(),
            unknown_settled: ended("settled"),
            unknown_open: ended("open"),
            reads,
            unknown_commits,
        }
    }
}

impl Metrics {
    pub(crate) fn of_pool(&self, purpose: Purpose) -> PoolMetrics {
        let pool = match purpose {
            Purpose::Read => "read",
            Purpose::Write => "write",
        };
        PoolMetrics {
            waits: self.pool_waits.get_or_create_owned(&PoolLabels { pool }),
            refusals: self.pool_refusals.get_or_create_owned(&PoolLabels { pool }),
        }
    }

    /// Makes the counters visible in `registry` under the prefix `store`.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("store");
        registry.register("reads", "Reads by the role of who answered", self.reads.clone());
        registry.register(
            "hedged_reads",
            "Reads for which a second member was asked because the first took long",
            self.hedges.clone(),
        );
        registry.register(
            "pool_waits",
            "Times a caller waited for a connection to a member",
            self.pool_waits.clone(),
        );
        registry.register(
            "pool_refusals",
            "Times a caller got no connection to a member in time, or too many waited already",
            self.pool_refusals.clone(),
        );
        registry.register(
            "redirects",
            "Times a shard sent a caller to another, because the keys are there",
            self.redirects.clone(),
        );
        registry.register(
            "frozen_retries",
            "Times a write was tried again because its keys were frozen by a move",
            self.frozen_retries.clone(),
        );
        registry.register(
            "unknown_commits",
            "Writes with a commit that was not confirmed, by whether its outcome was found out",
            self.unknown_commits.clone(),
        );
    }
}
