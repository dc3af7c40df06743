//! What makes a shard be looked at again.
//!
//! Patroni writes to pods and ConfigMaps every second: positions in the log, times of renewal. A controller that woke
//! for each of them would reconcile every shard every second. So each kind has a fingerprint of what matters, and a
//! change that leaves it alone is dropped here.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use crds::{OrderShard, labels};
use futures::{Stream, StreamExt as _, stream};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tracing::warn;

use super::build::{dcs, labels::names};
use super::members::Member;

/// Shards to look at because objects of kind `K` changed, were made, or are gone.
pub(crate) fn changes<K, F, S>(
    api: Api<K>,
    config: watcher::Config,
    fingerprint: F,
    shards_of: S,
) -> impl Stream<Item = ObjectRef<OrderShard>> + Send
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + 'static,
    F: Fn(&K) -> u64 + Send + 'static,
    S: Fn(&K) -> Vec<ObjectRef<OrderShard>> + Send + 'static,
{
    let mut seen = Seen::default();
    watch(api, config).default_backoff().flat_map(move |event| {
        let touched = match event {
            Ok(event) => seen.take_in(event, &fingerprint, &shards_of),
            Err(error) => {
                warn!(kind = %K::kind(&()), error = telemetry::chain(&error), "watch interrupted; it is taken up again");
                Vec::new()
            }
        };
        stream::iter(touched)
    })
}

/// What is known of the objects of one kind.
#[derive(Default)]
struct Seen {
    objects: HashMap<String, Known>,
    /// Counts listings: an object that a new listing does not show is gone.
    listing: u64,
}

struct Known {
    fingerprint: u64,
    shards: Vec<ObjectRef<OrderShard>>,
    listing: u64,
}

impl Seen {
    fn take_in<K: Resource<DynamicType = ()>>(
        &mut self,
        event: Event<K>,
        fingerprint: &impl Fn(&K) -> u64,
        shards_of: &impl Fn(&K) -> Vec<ObjectRef<OrderShard>>,
    ) -> Vec<ObjectRef<OrderShard>> {
        match event {
            Event::Init => {
                self.listing += 1;
                Vec::new()
            }
            Event::InitApply(object) | Event::Apply(object) => {
                let known = Known {
                    fingerprint: fingerprint(&object),
                    shards: shards_of(&object),
                    listing: self.listing,
                };
                let (now, shards) = (known.fingerprint, known.shards.clone());
                match self.objects.insert(key(&object), known) {
                    Some(before) if before.fingerprint == now && before.shards == shards => Vec::new(),
                    before => union(before, shards),
                }
            }
            Event::Delete(object) => union(self.objects.remove(&key(&object)), shards_of(&object)),
            Event::InitDone => {
                let listing = self.listing;
                let gone = self.objects.extract_if(|_, known| known.listing != listing);
                gone.flat_map(|(_, known)| known.shards).collect()
            }
        }
    }
}

/// An object whose label was changed by hand concerns the shard it belonged to as well.
fn union(before: Option<Known>, mut shards: Vec<ObjectRef<OrderShard>>) -> Vec<ObjectRef<OrderShard>> {
    for shard in before.map(|b| b.shards).unwrap_or_default() {
        if !shards.contains(&shard) {
            shards.push(shard);
        }
    }
    shards
}

fn key<K: Resource>(object: &K) -> String {
    format!(
        "{}/{}",
        object.meta().namespace.as_deref().unwrap_or_default(),
        object.name_any()
    )
}

/// The shard whose label an object carries.
pub(crate) fn by_label<K: Resource>(object: &K) -> Vec<ObjectRef<OrderShard>> {
    let namespace = object.meta().namespace.as_deref().unwrap_or_default();
    let shard = object.meta().labels.as_ref().and_then(|l| l.get(labels::SHARD));
    shard
        .map(|name| ObjectRef::new(name).within(namespace))
        .into_iter()
        .collect()
}

/// Every change matters.
pub(crate) fn any_change<K: Resource>(object: &K) -> u64 {
    digest(&object.meta().resource_version)
}

/// Only whether its deletion has begun.
pub(crate) fn deletion<K: Resource>(object: &K) -> u64 {
    digest(&object.meta().deletion_timestamp.is_some())
}

