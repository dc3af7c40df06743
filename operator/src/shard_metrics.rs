//! What is counted and measured of each shard. Series of what is gone, or cannot be asked, go: an old value that stands there
//! as if it were new would deceive.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crds::OrderShard;
use kube::ResourceExt;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};
use store::admin::Vitals;

/// Labels of what belongs to one shard.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct Shard {
    namespace: String,
    cluster: String,
    shard: String,
}

/// Labels of what belongs to one member.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Member {
    namespace: String,
    cluster: String,
    shard: String,
    member: String,
}

/// Labels of what belongs to one replication slot.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Slot {
    namespace: String,
    cluster: String,
    shard: String,
    slot: String,
}

/// Labels of [`ShardMetrics::failovers`].
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Change {
    namespace: String,
    cluster: String,
    shard: String,
    /// `true` when the operator handed over itself.
    planned: &'static str,
}

/// What a shard has told, with what it should have.
#[derive(Debug)]
pub(crate) struct Sample {
    /// Names of the members that should follow.
    pub(crate) replicas: Vec<String>,
    pub(crate) vitals: Vitals,
}

/// Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct ShardMetrics {
    failovers: Family<Change, Counter>,
    rebuilds: Family<Shard, Counter>,
    unanswered: Family<Shard, Counter>,
    streaming: Family<Member, Gauge>,
    lag: Family<Member, Gauge>,
    slot_log: Family<Slot, Gauge>,
    slot_lost: Family<Slot, Gauge>,
    database: Family<Shard, Gauge>,
    outbox: Family<Shard, Gauge>,
    /// Every shard that has been sampled, whether it answered or not.
    known: Arc<Mutex<HashSet<Shard>>>,
    shown: Arc<Mutex<HashMap<Shard, Series>>>,
}

/// The series of one shard that are shown.
#[derive(Debug, Default)]
struct Series {
    members: BTreeSet<String>,
    slots: BTreeSet<String>,
}

impl Shard {
    pub(crate) fn of(resource: &OrderShard) -> Self {
        Self {
            namespace: resource.namespace().unwrap_or_default(),
            cluster: resource.spec.cluster.clone(),
            shard: resource.name_any(),
        }
    }

    fn member(&self, member: &str) -> Member {
        Member {
            namespace: self.namespace.clone(),
            cluster: self.cluster.clone(),
            shard: self.shard.clone(),
            member: member.to_owned(),
        }
    }

    fn change(&self, planned: bool) -> Change {
        Change {
            namespace: self.namespace.clone(),
            cluster: self.cluster.clone(),
            shard: self.shard.clone(),
            planned: if planned { "true" } else { "false" },
        }
    }

    fn slot(&self, slot: &str) -> Slot {
        Slot {
            namespace: self.namespace.clone(),
            cluster: self.cluster.clone(),
            shard: self.shard.clone(),
            slot: slot.to_owned(),
        }
    }
}

