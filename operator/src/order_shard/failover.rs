//! Noticing that the master changed, what made it change, and how long there was none. Pure.

use std::time::{Duration, Instant};

use crds::Failover;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::members::Member;

/// A change of master that comes later than this after the operator asked for one has another cause: Patroni refused, or
/// gave it up.
const HANDOVER: Duration = Duration::from_secs(120);

/// What the operator remembers of a shard's master between two looks, on its own monotonic clock.
#[derive(Debug, Clone, Default)]
pub(crate) struct MasterWatch {
    /// The master last seen.
    seen: Option<Seen>,
    /// Since when there is none: its last sign of life, or else when it was missed.
    lost: Option<Instant>,
    /// What was found when it was lost.
    cause: Option<&'static str>,
    /// A handover that the operator asked for itself: why, and when.
    planned: Option<(&'static str, Instant)>,
}

#[derive(Debug, Clone)]
struct Seen {
    /// Name of its pod.
    name: String,
    /// The pod's uid; unknown for what only the status tells.
    uid: Option<String>,
}

/// A failover that has just ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Noticed {
    pub failover: Failover,
    /// The operator asked for it.
    pub planned: bool,
}

impl MasterWatch {
    /// The operator is about to hand over.
    pub(crate) fn plan(&mut self, why: &'static str, now: Instant) {
        self.planned = Some((why, now));
    }

    /// Takes in what is seen now. `before` is the master in the resource's status, which is all that is known after
    /// the operator's own restart; `sign_of_life` tells when a member last renewed its lock. Returns the failover that has
    /// just ended, if one has.
    pub(crate) fn look(
        &mut self,
        before: Option<&str>,
        master: Option<&Member>,
        members: &[Member],
        sign_of_life: impl Fn(&str) -> Option<Instant>,
        (now, wall): (Instant, Time),
    ) -> Option<Noticed> {
        if self.seen.is_none() {
            self.seen = before.map(|name| Seen {
                name: name.to_owned(),
                uid: None,
            });
        }
        let Some(master) = master else {
            if let (Some(seen), None) = (&self.seen, self.lost) {
                self.lost = Some(sign_of_life(&seen.name).unwrap_or(now));
                self.cause = Some(seen.what_became_of_it(members));
            }
            return None;
        };
        let planned = self
            .planned
            .filter(|(_, asked)| now.saturating_duration_since(*asked) < HANDOVER);
        let failover = self
            .seen
            .as_ref()
            .filter(|seen| seen.name != master.name)
            .map(|seen| Noticed {
                planned: planned.is_some(),
                failover: Failover {
                    at: wall,
                    cause: planned
                        .map(|(why, _)| why)
                        .or(self.cause)
                        .unwrap_or_else(|| seen.what_became_of_it(members))
                        .to_owned(),
                    from: Some(seen.name.clone()),
                    to: master.name.clone(),
                    // Nobody may have looked while there was no master.
                    milliseconds_without_writes: self
                        .lost
                        .or_else(|| sign_of_life(&seen.name))
                        .map(|lost| milliseconds(now.duration_since(lost))),
                },
            });
        *self = Self {
            seen: Some(Seen {
                name: master.name.clone(),
                uid: Some(master.uid.clone()),
            }),
            planned: planned.filter(|_| failover.is_none()),
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
            uid: uid.to_owned(),
            ..Member::ready(name)
        }
    }

    /// The master `a-0` renewed its lock at `at`, nobody else did.
    fn renewed(at: Instant) -> impl Fn(&str) -> Option<Instant> {
        move |member| (member == "a-0").then_some(at)
    }

    fn never(_: &str) -> Option<Instant> {
        None
    }

    fn wall() -> Time {
        serde_json::from_value(serde_json::json!("2026-01-01T00:00:00Z")).expect("a time")
    }

