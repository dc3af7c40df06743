use std::time::Duration;

use crds::{OrderShardStatus, ShardState};
use ring::{Epoch, Ordinal};

use super::*;
use crate::order_cluster::{
    build,
    fixtures::{cluster, known, resource},
    plan::{self, Refusal},
};

/// A cluster of three shards, all ready, its ring published.
fn all_well() -> Progress {
    let cluster = cluster(3);
    let none = BTreeMap::new();
    let mut plan = plan::plan(&cluster, known(&none, None));
    let shards = plan
        .shards
        .iter_mut()
        .map(|(ordinal, planned)| {
            planned.step = Step::Keep;
            let mut shard = build::shard(&cluster, *ordinal, &planned.spec);
            shard.status = Some(OrderShardStatus {
                conditions: Standing::ready(ClusterReason::AllShardsReady, "").conditions(&[], None),
                master: Some(format!("shop-{ordinal}-0")),
                replicas: 1,
                durability: Some(DurabilityNow::Synchronous),
                initialised: true,
                ..OrderShardStatus::default()
            });
            assert_eq!(shard.spec.state, ShardState::Active);
            (*ordinal, shard)
        })
        .collect();
    Progress {
        plan,
        shards,
        ring: RingState::Current(Epoch(4)),
        balanced: true,
        in_flight: false,
        paused: false,
        mover: None,
    }
}

fn mover(standing: Mover) -> Option<Report> {
    Some(Report {
        standing,
        ..Report::default()
    })
}

fn shard_status(progress: &mut Progress, ordinal: u16) -> &mut OrderShardStatus {
    progress.shards.get_mut(&ordinal).unwrap().status.as_mut().unwrap()
}

fn unready(progress: &mut Progress, ordinal: u16) {
    shard_status(progress, ordinal).conditions =
        Standing::reconciling(ClusterReason::Retrying, "").conditions(&[], None);
}

#[test]
fn a_cluster_is_ready_when_shards_and_ring_are() {
    let progress = all_well();
    let standing = standing(&progress);
    assert_eq!(
        (standing.reason(), standing.message()),
        ("AllShardsReady", "3 of 3 shards are ready")
    );
    assert!(standing.is_ready());
    let status = status(&resource(3), &progress, &standing);
    assert_eq!(
        (status.shards, status.ready_shards, status.masters, status.replicas),
        (3, 3, 3, 3)
    );
    assert_eq!(status.ring_epoch, Some(4));
    assert_eq!(status.durability, Some(DurabilityNow::Synchronous));
    assert_eq!(
        status.selector.as_deref(),
        Some("ringwright.dev/cluster=shop,ringwright.dev/role")
    );
}

#[test]
fn an_unchanged_cluster_has_an_unchanged_status() {
    let progress = all_well();
    let standing = standing(&progress);
    let mut resource = resource(3);
    resource.status = Some(status(&resource, &progress, &standing));
    assert_eq!(Some(status(&resource, &progress, &standing)), resource.status);
}

#[test]
fn every_way_of_not_being_ready_has_its_reason() {
    type Change = fn(&mut Progress);
    let cases: [(Change, &str, &str); 9] = [
        (
            |p| unready(p, 1),
            "ShardsNotReady",
            "2 of 3 shards are ready; waiting for shard 1",
        ),
        (
            |p| p.plan.shards.get_mut(&2).unwrap().step = Step::Create,
            "CreatingShards",
            "3 of 3 shards are ready",
        ),
        (
            |p| p.plan.shards.get_mut(&2).unwrap().step = Step::Hold,
            "RollingOut",
            "3 of 3 shards are ready; 1 wait for their turn to be changed",
        ),
        (
            |p| p.ring = RingState::Soon(None, Duration::from_secs(1)),
            "WaitingForRing",
            "the ring is published in a moment",
        ),
        (
            |p| {
                let why = BTreeMap::from([(Ordinal(1), "no answer".to_owned())]);
                p.ring = RingState::Unread { published: None, why };
            },
            "WaitingForRing",
            "the ring cannot be compared with what the shards own: shard 1: no answer",
        ),
        (
            |p| {
                p.ring = RingState::Broken {
                    published: None,
                    why: "a gap".to_owned(),
                }
            },
            "RingInconsistent",
            "a gap",
        ),
        (
            |p| p.plan.shards.get_mut(&1).unwrap().step = Step::Taken,
            "NameTaken",
            "the OrderShard with ordinal 1 exists and is not this cluster's: delete it",
        ),
        (
            |p| p.plan.refusals.push(Refusal::NobodyOwns),
            "InvalidSpec",
            "every shard is drained, so none is left to own the keys: set drain to false for one, or raise spec.shards",
        ),
        (
            |p| {
                shard_status(p, 2).conditions =
                    Standing::stalled(ClusterReason::InvalidSpec, "no such class").conditions(&[], None);
            },
            "ShardStalled",
            "shop-2: no such class",
        ),
    ];
    for (change, reason, message) in cases {
        let mut progress = all_well();
        change(&mut progress);
        let standing = standing(&progress);
        assert_eq!((standing.reason(), standing.message()), (reason, message));
        assert!(!standing.is_ready(), "{reason}");
    }
}

