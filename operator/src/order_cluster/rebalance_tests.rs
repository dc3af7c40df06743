//! Keys that move between the shards of a cluster, against an API server and databases in memory.

use std::collections::BTreeSet;

use crds::RebalancePhase;
use moves::RangeState;
use ring::{Ordinal, Ring, ShardState};
use serde_json::{Value, json};

use super::{
    rebalance::Survey,
    world::{RING, SYSTEM, World, shard_path},
    *,
};

const MIB: u64 = 1 << 20;

pub(super) async fn a_cluster_of(shards: u16) -> World {
    let mut world = World::new(shards);
    world.settle().await;
    world.assert_ready();
    world
}

/// Ordinals that own keys by the published ring.
pub(super) fn owners(ring: &Ring) -> Vec<u16> {
    ring.tokens().shares().keys().map(|ordinal| ordinal.get()).collect()
}

pub(super) fn annotation(world: &World, path: &str, key: &str) -> Value {
    world.api.get(path).unwrap()["metadata"]["annotations"][key].clone()
}

/// Reconciles and lets the mover go on until `condition` holds.
async fn until(world: &mut World, what: &str, condition: impl Fn(&World) -> bool) {
    for _ in 0..2_000 {
        if condition(world) {
            return;
        }
        world.shards_act();
        world.reconcile().await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("it never came to this: {what}; {}", world.message());
}

pub(super) async fn no_step_succeeds_any_more(world: &mut World) {
    until(world, "the steps that succeed are done", |world| {
        world.databases.with(|state| state.steps_left == Some(0))
    })
    .await;
}

/// Some keys have moved, and no step succeeds any more.
pub(super) async fn half_way_from_2_to_3() -> World {
    let mut world = a_cluster_of(2).await;
    go_half_way_from_2_to_3(&mut world).await;
    world
}

async fn go_half_way_from_2_to_3(world: &mut World) {
    world.databases.with(|state| state.steps_left = Some(12));
    world.specify(|spec| spec["shards"] = json!(3));
    no_step_succeeds_any_more(world).await;
}

async fn it_becomes_ready(world: &mut World) {
    until(world, "it is ready", |world| reason(world) == "AllShardsReady").await;
    world.settle().await;
}

pub(super) fn reason(world: &World) -> String {
    world.ready().1
}

#[tokio::test]
async fn more_shards_get_their_share_and_only_they_get_any() {
    let mut world = a_cluster_of(2).await;
    let before = world.ring();
    world.specify(|spec| spec["shards"] = json!(3));
    world.settle().await;
    world.assert_ready();
    let after = world.ring();
    assert_eq!(owners(&after), [0, 1, 2]);
    let moves = before.tokens().moves_to(after.tokens());
    assert!(moves.iter().all(|one| one.to == Ordinal(2)), "{moves:?}");
    assert!(world.databases.is_clean());
    assert_eq!(annotation(&world, SYSTEM, labels::ROSTER), "0-2");

    let account = world.account();
    assert_eq!(account.phase, RebalancePhase::Finished);
    assert_eq!((account.shards_before, account.shards_after), (2, 3));
    assert_eq!((account.moves_done, account.moves_total), (2, 2));
    assert!(account.ranges_total > 1 && account.ranges_done == account.ranges_total);
    assert!(account.rows_done > 0 && account.longest_pause_milliseconds == 5);
    assert!(account.finished_at.is_some());
    assert!(
        (300_000..=340_000).contains(&account.keys_moved_per_million),
        "{account:?}"
    );
    let events = world.api.events();
    for event in ["RebalanceStarted", "MoveStarted", "MoveFinished", "RebalanceFinished"] {
        assert!(events.iter().any(|found| found == event), "no {event} in {events:?}");
    }
    // Nothing is left to do, whoever looks.
    world.restart_operator();
    world.settle().await;
    assert_eq!(world.ring().epoch(), after.epoch());
}

#[tokio::test]
async fn a_new_shard_is_listed_as_joining_before_anything_moves_to_it() {
    let mut world = a_cluster_of(2).await;
    world.databases.with(|state| state.steps_left = Some(0));
    world.specify(|spec| spec["shards"] = json!(3));
    world.reconcile().await.unwrap();
    assert_eq!(reason(&world), "CreatingShards");
    assert_eq!(world.ring().shards().len(), 2, "its database is not set up");
    until(&mut world, "the ring lists it", |world| {
        world.ring().shards().len() == 3
    })
    .await;
    let ring = world.ring();
    let joining = &ring.shards()[2];
    assert_eq!(joining.state, ShardState::Joining);
    assert_eq!(joining.hosts.len(), 2);
    assert!(world.databases.is_clean());
}

#[tokio::test]
async fn fewer_shards_give_everything_away_and_go_with_their_volumes() {
    let mut world = a_cluster_of(3).await;
    let before = world.ring();
    world.databases.with(|state| state.steps_left = Some(0));
    world.specify(|spec| spec["shards"] = json!(2));
    until(&mut world, "the ring and the status tell", |world| {
        world.ring().shards()[2].state == ShardState::Leaving && reason(world) == "Rebalancing"
    })
    .await;
    assert_eq!(world.api.get(&shard_path(2)).unwrap()["spec"]["state"], "leaving");
    world.databases.with(|state| state.steps_left = None);
    world.settle().await;
    world.assert_ready();
    let after = world.ring();
    assert_eq!(after.shards().len(), 2);
    let moves = before.tokens().moves_to(after.tokens());
    assert!(moves.iter().all(|one| one.from == Ordinal(2)), "{moves:?}");
    assert!(world.api.get(&shard_path(2)).is_none());
    assert!(world.api.events().iter().any(|event| event == "ShardLeft"));
    assert_eq!(annotation(&world, SYSTEM, labels::ROSTER), "0-1");

    // Its number is not given again.
    world.specify(|spec| spec["shards"] = json!(3));
    world.settle().await;
    world.assert_ready();
    assert_eq!(owners(&world.ring()), [0, 1, 3]);
    assert!(world.api.get(&shard_path(2)).is_none());
    assert_eq!(annotation(&world, RING, labels::HIGHEST_ORDINAL), "3");
}

#[tokio::test]
async fn a_leaving_shard_is_told_to_take_its_volumes_with_it() {
    let mut world = a_cluster_of(2).await;
    // It has work of its own to do before it goes.
    world.api.edit(&shard_path(1), |shard| {
        shard["metadata"]["finalizers"] = json!([labels::SHARD_FINALIZER]);
    });
    world.specify(|spec| spec["shards"] = json!(1));
    world.settle().await;
    let shard = world.api.get(&shard_path(1)).unwrap();
    assert_eq!(shard["spec"]["deletionPolicy"], "Delete");
    assert!(!shard["metadata"]["deletionTimestamp"].is_null());
    assert_eq!(world.ready(), ("False".to_owned(), "ShardsLeaving".to_owned()));
    world.api.remove(&shard_path(1));
    world.settle().await;
    world.assert_ready();
}

#[tokio::test]
async fn a_shard_is_replaced_by_draining_it_and_asking_for_one_more() {
    let mut world = a_cluster_of(2).await;
    world.specify(|spec| {
        spec["shards"] = json!(3);
        spec["shardOverrides"] = json!([{"ordinal": 0, "drain": true}]);
    });
    world.settle().await;
    world.assert_ready();
    assert_eq!(owners(&world.ring()), [1, 2]);
    assert_eq!(world.ring().shards()[0].state, ShardState::Leaving);
    assert!(world.api.get(&shard_path(0)).is_some(), "it stays, empty");
    world.specify(|spec| spec["shards"] = json!(2));
    world.settle().await;
    world.assert_ready();
    assert!(world.api.get(&shard_path(0)).is_none());
    assert_eq!(owners(&world.ring()), [1, 2]);
}

#[tokio::test]
async fn a_shard_that_never_came_up_can_be_taken_back() {
    for ring_is_lost in [false, true] {
        let mut world = a_cluster_of(2).await;
        let never_up = |world: &World| {
            world.shards_act();
            world.api.edit(&shard_path(3), |shard| shard["status"] = json!({}));
        };
        world.specify(|spec| spec["shards"] = json!(4));
        for look in 0..10 {
            if look == 5 && ring_is_lost {
                world.api.remove(RING);
                world.restart_operator();
            }
            world.reconcile().await.unwrap();
            never_up(&world);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(owners(&world.ring()), [0, 1], "nothing moves to half of the new shards");
        world.specify(|spec| spec["shards"] = json!(3));
        world.reconcile().await.unwrap();
        assert!(world.api.get(&shard_path(3)).is_none());
        it_becomes_ready(&mut world).await;
        assert_eq!(owners(&world.ring()), [0, 1, 2]);
        assert_eq!(world.account().phase, RebalancePhase::Finished);
    }
}

#[tokio::test]
async fn a_larger_weight_brings_more_keys() {
    let mut world = a_cluster_of(2).await;
    world.specify(|spec| spec["shardOverrides"] = json!([{"ordinal": 1, "weight": 3}]));
    world.settle().await;
    world.assert_ready();
    let shares = world.ring().tokens().shares();
    let ratio = shares[&Ordinal(1)] as f64 / shares[&Ordinal(0)] as f64;
    assert!((2.8..3.2).contains(&ratio), "{ratio}");
}

#[tokio::test]
async fn an_operator_killed_at_any_step_is_finished_by_the_next() {
    let mut reference = a_cluster_of(2).await;
    reference.specify(|spec| spec["shards"] = json!(3));
    reference.settle().await;
    let steps = reference.databases.with(|state| state.steps);
    assert!(steps > 20, "only {steps} steps: this tests nothing");
    for killed_after in (0..steps).step_by(steps / 12) {
        let mut world = a_cluster_of(2).await;
        world.databases.with(|state| state.steps_left = Some(killed_after));
        world.specify(|spec| spec["shards"] = json!(3));
        no_step_succeeds_any_more(&mut world).await;
        world.databases.with(|state| state.steps_left = None);
        world.restart_operator();
        world.settle().await;
        world.assert_ready();
        assert!(world.databases.is_clean(), "killed after {killed_after} steps");
        assert_eq!(
            world.ring().tokens(),
            reference.ring().tokens(),
            "killed after {killed_after} steps"
        );
    }
}

#[tokio::test]
async fn a_change_in_the_middle_ends_with_what_was_asked_last() {
    for shards in [1, 2, 4] {
        let mut world = half_way_from_2_to_3().await;
        world.specify(|spec| spec["shards"] = json!(shards));
        world.databases.with(|state| state.steps_left = None);
        world.settle().await;
        world.assert_ready();
        assert_eq!(world.ring().shards().len(), shards, "3, then {shards}");
        assert!(world.databases.is_clean());
    }
}

#[tokio::test]
async fn half_of_a_plan_is_written_down_to_its_end_though_its_shards_are_not_ready() {
    let mut world = a_cluster_of(2).await;
    // Of two moves one is written down. A newer operator has a schema that its target takes when it is done.
    world.databases.with(|state| state.steps_left = Some(1));
    world.specify(|spec| spec["shards"] = json!(3));
    no_step_succeeds_any_more(&mut world).await;
    for look in 0..500 {
        world.shards_act();
        world.api.edit(&shard_path(2), |shard| {
            shard["status"]["conditions"][0]["status"] = json!("False");
            shard["status"]["conditions"][0]["reason"] = json!("MigrationWaiting");
        });
        world.reconcile().await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        // The successor knows of the schema before it can do anything.
        if look == 10 {
            world.databases.with(|state| state.steps_left = None);
        }
        if owners(&world.ring()) == [0, 1, 2] && world.databases.is_clean() {
            return;
        }
    }
    panic!("it never moved: {}", world.message());
}

#[tokio::test]
async fn a_target_without_space_is_refused_before_anything_starts() {
    let mut world = a_cluster_of(2).await;
    world.databases.with(|state| {
        for shard in ["shop-0", "shop-1"] {
            let survey = Survey {
                bytes: 2_000 * MIB,
                ..Survey::default()
            };
            state.surveys.insert(shard.to_owned(), survey);
        }
    });
    world.specify(|spec| spec["shards"] = json!(3));
    world.settle().await;
    assert_eq!(world.ready(), ("False".to_owned(), "RebalanceBlocked".to_owned()));
    assert!(
        world.message().contains("shard 2 has not enough space"),
        "{}",
        world.message()
    );
    assert!(world.databases.is_clean());
    assert_eq!(world.account().phase, RebalancePhase::Blocked);
    assert!(
        world
            .account()
            .last_error
            .unwrap()
            .message
            .contains("raise spec.postgres.storage.size")
    );

    world.databases.with(|state| state.surveys.clear());
    it_becomes_ready(&mut world).await;
    world.assert_ready();
}

#[tokio::test]
async fn rows_outside_of_every_range_are_told_before_anything_starts() {
    let mut world = a_cluster_of(2).await;
    world.databases.with(|state| {
        let survey = Survey {
            outside: Some("shop.users: 2".to_owned()),
            ..Survey::default()
        };
        state.surveys.insert("shop-1".to_owned(), survey);
    });
    world.specify(|spec| spec["shards"] = json!(1));
    world.settle().await;
    assert_eq!(reason(&world), "RebalanceBlocked");
    assert!(world.message().contains("shop.users: 2"), "{}", world.message());
}

#[tokio::test]
async fn different_schemas_are_awaited() {
    let mut world = a_cluster_of(2).await;
    world.specify(|spec| spec["shards"] = json!(3));
    world.shards_act();
    world.reconcile().await.unwrap();
    world.shards_act();
    world
        .api
        .edit(&shard_path(0), |shard| shard["status"]["schemaVersion"] = json!(7));
    for _ in 0..50 {
        world.reconcile().await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(world.ready(), ("False".to_owned(), "RebalanceWaiting".to_owned()));
    assert!(
        world.message().contains("all shards to have the same schema"),
        "{}",
        world.message()
    );
    it_becomes_ready(&mut world).await;
    world.assert_ready();
}

/// The fake refuses to sweep anything up: of a target that does not answer, nobody may say that it knows of no move.
#[tokio::test]
async fn a_source_or_target_that_cannot_be_reached_is_waited_for_and_the_ring_stays() {
    for away in ["shop-0", "shop-2"] {
        let mut world = half_way_from_2_to_3().await;
        world.databases.with(|state| {
            state.steps_left = None;
            state.silent.insert(away.to_owned());
        });
        until(&mut world, "it is told", |world| {
            reason(world) == "RebalanceWaiting" && world.message().contains(&format!("{away} did not answer"))
        })
        .await;
        let seen = world.ring();
        assert_eq!(
            owners(&seen).into_iter().collect::<BTreeSet<_>>().len(),
            owners(&seen).len()
        );
        world.databases.with(|state| state.silent.clear());
        it_becomes_ready(&mut world).await;
        world.assert_ready();
        assert!(world.databases.is_clean());
    }
}

/// As above, and no ring says any more who has to be asked, or one that somebody put back does not know the target.
#[tokio::test]
async fn a_lost_ring_and_a_target_that_cannot_be_reached_are_waited_for() {
    for is_put_back in [false, true] {
        let mut world = a_cluster_of(2).await;
        let older = world.api.get(RING).unwrap();
        go_half_way_from_2_to_3(&mut world).await;
        world.databases.with(|state| {
            state.steps_left = None;
            state.silent.insert("shop-2".to_owned());
        });
        world.api.remove(RING);
        if is_put_back {
            world.api.put(RING, older.clone());
        }
        world.restart_operator();
        for _ in 0..50 {
            world.reconcile().await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let ring = world.api.get(RING).map(|map| map["data"].clone());
        assert_eq!(
            ring,
            is_put_back.then(|| older["data"].clone()),
            "nobody can tell who owns what"
        );
        world.databases.with(|state| state.silent.clear());
        it_becomes_ready(&mut world).await;
        assert_eq!(owners(&world.ring()), [0, 1, 2]);
        assert!(world.databases.is_clean());
    }
}

#[tokio::test]
async fn a_freeze_that_nobody_ended_does_not_keep_a_new_operator_from_the_truth() {
    let mut world = half_way_from_2_to_3().await;
    // The range that is next is frozen for its move, and the operator is gone.
    world.databases.with(|state| {
        let next = state.shards["shop-2"]
            .rows
            .iter()
            .find(|row| row.state == RangeState::Importing)
            .cloned();
        if let Some(next) = next {
            let source = format!("shop-{}", next.target.unwrap());
            let rows = &mut state.shards.get_mut(&source).unwrap().rows;
            if let Some(row) = rows.iter_mut().find(|row| row.range == next.range) {
                row.state = RangeState::Frozen;
                row.move_id = next.move_id;
                row.target = Some(Ordinal(2));
            }
        }
        state.steps_left = None;
    });
    world.restart_operator();
    world.settle().await;
    world.assert_ready();
    assert!(world.databases.is_clean());
}

#[tokio::test]
async fn draining_every_shard_is_refused_and_nothing_moves() {
    let mut world = a_cluster_of(2).await;
    let before = world.ring();
    world.specify(|spec| {
        spec["shardOverrides"] = json!([{"ordinal": 0, "drain": true}, {"ordinal": 1, "drain": true}]);
    });
    world.settle().await;
    assert_eq!(world.ready(), ("False".to_owned(), "InvalidSpec".to_owned()));
    assert_eq!(world.ring().tokens(), before.tokens());
}

#[tokio::test]
async fn a_move_that_had_to_be_undone_is_not_planned_anew_at_once_but_by_another_specification() {
    let mut world = a_cluster_of(2).await;
    world.databases.with(|state| state.fail_copies = true);
    world.specify(|spec| spec["shards"] = json!(3));
    until(&mut world, "a setback is waited for", |world| {
        let told = world.message();
        told.contains("had to be undone") && world.databases.is_clean()
    })
    .await;
    let begun = world.databases.with(|state| state.moves);
    let error = world.account().last_error.unwrap();
    assert!(error.message.contains("planned anew at 2"), "{error:?}");
    for _ in 0..50 {
        world.reconcile().await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(world.databases.with(|state| state.moves), begun, "nothing is begun");
    world.databases.with(|state| state.fail_copies = false);
    world.specify(|spec| spec["shards"] = json!(4));
    it_becomes_ready(&mut world).await;
    assert_eq!(owners(&world.ring()), [0, 1, 2, 3]);
}

#[tokio::test]
async fn a_batch_that_changed_hands_between_two_looks_does_not_make_the_ring_broken() {
    let mut world = a_cluster_of(2).await;
    let before = world.databases.with(|state| state.shards["shop-0"].clone());
    world.specify(|spec| spec["shards"] = json!(3));
    world.settle().await;
    world.assert_ready();
    let ring = world.ring();
    // The next operator reads shard 0 as it was, and shard 2 as it is: keys seem to have two owners.
    world
        .databases
        .with(|state| state.read_before = Some(("shop-0".to_owned(), before)));
    world.restart_operator();
    world.reconcile().await.unwrap();
    assert!(world.databases.with(|state| state.read_before.is_none()), "it was read");
    world.assert_ready();
    assert_eq!(world.ring(), ring);
}