    #[test]
    fn a_deleted_master_is_reported_with_the_time_since_its_last_sign_of_life() {
        let (old, new) = (member("a-0", "1"), member("a-1", "2"));
        let (mut watch, start) = (MasterWatch::default(), Instant::now());
        let both = [old.clone(), new.clone()];
        let alive = renewed(start);
        assert_eq!(watch.look(None, Some(&old), &both, &alive, (start, wall())), None);
        let missed = start + Duration::from_millis(20_500);
        assert_eq!(
            watch.look(Some("a-0"), None, &both[1..], &alive, (missed, wall())),
            None
        );
        let later = start + Duration::from_millis(22_500);
        let noticed = watch
            .look(Some("a-0"), Some(&new), &both[1..], &alive, (later, wall()))
            .expect("a failover");
        let failover = noticed.failover;
        assert_eq!(failover.cause, "the master's pod was deleted");
        assert_eq!((failover.from.as_deref(), failover.to.as_str()), (Some("a-0"), "a-1"));
        assert_eq!(failover.milliseconds_without_writes, Some(22_500));
        assert!(!noticed.planned);
        assert_eq!(
            watch.look(Some("a-1"), Some(&new), &both, &alive, (later, wall())),
            None
        );
    }

    #[test]
    fn a_failover_between_two_looks_is_measured_too() {
        let (old, new) = (member("a-0", "1"), member("a-1", "2"));
        let (mut watch, start) = (MasterWatch::default(), Instant::now());
        watch.look(None, Some(&old), &[], renewed(start), (start, wall()));
        let later = start + Duration::from_millis(900);
        let noticed = watch.look(None, Some(&new), &[], renewed(start), (later, wall()));
        let failover = noticed.expect("a failover").failover;
        assert_eq!(failover.milliseconds_without_writes, Some(900));
    }

    #[test]
    fn without_a_sign_of_life_the_time_counts_from_when_the_master_was_missed() {
        let (old, new) = (member("a-0", "1"), member("a-1", "2"));
        let (mut watch, start) = (MasterWatch::default(), Instant::now());
        watch.look(None, Some(&old), &[], never, (start, wall()));
        watch.look(None, None, &[], never, (start + Duration::from_secs(3), wall()));
        let later = start + Duration::from_secs(5);
        let noticed = watch.look(None, Some(&new), &[], never, (later, wall()));
        let failover = noticed.expect("a failover").failover;
        assert_eq!(failover.milliseconds_without_writes, Some(2000));
    }

    #[test]
    fn a_planned_handover_says_why_it_was_made() {
        let (old, new) = (member("a-0", "1"), member("a-1", "2"));
        let (mut watch, now) = (MasterWatch::default(), Instant::now());
        watch.look(None, Some(&old), &[], never, (now, wall()));
        watch.plan("the master's pod is to be replaced", now);
        watch.look(None, None, &[old], never, (now, wall()));
        let noticed = watch.look(None, Some(&new), &[], never, (now, wall()));
        let noticed = noticed.expect("a failover");
        assert_eq!(noticed.failover.cause, "the master's pod is to be replaced");
        assert!(noticed.planned);
    }

    #[test]
    fn a_failover_long_after_a_handover_that_was_refused_is_not_planned() {
        let (old, new) = (member("a-0", "1"), member("a-1", "2"));
        let (mut watch, now) = (MasterWatch::default(), Instant::now());
        watch.look(None, Some(&old), &[], never, (now, wall()));
        watch.plan("the master's pod is to be replaced", now);
        let later = now + Duration::from_secs(180);
        watch.look(None, Some(&old), &[], never, (later, wall()));
        let noticed = watch.look(None, Some(&new), &[], never, (later, wall()));
        let noticed = noticed.expect("a failover");
        assert_eq!(noticed.failover.cause, "the master's pod was deleted");
        assert!(!noticed.planned);
    }

    #[test]
    fn a_master_that_comes_back_is_no_failover() {
        let old = member("a-0", "1");
        let (mut watch, now) = (MasterWatch::default(), Instant::now());
        watch.look(None, Some(&old), &[], never, (now, wall()));
        watch.look(None, None, &[], never, (now, wall()));
        assert_eq!(watch.look(None, Some(&old), &[], never, (now, wall())), None);
    }

    #[test]
    fn after_the_operator_s_restart_the_status_tells_who_was_master() {
        let new = member("a-1", "2");
        let mut watch = MasterWatch::default();
        let noticed = watch.look(Some("a-0"), Some(&new), &[], never, (Instant::now(), wall()));
        let failover = noticed.expect("a failover").failover;
        assert_eq!(failover.milliseconds_without_writes, None);
    }
}