#[test]
fn every_way_of_moving_keys_has_its_reason() {
    type Change = fn(&mut Progress);
    let cases: [(Change, &str, bool); 9] = [
        (|p| p.balanced = false, "Rebalancing", false),
        (|p| p.in_flight = true, "Rebalancing", false),
        (|p| p.mover = mover(Mover::Moving), "Rebalancing", false),
        (
            |p| {
                p.balanced = false;
                p.mover = mover(Mover::Waiting {
                    why: "shop-1 is away".to_owned(),
                    person: false,
                });
            },
            "RebalanceWaiting",
            false,
        ),
        (
            |p| {
                p.balanced = false;
                p.mover = mover(Mover::Waiting {
                    why: "no space".to_owned(),
                    person: true,
                });
            },
            "RebalanceBlocked",
            true,
        ),
        (
            |p| {
                p.balanced = false;
                p.paused = true;
            },
            "RebalancePaused",
            true,
        ),
        (
            |p| {
                p.balanced = false;
                p.mover = mover(Mover::Aborted);
            },
            "RebalanceAborted",
            true,
        ),
        (
            |p| p.plan.shards.get_mut(&2).unwrap().spec.state = ShardState::Leaving,
            "ShardsLeaving",
            false,
        ),
        (
            |p| {
                p.plan.departing.insert(7);
            },
            "ShardsLeaving",
            false,
        ),
    ];
    for (change, reason, stalled) in cases {
        let mut progress = all_well();
        change(&mut progress);
        let standing = standing(&progress);
        assert_eq!((standing.reason(), standing.is_stalled()), (reason, stalled));
        assert!(!standing.is_ready(), "{reason}");
    }
}

#[test]
fn a_mover_with_nothing_to_do_leaves_the_cluster_ready_paused_or_aborted_though_it_was() {
    for of in [Mover::Idle, Mover::Paused, Mover::Aborted] {
        let mut progress = all_well();
        progress.mover = mover(of);
        assert!(standing(&progress).is_ready());
    }
}

#[test]
fn the_account_of_a_rebalance_stays_when_no_mover_has_another() {
    let mut before = resource(3);
    let account = crds::RebalanceStatus {
        ranges_done: 7,
        ..crds::RebalanceStatus::default()
    };
    before.status = Some(OrderClusterStatus {
        rebalance: Some(account.clone()),
        ..OrderClusterStatus::default()
    });
    let mut progress = all_well();
    progress.mover = mover(Mover::Idle);
    let standing = standing(&progress);
    assert_eq!(status(&before, &progress, &standing).rebalance, Some(account));
}

#[test]
fn what_somebody_must_act_on_comes_before_what_passes() {
    let mut progress = all_well();
    unready(&mut progress, 0);
    progress.ring = RingState::Broken {
        published: Some(Epoch(4)),
        why: "a gap".to_owned(),
    };
    let standing = standing(&progress);
    assert!(standing.is_stalled());
    assert_eq!(status(&resource(3), &progress, &standing).ring_epoch, Some(4));
}

#[test]
fn durability_is_that_of_the_weakest_shard() {
    let mut progress = all_well();
    shard_status(&mut progress, 1).durability = Some(DurabilityNow::Asynchronous);
    assert_eq!(weakest(&progress), Some(DurabilityNow::Asynchronous));
    shard_status(&mut progress, 2).durability = None;
    assert_eq!(weakest(&progress), Some(DurabilityNow::Unknown));
}

#[test]
fn a_message_names_a_few_of_many() {
    let all: Vec<String> = (0..7).map(|n| format!("shop-{n}")).collect();
    assert_eq!(first_few(&all), "shop-0, shop-1, shop-2 and 4 more");
}
