//! What the operator counts.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::shard_metrics::ShardMetrics;

/// Labels of [`Metrics::reconciles`].
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct Reconcile {
    kind: &'static str,
    outcome: &'static str,
}

/// Labels of [`Metrics::api_writes`].
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct ApiWrite {
    /// Plural name of the resource as in the URL, with the subresource: `orderclusters/status`.
    pub(crate) kind: String,
    pub(crate) verb: &'static str,
}

/// Labels of [`Metrics::reconcile_seconds`].
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct Kind {
    kind: &'static str,
}

/// Labels of what belongs to one cluster.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct Cluster {
    namespace: String,
    cluster: String,
}

impl Cluster {
    pub(crate) fn new(namespace: &str, cluster: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            cluster: cluster.to_owned(),
        }
    }
}

/// The operator's own metrics; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) reconciles: Family<Reconcile, Counter>,
    pub(crate) reconcile_seconds: Family<Kind, Histogram>,
    pub(crate) api_writes: Family<ApiWrite, Counter>,
    pub(crate) leader: Gauge,
    pub(crate) shards_wanted: Family<Cluster, Gauge>,
    pub(crate) shards_ready: Family<Cluster, Gauge>,
    pub(crate) ring_epoch: Family<Cluster, Gauge>,
    pub(crate) cluster_stalled: Family<Cluster, Gauge>,
    pub(crate) shards: ShardMetrics,
    pub(crate) rebalance: Rebalance,
}

/// What is counted of moves of keys.
#[derive(Clone, Debug)]
pub(crate) struct Rebalance {
    pub(crate) ranges_moved: Family<Cluster, Counter>,
    pub(crate) rows_moved: Family<Cluster, Counter>,
    pub(crate) pause_seconds: Family<Cluster, Histogram>,
    pub(crate) copies: Family<Cluster, Gauge>,
    pub(crate) freezes_expired: Family<Cluster, Counter>,
    pub(crate) moves_aborted: Family<Cluster, Counter>,
}

impl Rebalance {
    fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            ranges_moved: Family::default(),
            rows_moved: Family::default(),
            // From a batch of a few rows to the longest pause that may be asked for.
            pause_seconds: Family::new_with_constructor(|| {
                Histogram::new([0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 10.0])
            }),
            copies: Family::default(),
            freezes_expired: Family::default(),
            moves_aborted: Family::default(),
        };
        let registry = registry.sub_registry_with_prefix("rebalance");
        registry.register(
            "ranges_moved",
            "Ranges that have changed hands",
            metrics.ranges_moved.clone(),
        );
        registry.register("rows_moved", "Rows that have changed hands", metrics.rows_moved.clone());
        registry.register(
            "pause_seconds",
            "For how long nobody could write to a batch of keys while it changed hands, or was to and ran into its deadline",
            metrics.pause_seconds.clone(),
        );
        registry.register(
            "copies",
            "Moves whose rows are being copied or handed over",
            metrics.copies.clone(),
        );
        registry.register(
            "freezes_expired",
            "Freezes of a batch that ran into their deadline and were undone",
            metrics.freezes_expired.clone(),
        );
        registry.register(
            "moves_aborted",
            "Moves that were undone though nobody asked for it",
            metrics.moves_aborted.clone(),
        );
        metrics
    }

    fn forget(&self, cluster: &Cluster) {
        self.ranges_moved.remove(cluster);
        self.rows_moved.remove(cluster);
        self.pause_seconds.remove(cluster);
        self.copies.remove(cluster);
        self.freezes_expired.remove(cluster);
        self.moves_aborted.remove(cluster);
    }
}

