//! Noticing that the master changed, and what made it change. Pure.

use std::time::{Duration, Instant};

use crds::Failover;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::members::Member;

/// What the operator remembers of a shard's master between two looks, on its own monotonic clock.
#[derive(Debug, Clone, Default)]
pub(crate) struct MasterWatch {
    /// The master last seen.
    seen: Option<Seen>,
    /// Since when there is none.
    lost: Option<Instant>,
    /// What was found when it was lost.
    cause: Option<&'static str>,
    /// A handover that the operator asked for itself.
    planned: Option<&'static str>,
}

#[derive(Debug, Clone)]
struct Seen {
    /// Name of its pod.
    name: String,
    /// The pod's uid; unknown for what only the status tells.
    uid: Option<String>,
}

impl MasterWatch {
    /// The operator is about to hand over.
    pub(crate) fn plan(&mut self, why: &'static str) {
        self.planned = Some(why);
    }

    /// Takes in what is seen now. `before` is the master in the resource's status, which is all that is known after
    /// the operator's own restart. Returns the failover that has just ended, if one has.
    pub(crate) fn look(
        &mut self,
        before: Option<&str>,
        master: Option<&Member>,
        members: &[Member],
        now: Instant,
        wall: Time,
    ) -> Option<Failover> {
        if self.seen.is_none() {
            self.seen = before.map(|name| Seen {
                name: name.to_owned(),
                uid: None,
            });
        }
        let Some(master) = master else {
            if let (Some(seen), None) = (&self.seen, self.lost) {
                self.lost = Some(now);
                self.cause = Some(seen.what_became_of_it(members));
            }
            return None;
        };
        let failover = self
            .seen
            .as_ref()
            .filter(|seen| seen.name != master.name)
            .map(|seen| Failover {
                at: wall,
                cause: self
                    .planned
                    .or(self.cause)
                    .unwrap_or_else(|| seen.what_became_of_it(members))
                    .to_owned(),
                from: Some(seen.name.clone()),
                to: master.name.clone(),
                milliseconds_without_writes: self.lost.map(|lost| milliseconds(now.duration_since(lost))),
            });
        *self = Self {
            seen: Some(Seen {
                name: master.name.clone(),
                uid: Some(master.uid.clone()),
            }),
            planned: if failover.is_some() { None } else { self.planned },
            ..Self::default()
        };
        failover
    }
}

impl Seen {
    /// Why it is master no more, from what its pod looks like.
    fn what_became_of_it(&self, members: &[Member]) -> &'static str {
        match members.iter().find(|m| m.name == self.name) {
            None => "the master's pod was deleted",
            Some(pod) if self.uid.as_ref().is_some_and(|uid| *uid != pod.uid) => "the master's pod was replaced",
            Some(pod) if pod.terminating => "the master's pod is being deleted",
            Some(pod) if !pod.ready => "the master's pod is not ready",
            Some(_) => "the master gave up its role",
        }
    }
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, uid: &str) -> Member {
        Member {
            name: name.to_owned(),
            uid: uid.to_owned(),
            ip: None,
            ready: true,
            terminating: false,
            revision: None,
            role: None,
            loaded: None,
            wanted: None,
            patroni: None,
            token_is_dead: false,
            trouble: None,
        }
    }

    fn wall() -> Time {
        serde_json::from_value(serde_json::json!("2026-01-01T00:00:00Z")).expect("a time")
    }

    #[test]
    fn a_deleted_master_is_reported_with_the_time_without_one() {
        let (old, new) = (member("a-0", "1"), member("a-1", "2"));
        let (mut watch, start) = (MasterWatch::default(), Instant::now());
        let both = [old.clone(), new.clone()];
        assert_eq!(watch.look(None, Some(&old), &both, start, wall()), None);
        assert_eq!(watch.look(Some("a-0"), None, &both[1..], start, wall()), None);
        let later = start + Duration::from_millis(2500);
        let failover = watch
            .look(Some("a-0"), Some(&new), &both[1..], later, wall())
            .expect("a failover");
        assert_eq!(failover.cause, "the master's pod was deleted");
        assert_eq!((failover.from.as_deref(), failover.to.as_str()), (Some("a-0"), "a-1"));
        assert_eq!(failover.milliseconds_without_writes, Some(2500));
        assert_eq!(watch.look(Some("a-1"), Some(&new), &both, later, wall()), None);
    }

    #[test]
    fn a_planned_handover_says_why_it_was_made() {
        let (old, new) = (member("a-0", "1"), member("a-1", "2"));
        let (mut watch, now) = (MasterWatch::default(), Instant::now());
        watch.look(None, Some(&old), &[], now, wall());
        watch.plan("the master's pod is to be replaced");
        watch.look(None, None, &[old], now, wall());
        let failover = watch.look(None, Some(&new), &[], now, wall()).expect("a failover");
        assert_eq!(failover.cause, "the master's pod is to be replaced");
    }

    #[test]
    fn a_master_that_comes_back_is_no_failover() {
        let old = member("a-0", "1");
        let (mut watch, now) = (MasterWatch::default(), Instant::now());
        watch.look(None, Some(&old), &[], now, wall());
        watch.look(None, None, &[], now, wall());
        assert_eq!(watch.look(None, Some(&old), &[], now, wall()), None);
    }

    #[test]
    fn after_the_operator_s_restart_the_status_tells_who_was_master() {
        let new = member("a-1", "2");
        let mut watch = MasterWatch::default();
        let failover = watch
            .look(Some("a-0"), Some(&new), &[], Instant::now(), wall())
            .expect("a failover");
        assert_eq!(failover.milliseconds_without_writes, None);
    }
}