impl ShardMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let this = Self::default();
        let counters = [
            (
                "rebuilds",
                "Members copied anew because they could not follow their master any more",
                &this.rebuilds,
            ),
            (
                "samples_unanswered",
                "Samples of a shard's vitals that its master did not answer",
                &this.unanswered,
            ),
        ];
        for (name, help, family) in counters {
            registry.register(name, help, family.clone());
        }
        registry.register("failovers", "Changes of a shard's master", this.failovers.clone());
        registry.register(
            "member_streaming",
            "1 for a replica that follows its master, 0 for one that should and does not",
            this.streaming.clone(),
        );
        registry.register_with_unit(
            "member_lag",
            "Log that a replica has not replayed yet",
            Unit::Bytes,
            this.lag.clone(),
        );
        registry.register_with_unit(
            "slot_log",
            "Log that the master keeps for a replication slot",
            Unit::Bytes,
            this.slot_log.clone(),
        );
        registry.register(
            "slot_lost",
            "1 for a replication slot whose log is gone",
            this.slot_lost.clone(),
        );
        registry.register_with_unit(
            "database_size",
            "Size of a shard's database, without the log",
            Unit::Bytes,
            this.database.clone(),
        );
        registry.register(
            "outbox_events",
            "Events of a shard that wait to be published",
            this.outbox.clone(),
        );
        this
    }

    /// Counts a change of master.
    pub(crate) fn failed_over(&self, resource: &OrderShard, planned: bool) {
        let labels = Shard::of(resource).change(planned);
        self.failovers.get_or_create(&labels).inc();
    }

    /// Counts one member that is copied anew.
    pub(crate) fn rebuilt(&self, resource: &OrderShard) {
        self.rebuilds.get_or_create(&Shard::of(resource)).inc();
    }

    /// Shows what a shard has told.
    pub(crate) fn show(&self, shard: &Shard, sample: &Sample) {
        let number = |yes: bool| i64::from(yes);
        let mut series = Series::default();
        self.begin_counting(shard);
        for name in &sample.replicas {
            let labels = shard.member(name);
            let found = sample.vitals.followers.iter().find(|f| f.name == *name);
            self.streaming
                .get_or_create(&labels)
                .set(number(found.is_some_and(|f| f.streams)));
            if let Some(follower) = found {
                self.lag.get_or_create(&labels).set(follower.lag_bytes);
            } else {
                self.lag.remove(&labels);
            }
            series.members.insert(name.clone());
        }
        for slot in &sample.vitals.slots {
            let labels = shard.slot(&slot.name);
            self.slot_log.get_or_create(&labels).set(slot.kept_bytes);
            self.slot_lost.get_or_create(&labels).set(number(slot.lost));
            series.slots.insert(slot.name.clone());
        }
        self.database.get_or_create(shard).set(sample.vitals.database_bytes);
        self.outbox.get_or_create(shard).set(sample.vitals.outbox_events);
        let before = self.shown().insert(shard.clone(), series);
        let now = self.shown();
        if let (Some(before), Some(now)) = (before, now.get(shard)) {
            self.take_away(shard, &before, now);
        }
    }

    /// Counters begin at zero: the first step of one that is born at one is not seen by those who look for growth.
    fn begin_counting(&self, shard: &Shard) {
        if !self.known().insert(shard.clone()) {
            return;
        }
        drop(self.rebuilds.get_or_create(shard));
        drop(self.unanswered.get_or_create(shard));
        for planned in [false, true] {
            drop(self.failovers.get_or_create(&shard.change(planned)));
        }
    }

    /// The shard did not answer: nothing is known of it now.
    pub(crate) fn hide(&self, shard: &Shard) {
        self.begin_counting(shard);
        self.unanswered.get_or_create(shard).inc();
        self.withdraw(shard);
    }

    /// Withdraws the shards that are not among these any more, with what was counted of them.
    pub(crate) fn keep_only(&self, shards: &HashSet<Shard>) {
        let gone: Vec<Shard> = self.known().extract_if(|shard| !shards.contains(shard)).collect();
        for shard in gone {
            self.withdraw(&shard);
            self.unanswered.remove(&shard);
            self.rebuilds.remove(&shard);
            for planned in [false, true] {
                self.failovers.remove(&shard.change(planned));
            }
        }
    }

    fn withdraw(&self, shard: &Shard) {
        let before = self.shown().remove(shard);
        if let Some(before) = before {
            self.take_away(shard, &before, &Series::default());
            self.database.remove(shard);
            self.outbox.remove(shard);
        }
    }

    fn take_away(&self, shard: &Shard, before: &Series, now: &Series) {
        for member in before.members.difference(&now.members) {
            self.streaming.remove(&shard.member(member));
            self.lag.remove(&shard.member(member));
        }
        for slot in before.slots.difference(&now.slots) {
            self.slot_log.remove(&shard.slot(slot));
            self.slot_lost.remove(&shard.slot(slot));
        }
    }

    fn known(&self) -> MutexGuard<'_, HashSet<Shard>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shown(&self) -> MutexGuard<'_, HashMap<Shard, Series>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use store::admin::{Follower, Slot as FoundSlot};

    use super::*;

    fn shard(name: &str) -> Shard {
        Shard {
            namespace: "market".to_owned(),
            cluster: "shop".to_owned(),
            shard: name.to_owned(),
        }
    }

    fn sample() -> Sample {
        Sample {
            replicas: vec!["shop-0-1".to_owned(), "shop-0-2".to_owned()],
            vitals: Vitals {
                followers: vec![Follower {
                    name: "shop-0-1".to_owned(),
                    streams: true,
                    lag_bytes: 42,
                }],
                slots: vec![FoundSlot {
                    name: "shop_0_1".to_owned(),
                    kept_bytes: 7,
                    lost: false,
                }],
                database_bytes: 9,
                outbox_events: 3,
            },
        }
    }

    /// Every line but those of counters that have not counted anything, without the labels that are always the same.
    fn lines(registry: &Registry) -> Vec<String> {
        let mut text = String::new();
        encode(&mut text, registry).expect("text");
        let mut lines: Vec<String> = text
            .lines()
            .filter(|line| !(line.starts_with('#') || line.contains("_total{") && line.ends_with(" 0")))
            .map(|line| line.replace("namespace=\"market\",cluster=\"shop\",", ""))
            .collect();
        lines.sort();
        lines
    }

    #[test]
    fn a_sample_is_shown_and_taken_away_when_the_shard_does_not_answer() {
        let mut registry = Registry::default();
        let metrics = ShardMetrics::register(&mut registry);
        metrics.show(&shard("shop-0"), &sample());
        assert_eq!(
            lines(&registry),
            [
                "database_size_bytes{shard=\"shop-0\"} 9",
                "member_lag_bytes{shard=\"shop-0\",member=\"shop-0-1\"} 42",
                "member_streaming{shard=\"shop-0\",member=\"shop-0-1\"} 1",
                "member_streaming{shard=\"shop-0\",member=\"shop-0-2\"} 0",
                "outbox_events{shard=\"shop-0\"} 3",
                "slot_log_bytes{shard=\"shop-0\",slot=\"shop_0_1\"} 7",
                "slot_lost{shard=\"shop-0\",slot=\"shop_0_1\"} 0",
            ]
        );
        metrics.hide(&shard("shop-0"));
        assert_eq!(lines(&registry), ["samples_unanswered_total{shard=\"shop-0\"} 1"]);
    }

    #[test]
    fn counters_begin_at_zero_and_go_with_their_shard() {
        let mut registry = Registry::default();
        let metrics = ShardMetrics::register(&mut registry);
        let counters = || {
            let mut text = String::new();
            encode(&mut text, &registry).expect("text");
            text.lines().filter(|line| line.contains("_total{")).count()
        };
        metrics.hide(&shard("shop-0"));
        assert_eq!(
            counters(),
            4,
            "rebuilds, unanswered samples, planned and other failovers"
        );
        metrics.keep_only(&HashSet::new());
        assert_eq!(counters(), 0);
    }

    #[test]
    fn members_slots_and_shards_that_are_gone_are_not_shown_any_more() {
        let mut registry = Registry::default();
        let metrics = ShardMetrics::register(&mut registry);
        metrics.show(&shard("shop-0"), &sample());
        metrics.show(&shard("shop-1"), &sample());
        let mut fewer = sample();
        fewer.replicas.pop();
        fewer.vitals.slots.clear();
        metrics.show(&shard("shop-0"), &fewer);
        metrics.keep_only(&HashSet::from([shard("shop-0")]));
        assert_eq!(
            lines(&registry),
            [
                "database_size_bytes{shard=\"shop-0\"} 9",
                "member_lag_bytes{shard=\"shop-0\",member=\"shop-0-1\"} 42",
                "member_streaming{shard=\"shop-0\",member=\"shop-0-1\"} 1",
                "outbox_events{shard=\"shop-0\"} 3",
            ]
        );
    }
}
