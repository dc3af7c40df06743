//! Which disruptive step comes next: replicas first, then a switchover, then the old master; one at a time, and only
//! while everybody else is well. Pure: it sees members and says a step.

use super::durability::Commit;
use super::members::{Consensus, Member};

/// A step that interrupts a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Delete the pod, so that the StatefulSet makes it from the newest template.
    ReplacePod {
        /// The pod.
        member: String,
    },
    /// Restart PostgreSQL in its pod, so that parameters take effect.
    Restart {
        /// The pod.
        member: String,
    },
    /// Hand the master's role over.
    Switchover {
        /// The master.
        from: String,
        /// Whom to; `None` leaves the choice to Patroni (under quorum commit it takes who has received most).
        to: Option<String>,
        /// For the event.
        why: &'static str,
    },
}

/// What the planner looks at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    /// Members asked for.
    pub instances: u32,
    pub commit: Commit,
    pub members: &'a [Member],
    pub consensus: &'a Consensus,
    /// The master, if there is one.
    pub master: Option<&'a Member>,
    /// Revision of the newest pod template; `None` until the StatefulSet's controller has computed it.
    pub newest_revision: Option<&'a str>,
}

impl View<'_> {
    /// Made from an older template, or with a token that is refused.
    pub(crate) fn is_outdated(&self, member: &Member) -> bool {
        let older = match (self.newest_revision, member.revision.as_deref()) {
            (Some(newest), Some(own)) => newest != own,
            _ => false,
        };
        older || member.token_is_dead
    }

    fn replicas(&self) -> impl Iterator<Item = &Member> {
        let master = self.master.map(|m| m.name.as_str());
        self.members.iter().filter(move |m| Some(m.name.as_str()) != master)
    }

    /// Everybody is there and follows, so one of them can be spared.
    pub(crate) fn is_whole(&self) -> bool {
        self.master.is_some()
            && self.members.len() >= self.instances as usize
            && self.replicas().all(Member::is_streaming)
            && self.may_hand_over()
    }

    /// Commits wait for a standby as they shall, and no handover is under way.
    fn may_hand_over(&self) -> bool {
        let standby_confirms = match self.commit {
            Commit::Asynchronous => true,
            Commit::Synchronous { .. } | Commit::Quorum { .. } => self.synchronous_standby().is_some(),
        };
        standby_confirms && !self.consensus.switchover_pending
    }

    fn stays(&self, member: &Member) -> bool {
        member.index().is_some_and(|index| index < self.instances)
    }

    /// The members that the specification asks for are all there, the master among them, and the others follow it.
    pub(crate) fn stays_well(&self) -> bool {
        self.master.is_some_and(|m| self.stays(m)) && self.those_that_stay_are_well()
    }

    /// The same, whoever is master.
    fn those_that_stay_are_well(&self) -> bool {
        let well = |m: &&Member| self.master.is_some_and(|master| master.name == m.name) || m.is_streaming();
        let staying = self.members.iter().filter(|m| self.stays(m));
        staying.filter(well).count() == self.instances as usize
    }

    /// A streaming standby that has every acknowledged commit.
    pub(crate) fn synchronous_standby(&self) -> Option<&Member> {
        let master = self.master?;
        if self.consensus.sync_leader.as_deref() != Some(master.name.as_str()) {
            return None;
        }
        self.replicas()
            .find(|m| m.is_streaming() && self.consensus.sync_standbys.contains(&m.name))
    }

    /// Whom a switchover names.
    fn candidate(&self, eligible: impl Fn(&Member) -> bool) -> Option<Option<String>> {
        let named = |m: &Member| Some(Some(m.name.clone()));
        let fits = |m: &&Member| m.is_streaming() && eligible(m);
        match self.commit {
            Commit::Quorum { .. } if self.replicas().all(&eligible) => Some(None),
            Commit::Asynchronous => self.replicas().find(fits).and_then(named),
            Commit::Synchronous { .. } | Commit::Quorum { .. } => self
                .replicas()
                .filter(|m| self.consensus.sync_standbys.contains(&m.name))
                .find(fits)
                .and_then(named),
        }
    }
}

/// Members that should run now: what the specification asks. Those beyond go when the others can do without them: the
/// master stays and every member that stays has the data.
pub(crate) fn replicas_now(view: &View<'_>, current: Option<u32>) -> u32 {
    // Its StatefulSet may be missing for a moment, and made anew with too few would take members away at once.
    let there = || view.members.iter().filter_map(Member::index).max().map(|last| last + 1);
    let surplus = current.or_else(there).filter(|current| *current > view.instances);
    match surplus {
        Some(current) if !view.stays_well() => current,
        _ => view.instances,
    }
}