impl Metrics {
    /// Registers all under the prefix `operator`.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("operator");
        let metrics = Self {
            shards: ShardMetrics::register(registry),
            rebalance: Rebalance::register(registry),
            reconciles: Family::default(),
            // From a reconcile that finds nothing to do to one that waits for a database.
            reconcile_seconds: Family::new_with_constructor(|| {
                Histogram::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0])
            }),
            api_writes: Family::default(),
            leader: Gauge::default(),
            shards_wanted: Family::default(),
            shards_ready: Family::default(),
            ring_epoch: Family::default(),
            cluster_stalled: Family::default(),
        };
        registry.register(
            "reconciles",
            "Reconciles by kind and outcome",
            metrics.reconciles.clone(),
        );
        registry.register(
            "reconcile_seconds",
            "How long reconciles take",
            metrics.reconcile_seconds.clone(),
        );
        registry.register(
            "api_writes",
            "Requests that write to the API server, by resource and verb; the Lease is not counted",
            metrics.api_writes.clone(),
        );
        registry.register("leader", "1 while this process holds the Lease", metrics.leader.clone());
        registry.register(
            "shards_wanted",
            "Shards a cluster asks for",
            metrics.shards_wanted.clone(),
        );
        registry.register(
            "shards_ready",
            "Shards of a cluster that are as asked for, without those that leave",
            metrics.shards_ready.clone(),
        );
        registry.register(
            "ring_epoch",
            "Epoch of a cluster's published ring",
            metrics.ring_epoch.clone(),
        );
        registry.register(
            "cluster_stalled",
            "1 while a cluster goes on only when somebody has acted",
            metrics.cluster_stalled.clone(),
        );
        metrics
    }

    /// Counts one reconcile of `kind`.
    pub(crate) fn reconciled(&self, kind: &'static str, succeeded: bool, took: Duration) {
        let outcome = if succeeded { "ok" } else { "error" };
        self.reconciles.get_or_create(&Reconcile { kind, outcome }).inc();
        self.reconcile_seconds
            .get_or_create(&Kind { kind })
            .observe(took.as_secs_f64());
    }

    /// Forgets a cluster that is gone.
    pub(crate) fn forget_cluster(&self, cluster: &Cluster) {
        self.shards_wanted.remove(cluster);
        self.shards_ready.remove(cluster);
        self.ring_epoch.remove(cluster);
        self.cluster_stalled.remove(cluster);
        self.rebalance.forget(cluster);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    fn read(path: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// The metrics a text names.
    fn named_in(text: &str) -> BTreeSet<String> {
        let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        text.split(|c| !is_part(c))
            .filter(|word| {
                word.starts_with("ringwright_operator_")
                    || word.starts_with("ringwright_order_api_")
                    || word.starts_with("ringwright_notifier_")
            })
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn every_metric_that_the_alerts_and_the_handbook_name_is_there() {
        let own = read("operator/src/metrics.rs") + &read("operator/src/shard_metrics.rs");
        let programs = [
            ("ringwright_operator_", own),
            ("ringwright_order_api_", read("order-api/src/metrics.rs")),
            ("ringwright_notifier_", read("notifier/src/metrics.rs")),
        ];
        for file in ["charts/ringwright/alerts.yaml", "docs/operations.md"] {
            let named = named_in(&read(file));
            assert!(named.len() > 3, "{file} names {named:?}");
            for name in named {
                let found = programs.iter().any(|(prefix, source)| {
                    // A counter's name, and one with a unit, is registered without its last word; that of a group without
                    // its first.
                    let rest = name.strip_prefix(prefix);
                    rest.is_some_and(|rest| {
                        let rest = rest.strip_prefix("rebalance_").unwrap_or(rest);
                        ["", "_total", "_bytes", "_seconds"]
                            .iter()
                            .filter_map(|last| rest.strip_suffix(last))
                            .any(|name| source.contains(&format!("\"{name}\"")))
                    })
                });
                assert!(found, "{file} names {name}, which no program registers");
            }
        }
    }

    #[test]
    fn the_handbook_says_what_to_do_about_every_alert() {
        let words = |text: &str| -> BTreeSet<String> {
            text.split(|c: char| !c.is_ascii_alphanumeric())
                .filter(|word| {
                    let rest = word.strip_prefix("Ringwright").unwrap_or_default();
                    rest.starts_with(|c: char| c.is_ascii_uppercase())
                })
                .map(str::to_owned)
                .collect()
        };
        let alerts = words(&read("charts/ringwright/alerts.yaml"));
        assert!(!alerts.is_empty());
        assert_eq!(words(&read("docs/operations.md")), alerts);
    }
}
