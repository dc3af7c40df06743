//! Whole lives of a cluster, against an API server and shards' books in memory.

use ring::{Epoch, Range, Ring};
use serde_json::{Value, json};

use super::{
    world::{CLUSTER, RING, SYSTEM, World, shard_path},
    *,
};

#[tokio::test]
async fn a_cluster_comes_up_and_a_second_pass_writes_nothing() {
    let mut world = World::new(3);
    world.settle().await;
    world.assert_ready();
    let ring = world.ring();
    assert_eq!(ring.epoch(), Epoch(1));
    let hosts: Vec<&str> = ring
        .shards()
        .iter()
        .flat_map(|shard| &shard.hosts)
        .map(String::as_str)
        .collect();
    assert_eq!(
        hosts[..2],
        ["shop-0-0.shop-0.ns.svc:5432", "shop-0-1.shop-0.ns.svc:5432"]
    );
    assert_eq!(hosts.len(), 6);

    world.reconcile().await.unwrap();
    assert_eq!(world.api.take_writes(), [""; 0]);
    // Not even an operator that knows nothing yet.
    world.restart_operator();
    world.reconcile().await.unwrap();
    assert_eq!(world.api.take_writes(), [""; 0]);
    let events = world.api.events();
    for event in [
        "CredentialsGenerated",
        "ShardCreated",
        "RingFounded",
        "RingPublished",
        "AllShardsReady",
    ] {
        assert!(events.iter().any(|found| found == event), "no {event} in {events:?}");
    }
}

#[tokio::test]
async fn nothing_is_founded_before_every_shard_is_set_up() {
    let world = World::new(2);
    world.reconcile().await.unwrap();
    world.reconcile().await.unwrap();
    assert_eq!(world.ready(), ("False".to_owned(), "CreatingShards".to_owned()));
    world.shards_act();
    world
        .api
        .edit(&shard_path(1), |shard| shard["status"]["initialised"] = json!(false));
    world.reconcile().await.unwrap();
    assert!(world.api.get(RING).is_none());
    assert!(
        world
            .databases
            .with(|state| state.shards.values().all(|view| view.rows.is_empty()))
    );
}

#[tokio::test]
async fn an_operator_killed_at_any_write_is_finished_by_the_next() {
    let mut reference = World::new(3);
    let writes = reference.settle().await.len();
    for killed_after in 0..writes {
        let mut world = World::new(3);
        world.api.fail_after(Some(killed_after));
        // It goes on until the write that it dies at.
        for _ in 0..10 {
            world.shards_act();
            if world.reconcile().await.is_err() {
                break;
            }
        }
        world.api.fail_after(None);
        world.restart_operator();
        world.settle().await;
        world.assert_ready();
        assert_eq!(
            world.ring().tokens(),
            reference.ring().tokens(),
            "killed after {killed_after} writes"
        );
    }
    assert!(writes > 10, "only {writes} writes: this tests nothing");
}

#[tokio::test]
async fn every_child_that_is_deleted_by_hand_comes_back() {
    let mut world = World::new(2);
    world.settle().await;
    let before = world.ring();
    let children: Vec<String> = world.api.paths().into_iter().filter(|path| path != CLUSTER).collect();
    assert_eq!(children.len(), 1 + 5 + 2, "{children:?}");
    for child in &children {
        world.api.remove(child);
        world.restart_operator();
        world.settle().await;
        world.assert_ready();
        assert!(world.api.get(child).is_some(), "{child}");
        assert_eq!(world.ring().tokens(), before.tokens(), "{child}");
    }
    assert!(
        world.ring().epoch() > before.epoch(),
        "a lost ring comes back newer than any before"
    );
    let data_id = |path: &str| world.api.get(path).unwrap()["metadata"]["annotations"][labels::DATA_ID].clone();
    assert_eq!(data_id(SYSTEM), data_id(RING));
    assert_eq!(
        json!(world.api.get(&shard_path(1)).unwrap()["spec"]["dataId"]),
        data_id(RING)
    );
}

#[tokio::test]
async fn all_children_lost_at_once_come_back_with_the_same_keys_and_a_newer_ring() {
    let mut world = World::new(2);
    world.settle().await;
    let before = world.ring();
    for child in world.api.paths().iter().filter(|path| *path != CLUSTER) {
        world.api.remove(child);
    }
    world.restart_operator();
    world.settle().await;
    world.assert_ready();
    assert_eq!(world.ring().tokens(), before.tokens());
    assert!(world.ring().epoch() > before.epoch());
}