/// A step that waits for nothing, because the member it concerns helps nobody as it is.
pub(crate) fn urgent_step(view: &View<'_>) -> Option<Step> {
    stuck_pod(view).or_else(|| locked_out(view))
}

/// The next step, or none while there is nothing to do or somebody is not well.
pub(crate) fn next_step(view: &View<'_>) -> Option<Step> {
    shrink(view).or_else(|| {
        view.is_whole()
            .then(|| replica(view).or_else(|| old_master(view)))
            .flatten()
    })
}

/// A pod from an old template that does not work (a bad image, taken back since) helps nobody and is replaced at once.
fn stuck_pod(view: &View<'_>) -> Option<Step> {
    let stuck =
        |m: &&Member| !m.ready && !m.terminating && view.is_outdated(m) && (m.patroni.is_none() || m.trouble.is_some());
    let found = view.members.iter().find(stuck)?;
    Some(Step::ReplacePod {
        member: found.name.clone(),
    })
}

/// The API server refuses this member's token, and nobody waits for it any more: nobody is master and it cannot become one,
/// or it follows one and cannot say so, for what it last said of itself stays as it is. So its pod is made anew; of those that
/// follow, one after the other.
fn locked_out(view: &View<'_>) -> Option<Step> {
    let locked = |m: &&Member| m.token_is_dead && !m.terminating;
    let found = if view.master.is_none() {
        view.members.iter().rev().find(locked)
    } else {
        view.replicas()
            .filter(|m| !m.is_streaming())
            .find(locked)
            .filter(|found| view.members.iter().all(|m| m.is_up() || m.name == found.name))
    };
    Some(Step::ReplacePod {
        member: found?.name.clone(),
    })
}

/// The specification asks for fewer members and the master is among those to go. How the others are that go does not matter.
fn shrink(view: &View<'_>) -> Option<Step> {
    let master = view.master.filter(|m| !view.stays(m))?;
    if !view.those_that_stay_are_well() || !view.may_hand_over() {
        return None;
    }
    let to = view.candidate(|m| view.stays(m))?;
    Some(Step::Switchover {
        from: master.name.clone(),
        to,
        why: "the specification asks for fewer instances",
    })
}

fn replica(view: &View<'_>) -> Option<Step> {
    let mut replicas: Vec<&Member> = view.replicas().collect();
    replicas.sort_by_key(|m| std::cmp::Reverse(m.index()));
    let outdated = replicas
        .iter()
        .find(|m| view.is_outdated(m))
        .map(|m| Step::ReplacePod { member: m.name.clone() });
    outdated.or_else(|| {
        let pending = replicas.iter().find(|m| m.restart_helps_as_replica())?;
        Some(Step::Restart {
            member: pending.name.clone(),
        })
    })
}

/// The master, when all replicas are done.
fn old_master(view: &View<'_>) -> Option<Step> {
    let master = view.master?;
    let outdated = view.is_outdated(master);
    if !outdated && !master.pending_restart() {
        return None;
    }
    let alone = view.instances == 1;
    if master.lowers_limits() || (alone && !outdated) {
        // Nobody to hand over to, or a handover would not help: a standby cannot have less than its master had.
        return Some(Step::Restart {
            member: master.name.clone(),
        });
    }
    if alone {
        return Some(Step::ReplacePod {
            member: master.name.clone(),
        });
    }
    let to = view.candidate(|m| !view.is_outdated(m) && !m.restart_helps_as_replica())?;
    Some(Step::Switchover {
        from: master.name.clone(),
        to,
        why: if outdated {
            "the master's pod is to be replaced"
        } else {
            "the master has parameters that need a restart"
        },
    })
}

#[cfg(test)]
mod tests {
    use super::super::members::{Change, PatroniStatus};
    use super::*;

    /// `shop-0-0` is master, the others stream and are synchronous.
    struct World {
        members: Vec<Member>,
        consensus: Consensus,
        instances: u32,
        commit: Commit,
    }

    impl World {
        fn of(instances: u32, commit: Commit) -> Self {
            let members = (0..instances).map(|index| member(index, "r1")).collect::<Vec<_>>();
            let consensus = Consensus {
                leader: Some("shop-0-0".to_owned()),
                sync_leader: Some("shop-0-0".to_owned()),
                sync_standbys: members.iter().skip(1).map(|m| m.name.clone()).collect(),
                ..Consensus::default()
            };
            Self {
                members,
                consensus,
                instances,
                commit,
            }
        }