/// Of a pod: its labels, whether it is ready, going, where it is, and what Patroni says except for positions.
pub(crate) fn pod(pod: &Pod) -> u64 {
    let mut member = Member::from_pod(pod, None);
    if let Some(patroni) = &mut member.patroni {
        patroni.xlog_location = None;
    }
    digest(&(
        (pod.labels(), &member.ip, member.ready, member.terminating, &member.uid),
        (&member.loaded, &member.wanted, &member.patroni, &member.trouble),
    ))
}

/// Of a ConfigMap: all but what the master renews every second in the leader object.
pub(crate) fn config_map(object: &ConfigMap) -> u64 {
    let shard = object
        .labels()
        .get(labels::SHARD)
        .map(String::as_str)
        .unwrap_or_default();
    if object.name_any() != names::dcs(shard, dcs::LEADER) {
        return any_change(object);
    }
    digest(&(
        object.annotations().get("leader"),
        object.annotations().get(labels::APPLIED_HASH),
        object.labels(),
        object.uid(),
        object.metadata.deletion_timestamp.is_some(),
        object.owner_references().len(),
    ))
}

fn digest(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leader(leader: &str, renewed: &str) -> ConfigMap {
        serde_json::from_value(serde_json::json!({"metadata": {
            "name": "shop-0-leader", "namespace": "market", "resourceVersion": renewed,
            "labels": {labels::SHARD: "shop-0"},
            "annotations": {"leader": leader, "renewTime": renewed, "optime": renewed},
        }}))
        .expect("a ConfigMap")
    }

    fn pod_at(position: u64, replication: &str) -> Pod {
        let status = format!(
            r#"{{"state":"running","role":"replica","xlog_location":{position},"replication_state":"{replication}"}}"#
        );
        serde_json::from_value(serde_json::json!({"metadata": {
            "name": "shop-0-1", "resourceVersion": position.to_string(), "annotations": {"status": status},
        }}))
        .expect("a pod")
    }

    fn feed(seen: &mut Seen, event: Event<ConfigMap>) -> usize {
        seen.take_in(event, &config_map, &by_label).len()
    }

    #[test]
    fn what_patroni_renews_every_second_wakes_nobody() {
        assert_eq!(
            config_map(&leader("shop-0-0", "1")),
            config_map(&leader("shop-0-0", "2"))
        );
        assert_ne!(
            config_map(&leader("shop-0-0", "1")),
            config_map(&leader("shop-0-1", "1"))
        );
        assert_eq!(pod(&pod_at(1, "streaming")), pod(&pod_at(2, "streaming")));
        assert_ne!(pod(&pod_at(1, "streaming")), pod(&pod_at(1, "catchup")));
    }

    #[test]
    fn a_deleted_object_always_wakes_its_shard() {
        let mut seen = Seen::default();
        assert_eq!(feed(&mut seen, Event::Apply(leader("shop-0-0", "1"))), 1);
        assert_eq!(feed(&mut seen, Event::Apply(leader("shop-0-0", "2"))), 0);
        assert_eq!(feed(&mut seen, Event::Delete(leader("shop-0-0", "2"))), 1);
        assert_eq!(feed(&mut seen, Event::Apply(leader("shop-0-0", "3"))), 1);
    }

    #[test]
    fn what_was_deleted_while_the_watch_was_down_is_noticed() {
        let mut seen = Seen::default();
        feed(&mut seen, Event::Init);
        feed(&mut seen, Event::InitApply(leader("shop-0-0", "1")));
        assert_eq!(feed(&mut seen, Event::InitDone), 0);
        feed(&mut seen, Event::Init);
        assert_eq!(feed(&mut seen, Event::InitDone), 1);
    }

    #[test]
    fn an_object_that_lost_its_label_wakes_the_shard_it_belonged_to() {
        let mut seen = Seen::default();
        feed(&mut seen, Event::Apply(leader("shop-0-0", "1")));
        let mut unlabelled = leader("shop-0-0", "2");
        unlabelled.metadata.labels = None;
        assert_eq!(feed(&mut seen, Event::Apply(unlabelled)), 1);
    }
}
