//! Slots of moves that a former master still has.
//!
//! The slot of a move is made on the master; what a standby carries over of it, it drops itself. A master that was
//! deposed and follows now keeps the ones it had; nobody reads them any more, and each holds back the log on that member
//! until `max_slot_wal_keep_size` is reached.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crds::OrderShard;
use kube::ResourceExt;
use telemetry::chain;
use tracing::{info, warn};

use super::Shards;
use super::database;
use super::members::Member;
use super::rollout::View;
use super::secrets::Credentials;

/// A member that could not be asked is asked again after this time.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// In which life each member was rid of them, or when that failed.
#[derive(Debug, Default)]
pub(super) struct Memory(HashMap<String, (Life, Outcome)>);

/// A standby that becomes master and a standby again has passed to another timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Life {
    uid: String,
    timeline: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    Failed(Instant),
}

impl Life {
    fn of(member: &Member) -> Self {
        Self {
            uid: member.uid.clone(),
            timeline: member.timeline(),
        }
    }
}

impl Memory {
    /// Those that follow, and have to be asked at `now`.
    fn due<'a>(&self, members: &'a [Member], now: Instant) -> Vec<&'a Member> {
        let is_due = |member: &&Member| match self.0.get(&member.name) {
            Some((life, Outcome::Done)) => *life != Life::of(member),
            Some((_, Outcome::Failed(at))) => now.duration_since(*at) >= ASK_AGAIN,
            None => true,
        };
        members
            .iter()
            .filter(|member| member.is_streaming())
            .filter(is_due)
            .collect()
    }

    fn note(&mut self, member: &Member, outcome: Outcome) {
        self.0.insert(member.name.clone(), (Life::of(member), outcome));
    }
}

/// Rids the members that follow of such slots, once in each life. What fails is tried again, and fails nothing else.
pub(super) async fn sweep(resource: &OrderShard, shards: &Shards, view: &View<'_>, credentials: &Credentials) {
    let due = shards.remember(resource, |memory| memory.slots.due(view.members, Instant::now()));
    for member in due {
        let outcome = match database::drop_stale_slots(member, credentials).await {
            Ok(dropped) => {
                if !dropped.is_empty() {
                    info!(
                        shard = resource.name_any(),
                        member = member.name,
                        slots = ?dropped,
                        "dropped the slots of moves that a former master had left"
                    );
                }
                Outcome::Done
            }
            Err(error) => {
                warn!(
                    shard = resource.name_any(),
                    member = member.name,
                    error = chain(&error),
                    "could not look for slots of moves on a replica; it is tried again when the shard is looked at after a minute"
                );
                Outcome::Failed(Instant::now())
            }
        };
        shards.remember(resource, |memory| memory.slots.note(member, outcome));
    }
}

#[cfg(test)]
mod tests {
    use super::super::members::PatroniStatus;
    use super::*;

    fn follower(timeline: i64) -> Member {
        Member {
            uid: "a".to_owned(),
            ip: Some("10.0.0.1".to_owned()),
            role: Some("replica".to_owned()),
            patroni: Some(PatroniStatus {
                state: "running".to_owned(),
                role: "replica".to_owned(),
                replication_state: Some("streaming".to_owned()),
                timeline: Some(timeline),
                ..PatroniStatus::default()
            }),
            ..Member::ready("shop-0-1")
        }
    }

    #[test]
    fn a_member_is_asked_once_in_each_life_and_again_after_a_failure() {
        let (now, mut memory) = (Instant::now(), Memory::default());
        let due = |memory: &Memory, member: &Member, after: Duration| {
            !memory.due(std::slice::from_ref(member), now + after).is_empty()
        };
        assert!(due(&memory, &follower(1), Duration::ZERO));
        memory.note(&follower(1), Outcome::Failed(now));
        assert!(!due(&memory, &follower(1), ASK_AGAIN / 2));
        assert!(due(&memory, &follower(1), ASK_AGAIN));
        memory.note(&follower(1), Outcome::Done);
        assert!(!due(&memory, &follower(1), ASK_AGAIN * 100));
        assert!(due(&memory, &follower(2), Duration::ZERO), "it was master in between");
        let mut pod = follower(1);
        pod.uid = "b".to_owned();
        assert!(due(&memory, &pod, Duration::ZERO));
    }

    #[test]
    fn who_does_not_follow_is_not_asked() {
        let mut member = follower(1);
        member.patroni.as_mut().unwrap().replication_state = None;
        assert!(Memory::default().due(&[member], Instant::now()).is_empty());
    }
}