        fn step(&self, newest: &str) -> Option<Step> {
            let master = super::super::members::master(&self.members, &self.consensus);
            let view = View {
                instances: self.instances,
                commit: self.commit,
                members: &self.members,
                consensus: &self.consensus,
                master,
                newest_revision: Some(newest),
            };
            urgent_step(&view).or_else(|| next_step(&view))
        }

        fn pend(&mut self, index: usize, parameter: &str, old: &str, new: &str) {
            let patroni = self.members[index].patroni.as_mut().expect("a status");
            patroni.pending_restart = true;
            let change = Change {
                old_value: old.to_owned(),
                new_value: new.to_owned(),
            };
            patroni.pending_restart_reason.insert(parameter.to_owned(), change);
        }
    }

    fn member(index: u32, revision: &str) -> Member {
        let master = index == 0;
        Member {
            uid: index.to_string(),
            ip: Some("10.0.0.1".to_owned()),
            revision: Some(revision.to_owned()),
            role: Some(if master { "master" } else { "replica" }.to_owned()),
            patroni: Some(PatroniStatus {
                state: "running".to_owned(),
                role: if master { "primary" } else { "replica" }.to_owned(),
                timeline: Some(1),
                replication_state: (!master).then(|| "streaming".to_owned()),
                ..PatroniStatus::default()
            }),
            ..Member::ready(&format!("shop-0-{index}"))
        }
    }

    const SYNC: Commit = Commit::Synchronous { strict: false };

    fn replace(member: &str) -> Option<Step> {
        Some(Step::ReplacePod {
            member: member.to_owned(),
        })
    }

    fn restart(member: &str) -> Option<Step> {
        Some(Step::Restart {
            member: member.to_owned(),
        })
    }

    fn switch_to(step: Option<Step>) -> Option<String> {
        match step {
            Some(Step::Switchover { to, .. }) => to,
            other => panic!("expected a switchover, got {other:?}"),
        }
    }

    #[test]
    fn nothing_to_do_is_no_step() {
        assert_eq!(World::of(2, SYNC).step("r1"), None);
    }

    #[test]
    fn a_new_template_takes_the_replica_then_a_switchover_then_the_old_master() {
        let mut world = World::of(2, SYNC);
        assert_eq!(world.step("r2"), replace("shop-0-1"));
        world.members[1].revision = Some("r2".to_owned());
        assert_eq!(switch_to(world.step("r2")).as_deref(), Some("shop-0-1"));
    }

    #[test]
    fn no_step_while_a_replica_does_not_follow_or_is_not_synchronous() {
        let mut world = World::of(2, SYNC);
        world.members[1].patroni.as_mut().expect("a status").replication_state = None;
        assert_eq!(world.step("r2"), None);
        let mut world = World::of(2, SYNC);
        world.consensus.sync_standbys.clear();
        assert_eq!(world.step("r2"), None);
        let mut world = World::of(2, SYNC);
        world.members.pop();
        assert_eq!(world.step("r2"), None);
    }

    #[test]
    fn an_outdated_pod_that_never_came_up_is_replaced_although_the_shard_is_not_whole() {
        let mut world = World::of(2, SYNC);
        world.members[1].ready = false;
        world.members[1].patroni = None;
        assert_eq!(world.step("r2"), replace("shop-0-1"));
        // From the newest template it is only waited for.
        assert_eq!(world.step("r1"), None);
    }

    #[test]
    fn members_whose_token_is_refused_are_replaced_at_once_when_nobody_is_master() {
        let mut world = World::of(2, SYNC);
        world.members.iter_mut().for_each(|m| m.token_is_dead = true);
        // Still a master: one after the other, as for a new template.
        assert_eq!(world.step("r1"), replace("shop-0-1"));
        world.consensus.leader = None;
        assert_eq!(world.step("r1"), replace("shop-0-1"));
        world.members[1].terminating = true;
        assert_eq!(world.step("r1"), replace("shop-0-0"));
    }

