//! What the notifier counts. Labels are bounded: channels, outcomes, a few words of reason; never an id.

use std::time::Duration;

use broker::Health;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use store::notifications::SendOutcome;

use crate::handover::Handover;

/// Seconds from an event to its message: milliseconds when all is well, hours after an outage.
const AGE_BUCKETS: [f64; 10] = [0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 120.0, 600.0, 3_600.0, 21_600.0];

/// A way to a customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ChannelLabels {
    /// `email` or `sms`.
    pub channel: &'static str,
}

/// How a sending ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SendingLabels {
    /// `email` or `sms`.
    pub channel: &'static str,
    /// `sent`, `retry`, `failed` or `unknown`.
    pub outcome: &'static str,
    /// Why, in a word; empty when sent.
    pub reason: &'static str,
}

/// How an event was handled.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EventLabels {
    /// `order.processed` and so on.
    pub kind: &'static str,
    /// `done`, `ignored`, `retry` or `dead`.
    pub outcome: &'static str,
}

/// What the sweeper did with a row.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SweepLabels {
    /// `unknown` (its sender was lost), `sent_on` (it was left queued) or `failed` (the sweep did).
    pub outcome: &'static str,
}

/// The metrics of the program.
#[derive(Clone, Debug)]
pub struct Metrics {
    sendings: Family<SendingLabels, Counter>,
    seconds: Family<ChannelLabels, Histogram>,
    age: Family<ChannelLabels, Histogram>,
    in_flight: Family<ChannelLabels, Gauge>,
    events: Family<EventLabels, Counter>,
    swept: Family<SweepLabels, Counter>,
    consuming: Gauge,
    broker_connected: Gauge,
}

impl Metrics {
    /// Makes the metrics and registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let this = Self {
            sendings: Family::default(),
            seconds: Family::new_with_constructor(telemetry::latency_histogram),
            age: Family::new_with_constructor(|| Histogram::new(AGE_BUCKETS)),
            in_flight: Family::default(),
            events: Family::default(),
            swept: Family::default(),
            consuming: Gauge::default(),
            broker_connected: Gauge::default(),
        };
        let registry = registry.sub_registry_with_prefix("notifier");
        registry.register(
            "sendings",
            "Messages handed to a provider, by what came of it",
            this.sendings.clone(),
        );
        let seconds = this.seconds.clone();
        registry.register_with_unit(
            "sending",
            "Time to hand a message over, from connecting to the provider's answer",
            Unit::Seconds,
            seconds,
        );
        let age = this.age.clone();
        registry.register_with_unit(
            "event_to_sent",
            "Time from an event to its message being taken",
            Unit::Seconds,
            age,
        );
        registry.register(
            "in_flight",
            "Messages being handed to a provider now",
            this.in_flight.clone(),
        );
        registry.register("events", "Events handled, by what came of it", this.events.clone());
        registry.register("swept", "Messages the sweeper found left behind", this.swept.clone());
        registry.register(
            "consuming",
            "Whether the broker delivers events to this process",
            this.consuming.clone(),
        );
        registry.register(
            "broker_connected",
            "Whether the broker is connected and not blocked",
            this.broker_connected.clone(),
        );
        this
    }

    pub(crate) fn sending_began(&self, channel: &'static str) {
        self.in_flight.get_or_create(&ChannelLabels { channel }).inc();
    }

    pub(crate) fn sending_ended(&self, channel: &'static str, took: Duration) {
        self.in_flight.get_or_create(&ChannelLabels { channel }).dec();
        self.seconds
            .get_or_create(&ChannelLabels { channel })
            .observe(took.as_secs_f64());
    }

    pub(crate) fn recorded(&self, channel: &'static str, handover: &Handover, outcome: &SendOutcome, age: Duration) {
        let outcome = match outcome {
            SendOutcome::Sent { .. } => "sent",
            SendOutcome::Retry { .. } => "retry",
            SendOutcome::Failed { .. } => "failed",
            SendOutcome::Unknown { .. } => "unknown",
        };
        self.sendings
            .get_or_create(&SendingLabels {
                channel,
                outcome,
                reason: handover.label(),
            })
            .inc();
        if outcome == "sent" {
            self.age
                .get_or_create(&ChannelLabels { channel })
                .observe(age.as_secs_f64());
        }
    }

    pub(crate) fn event(&self, kind: &'static str, outcome: &'static str) {
        self.events.get_or_create(&EventLabels { kind, outcome }).inc();
    }

    pub(crate) fn swept(&self, outcome: &'static str, rows: u64) {
        self.swept.get_or_create(&SweepLabels { outcome }).inc_by(rows);
    }

    pub(crate) fn broker(&self, health: &Health, consuming: bool) {
        self.broker_connected.set(i64::from(health.is_connected()));
        self.consuming.set(i64::from(consuming));
    }
}
