//! What the service counts. Labels are bounded: route templates, methods, statuses, slugs, shards; never an id.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// One route and how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// The route's template, such as `/v1/users/{id}`.
    pub route: String,
    /// The method.
    pub method: String,
    /// The status.
    pub status: u16,
}

/// One route.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RouteLabels {
    /// The route's template.
    pub route: String,
    /// The method.
    pub method: String,
}

/// A kind of problem.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ProblemLabels {
    /// The last part of its type.
    pub problem: &'static str,
}

/// A shard.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ShardLabels {
    /// Its ordinal.
    pub shard: u32,
}

/// How an event went to the broker.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EventLabels {
    /// `at_once` or `poller`.
    pub way: &'static str,
    /// `published`, or why it was not.
    pub outcome: &'static str,
}

/// What a janitor did.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct JanitorLabels {
    /// `claim_held`, `claim_released`, `key_swept` or `sending_settled`.
    pub outcome: &'static str,
}

/// All metrics of the service.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Requests ended.
    pub requests: Family<RequestLabels, Counter>,
    /// How long they took.
    pub latency: Family<RouteLabels, Histogram, fn() -> Histogram>,
    /// Requests begun and not ended.
    pub in_flight: Gauge,
    /// Refusals and failures by kind.
    pub problems: Family<ProblemLabels, Counter>,
    /// Events handed to the broker.
    pub events: Family<EventLabels, Counter>,
    /// Events in the outbox of each shard.
    pub outbox_events: Family<ShardLabels, Gauge>,
    /// Age of the oldest of them.
    pub outbox_oldest: Family<ShardLabels, Gauge<f64, AtomicU64>>,
    /// Epoch of the ring in use.
    pub ring_epoch: Gauge,
    /// Rings that were refused, for a wrong digest, format or epoch.
    pub ring_refused: Counter,
    /// What the janitors did.
    pub janitors: Family<JanitorLabels, Counter>,
    /// Open connections.
    pub connections: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            latency: Family::new_with_constructor(telemetry::latency_histogram),
            in_flight: Gauge::default(),
            problems: Family::default(),
            events: Family::default(),
            outbox_events: Family::default(),
            outbox_oldest: Family::default(),
            ring_epoch: Gauge::default(),
            ring_refused: Counter::default(),
            janitors: Family::default(),
            connections: Gauge::default(),
        }
    }
}

impl Metrics {
    /// Makes the metrics visible in `registry` under the prefix `order_api`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("order_api");
        registry.register("requests", "Requests answered", self.requests.clone());
        registry.register_with_unit(
            "request_duration",
            "Time from the request's head to the answer's",
            Unit::Seconds,
            self.latency.clone(),
        );
        registry.register(
            "requests_in_flight",
            "Requests begun and not answered",
            self.in_flight.clone(),
        );
        registry.register("problems", "Answers that were problems, by kind", self.problems.clone());
        registry.register(
            "events",
            "Events by the way they took to the broker",
            self.events.clone(),
        );
        registry.register(
            "outbox_events",
            "Events waiting in the outbox of a shard",
            self.outbox_events.clone(),
        );
        registry.register_with_unit(
            "outbox_oldest_age",
            "Age of the oldest event waiting in the outbox of a shard",
            Unit::Seconds,
            self.outbox_oldest.clone(),
        );
        registry.register("ring_epoch", "Epoch of the ring in use", self.ring_epoch.clone());
        registry.register(
            "ring_refused",
            "Rings refused since the start",
            self.ring_refused.clone(),
        );
        registry.register(
            "janitor_rows",
            "Rows that the janitors settled or swept",
            self.janitors.clone(),
        );
        registry.register("connections", "Open connections of clients", self.connections.clone());
    }

    /// Counts one answered request.
    pub fn answered(&self, route: &str, method: &str, status: u16, took: Duration) {
        let (route, method) = (route.to_owned(), method.to_owned());
        self.latency
            .get_or_create(&RouteLabels {
                route: route.clone(),
                method: method.clone(),
            })
            .observe(took.as_secs_f64());
        self.requests
            .get_or_create(&RequestLabels { route, method, status })
            .inc();
    }

    /// Counts `rows` that a janitor dealt with.
    pub fn janitor(&self, outcome: &'static str, rows: u64) {
        self.janitors.get_or_create(&JanitorLabels { outcome }).inc_by(rows);
    }
}