#[tokio::test]
async fn edits_by_hand_are_undone() {
    let mut world = World::new(2);
    world.settle().await;
    world.api.edit(&shard_path(0), |shard| {
        shard["spec"]["postgres"]["instances"] = json!(5);
        shard["metadata"]["labels"] = json!({});
        shard["metadata"]["ownerReferences"] = Value::Null;
    });
    world.settle().await;
    let shard = world.api.get(&shard_path(0)).unwrap();
    assert_eq!(shard["spec"]["postgres"]["instances"], 2);
    assert_eq!(shard["metadata"]["labels"][labels::CLUSTER], "shop");
    assert_eq!(shard["metadata"]["ownerReferences"][0]["name"], "shop");
}

#[tokio::test]
async fn a_damaged_ring_is_told_of_and_published_anew() {
    let mut world = World::new(2);
    world.settle().await;
    let before = world.ring();
    world
        .api
        .edit(RING, |map| map["data"]["digest"] = json!("0".repeat(64)));
    world.restart_operator();
    world.settle().await;
    world.assert_ready();
    assert_eq!(world.ring().tokens(), before.tokens());
    assert_eq!(world.ring().epoch(), before.epoch().next());
    assert!(world.api.events().iter().any(|event| event == "RingDamaged"));
}

#[tokio::test]
async fn a_well_formed_ring_that_the_shards_do_not_agree_with_is_replaced() {
    let mut world = World::new(2);
    world.settle().await;
    let before = world.ring();
    let all_to_0 = ring::Tokens::from_ranges([(Range::ALL, ring::Ordinal(0))]).unwrap();
    let forged = Ring::new(Epoch(9), before.shards().to_vec(), all_to_0).unwrap();
    let map: ConfigMap = serde_json::from_value(world.api.get(RING).unwrap()).unwrap();
    let forged = build::ring_config_map(map.metadata.clone(), Some(&map), &forged);
    world.api.put(RING, serde_json::to_value(forged).unwrap());
    world.restart_operator();
    world.settle().await;
    assert_eq!(world.ring().tokens(), before.tokens());
    assert_eq!(world.ring().epoch(), Epoch(10));
}

#[tokio::test]
async fn rings_keep_their_distance() {
    // Longer than a slow machine takes from the first ring to the look below.
    let distance = Duration::from_secs(5);
    let mut world = World::publishing_every(1, distance);
    world.settle().await;
    world.api.remove(RING);
    world.reconcile().await.unwrap();
    assert!(world.api.get(RING).is_none());
    assert_eq!(world.ready(), ("False".to_owned(), "WaitingForRing".to_owned()));
    tokio::time::sleep(distance).await;
    world.settle().await;
    world.assert_ready();
}

#[tokio::test]
async fn more_members_are_published_without_asking_the_databases_again() {
    let mut world = World::new(1);
    world.settle().await;
    world
        .api
        .edit(CLUSTER, |cluster| cluster["spec"]["postgres"]["instances"] = json!(3));
    world.restart_operator();
    world.settle().await;
    assert_eq!(world.ring().shards()[0].hosts.len(), 3);
    assert_eq!(world.ring().epoch(), Epoch(2));
}