    #[test]
    fn a_replica_whose_token_is_refused_is_replaced_though_it_cannot_say_that_it_follows() {
        let mut world = World::of(3, SYNC);
        for index in [1, 2] {
            world.members[index].token_is_dead = true;
            world.members[index]
                .patroni
                .as_mut()
                .expect("a status")
                .replication_state = None;
        }
        assert_eq!(world.step("r1"), replace("shop-0-1"));
        // The other one waits until it is back.
        world.members[1] = member(1, "r1");
        world.members[1].ready = false;
        assert_eq!(world.step("r1"), None);
        world.members[1].ready = true;
        assert_eq!(world.step("r1"), replace("shop-0-2"));
        world.members[2] = member(2, "r1");
        assert_eq!(world.step("r1"), None);
    }

    #[test]
    fn parameters_restart_replicas_first_and_the_master_by_a_switchover() {
        let mut world = World::of(2, SYNC);
        world.pend(0, "shared_buffers", "128MB", "256MB");
        world.pend(1, "shared_buffers", "128MB", "256MB");
        assert_eq!(world.step("r1"), restart("shop-0-1"));
        world.members[1].patroni = member(1, "r1").patroni;
        assert_eq!(switch_to(world.step("r1")).as_deref(), Some("shop-0-1"));
    }

    #[test]
    fn lowered_limits_restart_the_master_in_its_place_and_then_the_replicas() {
        let mut world = World::of(2, SYNC);
        world.pend(0, "max_connections", "300", "200");
        world.pend(1, "max_connections", "300", "200");
        assert_eq!(world.step("r1"), restart("shop-0-0"));
    }

    #[test]
    fn a_single_instance_is_restarted_or_replaced_without_a_switchover() {
        let mut world = World::of(1, Commit::Asynchronous);
        assert_eq!(world.step("r2"), replace("shop-0-0"));
        world.pend(0, "shared_buffers", "128MB", "256MB");
        assert_eq!(world.step("r1"), restart("shop-0-0"));
    }

    #[test]
    fn under_quorum_commit_the_successor_is_not_named() {
        let mut world = World::of(3, Commit::Quorum { strict: false });
        for replica in &mut world.members[1..] {
            replica.revision = Some("r2".to_owned());
        }
        assert_eq!(switch_to(world.step("r2")), None);
    }

    #[test]
    fn shrinking_first_moves_the_master_to_a_member_that_stays() {
        let mut world = World::of(3, Commit::Quorum { strict: false });
        world.members[0].role = Some("replica".to_owned());
        world.members[0].patroni = member(1, "r1").patroni;
        world.members[2] = Member {
            name: "shop-0-2".to_owned(),
            ..member(0, "r1")
        };
        world.consensus = Consensus {
            leader: Some("shop-0-2".to_owned()),
            sync_leader: Some("shop-0-2".to_owned()),
            sync_standbys: vec!["shop-0-0".to_owned(), "shop-0-1".to_owned()],
            ..Consensus::default()
        };
        world.instances = 2;
        let master = super::super::members::master(&world.members, &world.consensus);
        let view = View {
            instances: 2,
            commit: SYNC,
            members: &world.members,
            consensus: &world.consensus,
            master,
            newest_revision: Some("r1"),
        };
        assert_eq!(replicas_now(&view, Some(3)), 3);
        assert_eq!(switch_to(next_step(&view)).as_deref(), Some("shop-0-0"));
        let moved = View {
            master: Some(&world.members[1]),
            ..view
        };
        assert_eq!(replicas_now(&moved, Some(3)), 2);
        // A member that stays does not follow: the one that goes may be the only other one with the data.
        let mut lagging = world.members.clone();
        lagging[0].patroni.as_mut().expect("a status").replication_state = None;
        let unwell = View {
            members: &lagging,
            master: Some(&lagging[1]),
            ..view
        };
        assert_eq!(replicas_now(&unwell, Some(3)), 3);
        // Nobody is master: taking members away now might take the one with the newest data.
        let without = View { master: None, ..view };
        assert_eq!(replicas_now(&without, Some(3)), 3);
        // Nor while the StatefulSet is missing.
        assert_eq!(replicas_now(&without, None), 3);
        assert_eq!(replicas_now(&moved, None), 2);
        // A third one that goes and does not follow holds nothing up; one that stays does.
        for (instances, dead, step) in [(1, 1, Some("shop-0-0")), (1, 0, None), (2, 1, None)] {
            let mut members = world.members.clone();
            members[dead].patroni.as_mut().expect("a status").replication_state = None;
            let unwell = View {
                instances,
                members: &members,
                master: Some(&members[2]),
                ..view
            };
            let to = next_step(&unwell).map(|step| switch_to(Some(step)));
            assert_eq!(to.flatten().as_deref(), step);
        }
    }
}
