//! When each shard's master last showed that it lives: by renewing its lock, every second.
//!
//! The watch that drops these renewals, because nobody needs to act on them, notes them here. All on this process's own
//! monotonic clock: what a renewal says of the time is another machine's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crds::labels;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;

use super::build::{LOCK_LIFE, dcs, labels::names};

/// Of all shards; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Renewals(Arc<Mutex<HashMap<String, Holders>>>);

/// Who holds a shard's lock, and who held it before.
#[derive(Debug, Default)]
struct Holders {
    now: Option<Holder>,
    before: Option<Holder>,
}

#[derive(Debug)]
struct Holder {
    name: String,
    /// What the holder wrote, only compared.
    renewal: String,
    /// When it was first seen to hold the lock.
    since: Instant,
    /// When a renewal was seen; `None` until the first one after the lock itself was seen, which may be a dead one's.
    at: Option<Instant>,
}

impl Renewals {
    /// Takes in a ConfigMap as it is now, if it is one with a lock.
    pub(crate) fn take_in(&self, object: &ConfigMap, now: Instant) {
        let Some(shard) = object.labels().get(labels::SHARD) else {
            return;
        };
        if object.name_any() != names::dcs(shard, dcs::LEADER) {
            return;
        }
        let text = |key: &str| object.annotations().get(key).filter(|text| !text.is_empty()).cloned();
        let key = key(object.metadata.namespace.as_deref(), shard);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let holders = all.entry(key).or_default();
        let Some(name) = text("leader") else {
            // The lock is free; whoever held it was last seen when it was.
            holders.before = holders.now.take().or(holders.before.take());
            return;
        };
        let renewal = text("renewTime").unwrap_or_default();
        match &mut holders.now {
            Some(holder) if holder.name == name => {
                if holder.renewal != renewal {
                    holder.renewal = renewal;
                    holder.at = Some(now);
                }
            }
            held => {
                let next = Holder {
                    name,
                    renewal,
                    since: now,
                    at: None,
                };
                holders.before = held.replace(next).or(holders.before.take());
            }
        }
    }

    /// When `member` was last seen to renew the shard's lock.
    pub(crate) fn last_of(&self, namespace: Option<&str>, shard: &str, member: &str) -> Option<Instant> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let holders = all.get(&key(namespace, shard))?;
        [&holders.now, &holders.before]
            .into_iter()
            .flatten()
            .find(|holder| holder.name == member)?
            .at
    }

    /// Whether `member` holds the shard's lock only on paper: it was not seen to renew it for so long that every other member
    /// may take it. `false` for one that was never seen to hold it.
    pub(crate) fn lapsed(&self, namespace: Option<&str>, shard: &str, member: &str, now: Instant) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let holder = all.get(&key(namespace, shard)).and_then(|holders| holders.now.as_ref());
        holder
            .filter(|holder| holder.name == member)
            .is_some_and(|holder| now.duration_since(holder.at.unwrap_or(holder.since)) > LOCK_LIFE)
    }

    /// The shard is gone.
    pub(crate) fn forget(&self, namespace: Option<&str>, shard: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&key(namespace, shard));
    }
}

pub(super) fn key(namespace: Option<&str>, shard: &str) -> String {
    format!("{}/{shard}", namespace.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn lock(leader: &str, renewed: &str) -> ConfigMap {
        serde_json::from_value(serde_json::json!({"metadata": {
            "name": "shop-0-leader", "namespace": "market", "labels": {labels::SHARD: "shop-0"},
            "annotations": {"leader": leader, "renewTime": renewed},
        }}))
        .expect("a ConfigMap")
    }

    /// Feeds locks a second apart, and says how many seconds after the first `member` was last seen to renew.
    fn last(locks: &[(&str, &str)], member: &str) -> Option<u64> {
        let (renewals, start) = (Renewals::default(), Instant::now());
        for ((leader, renewed), second) in locks.iter().zip(0..) {
            renewals.take_in(&lock(leader, renewed), start + Duration::from_secs(second));
        }
        let at = renewals.last_of(Some("market"), "shop-0", member)?;
        Some(at.duration_since(start).as_secs())
    }

    #[test]
    fn a_master_lives_as_long_as_it_renews_its_lock() {
        let renewed = [("a", "1"), ("a", "2"), ("a", "3")];
        assert_eq!(last(&renewed, "a"), Some(2));
        // Seen again by a new listing, without a renewal.
        assert_eq!(last(&[("a", "1"), ("a", "2"), ("a", "2")], "a"), Some(1));
    }

    #[test]
    fn a_lock_that_was_never_seen_renewed_may_be_a_dead_ones() {
        assert_eq!(last(&[("a", "1")], "a"), None);
        assert_eq!(last(&[("a", "1"), ("b", "2")], "a"), None);
    }

    #[test]
    fn the_last_renewal_is_still_known_when_another_has_the_lock_or_nobody() {
        let taken = [("a", "1"), ("a", "2"), ("b", "3"), ("b", "4")];
        assert_eq!(last(&taken, "a"), Some(1));
        assert_eq!(last(&taken, "b"), Some(3));
        let released = [("a", "1"), ("a", "2"), ("", ""), ("", ""), ("b", "5")];
        assert_eq!(last(&released, "a"), Some(1));
    }

    #[test]
    fn a_lock_lapses_when_its_holder_was_not_seen_to_renew_it_for_its_life() {
        let (renewals, start) = (Renewals::default(), Instant::now());
        let lapsed = |member: &str, at: Instant| renewals.lapsed(Some("market"), "shop-0", member, at);
        renewals.take_in(&lock("a", "1"), start);
        let second = Duration::from_secs(1);
        assert!(!lapsed("a", start + LOCK_LIFE));
        assert!(lapsed("a", start + LOCK_LIFE + second));
        renewals.take_in(&lock("a", "2"), start + second);
        assert!(!lapsed("a", start + LOCK_LIFE + second));
        assert!(lapsed("a", start + LOCK_LIFE + second * 2));
        assert!(!lapsed("b", start + LOCK_LIFE + second * 2), "it never held the lock");
    }

    #[test]
    fn other_config_maps_are_no_locks() {
        let renewals = Renewals::default();
        let mut other = lock("a", "1");
        other.metadata.name = Some("shop-0-config".to_owned());
        renewals.take_in(&other, Instant::now());
        assert!(renewals.0.lock().expect("no panic").is_empty());
    }
}