#[tokio::test]
async fn a_master_that_shall_go_is_listed_until_it_has_handed_over() {
    let mut world = World::new(1);
    let ask_for = |world: &World, instances: i32| {
        world.specify(|spec| spec["postgres"]["instances"] = json!(instances));
    };
    ask_for(&world, 3);
    world.settle().await;
    world
        .api
        .edit(&shard_path(0), |shard| shard["status"]["master"] = json!("shop-0-2"));
    ask_for(&world, 2);
    for _ in 0..5 {
        world.reconcile().await.unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    assert_eq!(
        world.api.get(&shard_path(0)).unwrap()["spec"]["postgres"]["instances"],
        2
    );
    assert_eq!(world.ring().shards()[0].hosts.len(), 3);
    world.settle().await;
    assert_eq!(world.ring().shards()[0].hosts.len(), 2);
}

#[tokio::test]
async fn a_shard_that_lost_its_volume_is_never_given_keys_again_behind_everybodys_back() {
    let mut world = World::new(2);
    world.settle().await;
    let before = world.api.get(RING);
    world.databases.with(|state| state.shards.remove("shop-1"));
    world.restart_operator();
    world.settle().await;
    assert_eq!(world.ready(), ("False".to_owned(), "RingInconsistent".to_owned()));
    assert_eq!(world.api.get(RING), before, "what was published stays");
    assert!(world.databases.with(|state| state.shards["shop-1"].rows.is_empty()));
}

#[tokio::test]
async fn a_retained_cluster_created_again_adopts_credentials_data_and_ring() {
    let mut world = World::new(2);
    world.settle().await;
    let (ring, password) = (world.ring(), world.password("shop-app", "password"));
    let data_id = world.api.get(&shard_path(0)).unwrap()["spec"]["dataId"].clone();
    world.api.delete(CLUSTER);
    world.settle().await;
    let left = world.api.paths();
    assert_eq!(left.len(), 1 + 5, "ring and Secrets: {left:?}");

    world.restart_operator();
    world.create_cluster(2, "Retain");
    world.settle().await;
    world.assert_ready();
    assert_eq!(world.password("shop-app", "password"), password);
    assert_eq!(world.api.get(&shard_path(0)).unwrap()["spec"]["dataId"], data_id);
    assert_eq!(world.ring(), ring);
}

#[tokio::test]
async fn a_ring_lost_between_two_lives_of_a_cluster_comes_back_newer() {
    let mut world = World::new(2);
    world.settle().await;
    let ring = world.ring();
    world.api.delete(CLUSTER);
    world.settle().await;
    world.api.remove(RING);
    world.restart_operator();
    world.create_cluster(2, "Retain");
    world.settle().await;
    world.assert_ready();
    assert_eq!(world.ring().tokens(), ring.tokens());
    assert!(world.ring().epoch() > ring.epoch());
}

#[tokio::test]
async fn deleting_with_policy_delete_leaves_nothing_and_tells_the_shards() {
    let mut world = World::new(2);
    world.settle().await;
    world
        .api
        .edit(CLUSTER, |cluster| cluster["spec"]["deletionPolicy"] = json!("Delete"));
    // The shards have work of their own to do first.
    world.api.edit(&shard_path(0), |shard| {
        shard["metadata"]["finalizers"] = json!([labels::SHARD_FINALIZER])
    });
    world.api.delete(CLUSTER);
    let again = world.reconcile().await.unwrap();
    assert_ne!(again, Action::await_change(), "a watch may miss the end of a shard");
    let shard = world.api.get(&shard_path(0)).unwrap();
    assert_eq!(shard["spec"]["deletionPolicy"], "Delete");
    assert!(
        world.api.get(SYSTEM).is_some(),
        "its passwords are needed as long as the shard runs"
    );
    assert_eq!(world.ready(), ("False".to_owned(), "Deleting".to_owned()));

    world.api.remove(&shard_path(0));
    world.settle().await;
    assert_eq!(world.api.paths(), [""; 0]);
}

#[tokio::test]
async fn a_stranger_that_calls_itself_a_shard_is_told_of_and_ignored() {
    let mut world = World::new(1);
    world.settle().await;
    let mut stranger = world.api.get(&shard_path(0)).unwrap();
    stranger["metadata"] = json!({"name": "shop-7", "namespace": "ns"});
    stranger["spec"]["ordinal"] = json!(7);
    stranger["status"] = Value::Null;
    world.api.put(&shard_path(7), stranger);
    world.settle().await;
    world.assert_ready();
    assert_eq!(world.ring().shards().len(), 1);
    assert!(world.api.events().iter().any(|event| event == "ForeignShard"));
}

#[tokio::test]
async fn a_specification_that_makes_no_sense_is_refused_and_nothing_is_touched() {
    let mut world = World::new(1);
    world.settle().await;
    let before: Vec<_> = world
        .api
        .paths()
        .iter()
        .filter(|p| *p != CLUSTER)
        .map(|p| world.api.get(p))
        .collect();
    world.api.edit(CLUSTER, |cluster| cluster["spec"]["shards"] = json!(0));
    world.settle().await;
    assert_eq!(world.ready(), ("False".to_owned(), "InvalidSpec".to_owned()));
    let after: Vec<_> = world
        .api
        .paths()
        .iter()
        .filter(|p| *p != CLUSTER)
        .map(|p| world.api.get(p))
        .collect();
    assert_eq!(before, after);
}
