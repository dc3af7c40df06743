//! Whether a shard's objects may have changed since they were last read.
//!
//! Every kind of object that the operator makes for a shard is watched. So once all of them were found as they should be,
//! nobody has to ask for them again until a watch tells of a change, or something else is wanted. Watches are not trusted for
//! ever: after some minutes the objects are read all the same.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crds::OrderShard;
use futures::{Stream, StreamExt as _};
use kube::runtime::reflector::ObjectRef;

use super::renewals::key;

/// For so long what was read holds while no watch tells of a change.
const READ_AGAIN: Duration = Duration::from_secs(600);

/// How often a watch told of each shard; cheap to clone. Counts only grow, also over a shard that goes and comes again: one
/// that began anew could come to a number that stands beside something read before.
#[derive(Debug, Clone, Default)]
pub(super) struct Touched(Arc<Mutex<HashMap<String, u64>>>);

/// What was read of a shard's objects.
#[derive(Debug, Clone)]
pub(super) struct Seen<T> {
    value: T,
    /// How often a watch had told of the shard before they were read.
    touched: u64,
    at: Instant,
}

impl Touched {
    /// The same shards; each is noted before anybody looks at it.
    pub(super) fn noting<S>(&self, shards: S) -> impl Stream<Item = ObjectRef<OrderShard>> + Send + use<S>
    where
        S: Stream<Item = ObjectRef<OrderShard>> + Send,
    {
        let touched = self.clone();
        shards.inspect(move |shard| touched.note(shard.namespace.as_deref(), &shard.name))
    }

    fn note(&self, namespace: Option<&str>, shard: &str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(key(namespace, shard)).or_default() += 1;
    }

    /// How often, until now.
    pub(super) fn times(&self, namespace: Option<&str>, shard: &str) -> u64 {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(&key(namespace, shard)).copied().unwrap_or_default()
    }
}

impl<T> Seen<T> {
    /// `touched`: [`Touched::times`] from before it was read, at `at`.
    pub(super) fn new(value: T, touched: u64, at: Instant) -> Self {
        Self { value, touched, at }
    }

    /// What was read, if it still holds as far as anybody has told.
    pub(super) fn now(&self, touched: u64, now: Instant) -> Option<&T> {
        let holds = self.touched == touched && now.duration_since(self.at) < READ_AGAIN;
        holds.then_some(&self.value)
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, stream};

    use super::*;

    #[test]
    fn what_was_read_holds_until_a_watch_tells_of_a_change_and_for_some_minutes() {
        let now = Instant::now();
        let seen = Seen::new("as it should be", 2, now);
        assert_eq!(seen.now(2, now + READ_AGAIN / 2), Some(&"as it should be"));
        assert_eq!(seen.now(3, now), None, "a watch has told of a change");
        assert_eq!(seen.now(2, now + READ_AGAIN), None);
    }

    #[test]
    fn a_watch_that_tells_of_a_shard_is_counted_for_that_one() {
        let touched = Touched::default();
        let told = [
            ObjectRef::new("shop-0").within("ns"),
            ObjectRef::new("shop-1").within("ns"),
        ];
        let passed_on = touched.noting(stream::iter(told)).count().now_or_never();
        assert_eq!(passed_on, Some(2));
        assert_eq!(touched.times(Some("ns"), "shop-0"), 1);
        assert_eq!(touched.times(Some("other"), "shop-0"), 0);
    }
}
