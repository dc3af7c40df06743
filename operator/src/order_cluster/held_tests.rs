//! Rebalances that a person holds or gives up, against an API server and databases in memory.

use crds::RebalancePhase;
use moves::CopyState;
use serde_json::json;

use super::{
    rebalance_tests::{a_cluster_of, annotation, half_way_from_2_to_3, no_step_succeeds_any_more, owners, reason},
    world::CLUSTER,
    *,
};

#[tokio::test]
async fn a_paused_rebalance_begins_nothing_and_goes_on_when_it_is_let() {
    let mut world = a_cluster_of(2).await;
    let before = world.ring();
    world.specify(|spec| {
        spec["shards"] = json!(3);
        spec["rebalance"] = json!({"paused": true});
    });
    world.settle().await;
    assert_eq!(world.ready(), ("False".to_owned(), "RebalancePaused".to_owned()));
    assert_eq!(world.ring().tokens(), before.tokens());
    assert!(world.databases.is_clean());
    world.specify(|spec| spec["rebalance"] = json!({"paused": false}));
    world.settle().await;
    world.assert_ready();
    assert_eq!(owners(&world.ring()), [0, 1, 2]);
}

#[tokio::test]
async fn a_pause_in_the_middle_lets_what_is_copied_come_to_its_end_and_holds_what_is_only_written_down() {
    let mut world = a_cluster_of(2).await;
    // Two moves are written down, and one is copied.
    world.databases.with(|state| state.steps_left = Some(3));
    world.specify(|spec| {
        spec["shards"] = json!(3);
        spec["rebalance"] = json!({"maxParallelMoves": 1});
    });
    no_step_succeeds_any_more(&mut world).await;
    world.specify(|spec| spec["rebalance"]["paused"] = json!(true));
    world.databases.with(|state| state.steps_left = None);
    // It settles: nobody calls anybody again and again for what is held.
    world.settle().await;
    assert_eq!(world.ready(), ("False".to_owned(), "RebalancePaused".to_owned()));
    let account = world.account();
    assert_eq!((account.phase, account.moves_done), (RebalancePhase::Paused, 1));
    let held: Vec<CopyState> = world.databases.with(|state| {
        let copies = state.shards.values().flat_map(|view| &view.copies);
        copies.map(|copy| copy.state).collect()
    });
    assert_eq!(held, [CopyState::Waiting]);
    world.specify(|spec| spec["rebalance"]["paused"] = json!(false));
    world.settle().await;
    world.assert_ready();
    assert_eq!(owners(&world.ring()), [0, 1, 2]);
}

#[tokio::test]
async fn an_abort_undoes_what_has_not_changed_hands_and_holds_until_the_specification_changes() {
    let mut world = half_way_from_2_to_3().await;
    world.api.edit(CLUSTER, |cluster| {
        cluster["metadata"]["annotations"] = json!({labels::ABORT_REBALANCE: "now"});
    });
    world.databases.with(|state| state.steps_left = None);
    world.settle().await;
    assert_eq!(world.ready(), ("False".to_owned(), "RebalanceAborted".to_owned()));
    assert!(annotation(&world, CLUSTER, labels::ABORT_REBALANCE).is_null());
    assert!(world.databases.is_clean());
    let account = world.account();
    assert_eq!(account.phase, RebalancePhase::Aborted);
    assert!(account.aborted_generation.is_some());
    let held = world.ring();
    world.restart_operator();
    world.settle().await;
    assert_eq!(reason(&world), "RebalanceAborted", "another operator holds it too");
    assert_eq!(world.ring().tokens(), held.tokens());

    world.specify(|spec| spec["shards"] = json!(2));
    world.settle().await;
    world.assert_ready();
    assert_eq!(owners(&world.ring()), [0, 1]);
}

#[tokio::test]
async fn a_specification_that_is_put_back_while_it_is_aborted_is_not_what_was_aborted() {
    let mut world = half_way_from_2_to_3().await;
    world.api.edit(CLUSTER, |cluster| {
        cluster["metadata"]["annotations"] = json!({labels::ABORT_REBALANCE: ""});
    });
    world.reconcile().await.unwrap();
    world.specify(|spec| spec["shards"] = json!(2));
    world.databases.with(|state| state.steps_left = None);
    world.settle().await;
    world.assert_ready();
    assert!(annotation(&world, CLUSTER, labels::ABORT_REBALANCE).is_null());
    assert_eq!(owners(&world.ring()), [0, 1], "what had moved is moved back");
}

#[tokio::test]
async fn an_abort_with_nothing_to_abort_is_simply_taken_off() {
    let mut world = a_cluster_of(2).await;
    world.api.edit(CLUSTER, |cluster| {
        cluster["metadata"]["annotations"] = json!({labels::ABORT_REBALANCE: ""});
    });
    world.settle().await;
    world.assert_ready();
    assert!(annotation(&world, CLUSTER, labels::ABORT_REBALANCE).is_null());
    world.specify(|spec| spec["shards"] = json!(3));
    world.settle().await;
    world.assert_ready();
}
