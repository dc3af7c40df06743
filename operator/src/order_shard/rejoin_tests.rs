use super::super::durability::Commit;
use super::super::members::{self, Consensus, PatroniStatus};
use super::*;

const SEGMENT: u64 = 16 << 20;

/// `shop-0-0` is master on timeline 2; `shop-0-1` runs, stands in the third segment and does not stream.
struct World {
    members: Vec<Member>,
    consensus: Consensus,
}

fn member(index: u32, position: u64) -> Member {
    let master = index == 0;
    Member {
        uid: index.to_string(),
        ip: Some("10.0.0.1".to_owned()),
        role: Some(if master { "master" } else { "replica" }.to_owned()),
        patroni: Some(PatroniStatus {
            state: "running".to_owned(),
            role: if master { "primary" } else { "replica" }.to_owned(),
            timeline: Some(2),
            xlog_location: Some(position),
            ..PatroniStatus::default()
        }),
        ..Member::ready(&format!("shop-0-{index}"))
    }
}

impl World {
    fn new() -> Self {
        Self {
            members: vec![member(0, 100 * SEGMENT), member(1, 3 * SEGMENT + 5)],
            consensus: Consensus {
                leader: Some("shop-0-0".to_owned()),
                sync_leader: Some("shop-0-0".to_owned()),
                history: BTreeMap::from([(1, 2 * SEGMENT)]),
                ..Consensus::default()
            },
        }
    }

    fn patroni(&mut self, index: usize) -> &mut PatroniStatus {
        self.members[index].patroni.as_mut().expect("a status")
    }

    fn view(&self) -> View<'_> {
        View {
            instances: 2,
            commit: Commit::Synchronous { strict: false },
            members: &self.members,
            consensus: &self.consensus,
            master: members::master(&self.members, &self.consensus),
            newest_revision: None,
        }
    }

    /// What is found after everything has stayed the same for `time`, with a master that has the log from `oldest` on.
    fn after(&self, time: Duration, oldest: u64) -> Option<Stranded> {
        let (mut watch, start, view) = (RejoinWatch::default(), Instant::now(), self.view());
        assert!(watch.look(&view, start).is_empty(), "nothing is asked at first sight");
        let still = watch.look(&view, start + time);
        let still = still.first()?;
        stranded(still, view.master?, Some(Lsn(oldest)), &self.consensus.history)
    }
}

#[test]
fn a_standby_whose_next_segment_is_gone_cannot_follow() {
    let found = World::new().after(STANDS_STILL, 4 * SEGMENT).expect("stranded");
    assert_eq!(
        found.to_string(),
        "the master no longer has the log it needs: it stands at 0/3000005, the log begins at 0/4000000"
    );
}

#[test]
fn a_standby_that_can_still_be_served_is_waited_for_however_long() {
    assert_eq!(World::new().after(Duration::from_secs(86_400), 3 * SEGMENT), None);
}

#[test]
fn a_standby_that_moves_streams_or_works_on_its_return_is_left_alone() {
    let (mut watch, start) = (RejoinWatch::default(), Instant::now());
    let mut world = World::new();
    watch.look(&world.view(), start);
    world.patroni(1).xlog_location = Some(3 * SEGMENT + 6);
    assert!(watch.look(&world.view(), start + STANDS_STILL).is_empty(), "it moved");
    let found = |change: fn(&mut PatroniStatus)| {
        let mut world = World::new();
        change(world.patroni(1));
        world.after(STANDS_STILL, 4 * SEGMENT)
    };
    assert_eq!(found(|p| p.replication_state = Some("streaming".to_owned())), None);
    assert_eq!(found(|p| p.state = "creating replica".to_owned()), None);
    assert_eq!(found(|p| p.state = "starting".to_owned()), None);
    assert_eq!(found(|p| p.xlog_location = None), None);
}

#[test]
fn nobody_is_given_up_without_a_master_or_with_every_acknowledged_commit() {
    let mut world = World::new();
    world.consensus.sync_standbys = vec!["shop-0-1".to_owned()];
    assert_eq!(world.after(STANDS_STILL, 4 * SEGMENT), None);
    let mut world = World::new();
    world.consensus.leader = None;
    assert_eq!(world.after(STANDS_STILL, 4 * SEGMENT), None);
    // The lock has moved to the standby itself, which has not said so yet.
    let mut world = World::new();
    world.consensus.leader = Some("shop-0-1".to_owned());
    assert_eq!(world.after(STANDS_STILL, 4 * SEGMENT), None);
    let mut world = World::new();
    world.consensus.switchover_pending = true;
    assert_eq!(world.after(STANDS_STILL, 4 * SEGMENT), None);
    let mut world = World::new();
    world.members[1].terminating = true;
    assert_eq!(world.after(STANDS_STILL, 4 * SEGMENT), None);
}

#[test]
fn a_member_that_the_specification_no_longer_asks_for_is_not_copied() {
    let mut world = World::new();
    world.members.push(member(2, 3 * SEGMENT));
    world.members.remove(1);
    assert_eq!(world.after(STANDS_STILL, 4 * SEGMENT), None);
}

#[test]
fn what_the_masters_history_left_behind_is_given_to_patroni_to_rewind_before_it_is_given_up() {
    let mut world = World::new();
    world.patroni(1).timeline = Some(1);
    assert_eq!(world.after(STANDS_STILL, SEGMENT), None);
    let found = world.after(NOT_REWOUND, SEGMENT).expect("stranded");
    assert!(matches!(found, Stranded::Diverged { timeline: 1, .. }), "{found:?}");
    // It left the old timeline before the master did: it only has to go on.
    world.patroni(1).xlog_location = Some(2 * SEGMENT);
    assert_eq!(world.after(NOT_REWOUND, SEGMENT), None);
    // Patroni keeps only so much of a history.
    let mut world = World::new();
    world.patroni(1).timeline = Some(1);
    world.consensus.history.clear();
    assert_eq!(world.after(NOT_REWOUND, SEGMENT), None);
}

#[test]
fn a_pod_that_was_replaced_begins_anew() {
    let (mut watch, start) = (RejoinWatch::default(), Instant::now());
    let mut world = World::new();
    watch.look(&world.view(), start);
    world.members[1].uid = "another".to_owned();
    assert!(watch.look(&world.view(), start + STANDS_STILL).is_empty());
}

#[test]
fn one_member_is_copied_at_a_time() {
    let mut world = World::new();
    assert!(!is_copying(&world.members));
    world.patroni(1).state = "creating replica".to_owned();
    assert!(is_copying(&world.members));
}
