use crds::OrderShardStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};

use super::*;
use crate::{
    conditions::{Reason, Standing},
    order_cluster::{
        build,
        fixtures::{cluster, known},
    },
};

#[derive(Clone, Copy)]
struct Because;

impl Reason for Because {
    fn as_str(self) -> &'static str {
        "Because"
    }
}

/// The shards a cluster has after its plan was carried out, all ready.
fn carried_out(cluster: &Cluster, plan: &Plan) -> BTreeMap<u16, OrderShard> {
    plan.shards
        .iter()
        .map(|(ordinal, planned)| {
            let mut shard = build::shard(cluster, *ordinal, &planned.spec);
            shard.metadata.generation = Some(1);
            set_ready(&mut shard, true);
            (*ordinal, shard)
        })
        .collect()
}

fn set_ready(shard: &mut OrderShard, ready: bool) {
    let standing = if ready {
        Standing::ready(Because, "")
    } else {
        Standing::reconciling(Because, "")
    };
    shard.status = Some(OrderShardStatus {
        observed_generation: shard.metadata.generation,
        conditions: standing.conditions(&[], shard.metadata.generation),
        ..OrderShardStatus::default()
    });
}

fn steps(plan: &Plan) -> Vec<(u16, Step)> {
    plan.shards
        .iter()
        .map(|(ordinal, shard)| (*ordinal, shard.step))
        .collect()
}

fn running(shards: u16) -> (Cluster, BTreeMap<u16, OrderShard>, Roster) {
    let cluster = cluster(shards);
    let none = BTreeMap::new();
    let found = carried_out(&cluster, &plan(&cluster, known(&none, None)));
    (cluster, found, (0..shards).collect())
}

#[test]
fn a_new_cluster_gets_all_its_shards_at_once() {
    let none = BTreeMap::new();
    let plan = plan(&cluster(3), known(&none, None));
    assert_eq!(steps(&plan), [(0, Step::Create), (1, Step::Create), (2, Step::Create)]);
    assert_eq!(plan.refusals, []);
    assert_eq!(plan.shards[&2].spec.data_id, "data");
}

#[test]
fn a_cluster_as_it_should_be_is_left_alone() {
    let (cluster, found, roster) = running(3);
    let plan = plan(&cluster, known(&found, Some(&roster)));
    assert_eq!(steps(&plan), [(0, Step::Keep), (1, Step::Keep), (2, Step::Keep)]);
}

#[test]
fn before_keys_are_spread_a_cluster_may_still_grow_and_nothing_that_exists_is_dropped() {
    let (mut cluster, found, _) = running(3);
    cluster.shards = 4;
    assert_eq!(steps(&plan(&cluster, known(&found, None)))[3], (3, Step::Create));

    cluster.shards = 2;
    let shrunk = plan(&cluster, known(&found, None));
    assert_eq!(steps(&shrunk).len(), 3);
    assert!(shrunk.leaving().is_empty());
}

#[test]
fn more_shards_are_made_at_once_and_a_change_of_their_postgres_waits_for_them() {
    let (mut cluster, found, roster) = running(3);
    cluster.shards = 5;
    cluster.postgres.image = Some("other".to_owned());
    let plan = plan(&cluster, known(&found, Some(&roster)));
    assert_eq!(
        steps(&plan),
        [
            (0, Step::Hold),
            (1, Step::Hold),
            (2, Step::Hold),
            (3, Step::Create),
            (4, Step::Create)
        ]
    );
    assert_eq!(plan.refusals, []);
    assert_eq!(plan.owners.len(), 5);
    assert_eq!(plan.highest, Some(4));
}

#[test]
fn fewer_shards_let_the_highest_leave_and_take_it_back_with_the_number() {
    let (mut cluster, mut found, roster) = running(3);
    cluster.shards = 2;
    let smaller = plan(&cluster, known(&found, Some(&roster)));
    assert_eq!(steps(&smaller), [(0, Step::Keep), (1, Step::Keep), (2, Step::Update)]);
    assert_eq!(smaller.shards[&2].spec.state, ShardState::Leaving);
    assert_eq!(smaller.owners.keys().map(|o| o.get()).collect::<Vec<_>>(), [0, 1]);

    found.get_mut(&2).unwrap().spec = smaller.shards[&2].spec.clone();
    cluster.shards = 3;
    let again = plan(&cluster, known(&found, Some(&roster)));
    assert_eq!(again.shards[&2].spec.state, ShardState::Active);
    assert_eq!(again.owners.len(), 3);
}

#[test]
fn a_shard_struck_off_the_roster_departs_whatever_the_specification_says_now() {
    let (mut cluster, mut found, roster) = running(3);
    cluster.shards = 2;
    let empty = BTreeSet::from([2]);
    let leaving = plan(&cluster, known(&found, Some(&roster)));
    found.get_mut(&2).unwrap().spec = leaving.shards[&2].spec.clone();
    let struck = plan(
        &cluster,
        Known {
            empty: &empty,
            ..known(&found, Some(&roster))
        },
    );
    assert_eq!(struck.departing, empty);
    assert_eq!(struck.roster().to_string(), "0-1");

    cluster.shards = 3;
    let roster = struck.roster();
    let grown = plan(
        &cluster,
        Known {
            highest: Some(2),
            ..known(&found, Some(&roster))
        },
    );
    assert_eq!(grown.departing, empty);
    assert_eq!(grown.roster().to_string(), "0-1,3");
}

#[test]
fn a_shard_that_was_left_out_of_the_roster_by_an_accident_is_taken_in_again() {
    let (cluster, found, _) = running(3);
    let roster: Roster = "0-1".parse().unwrap();
    let plan = plan(&cluster, known(&found, Some(&roster)));
    assert_eq!(plan.roster().to_string(), "0-2");
    assert!(plan.departing.is_empty());
}

#[test]
fn a_shard_of_the_roster_that_is_gone_is_made_again_not_given_up() {
    let (cluster, mut found, roster) = running(3);
    found.remove(&1);
    let plan = plan(&cluster, known(&found, Some(&roster)));
    assert_eq!(steps(&plan), [(0, Step::Keep), (1, Step::Create), (2, Step::Keep)]);
    assert_eq!(plan.refusals, []);
}

#[test]
fn weights_and_drain_of_running_shards_are_taken_over_once_a_ring_is_published() {
    let (mut cluster, found, roster) = running(3);
    let over = |ordinal: u16, weight: i32, drain: bool| crds::ShardOverride {
        ordinal: ordinal.into(),
        weight,
        drain,
        image: None,
    };
    cluster.overrides.insert(1, over(1, 2, false));
    cluster.overrides.insert(2, over(2, 1, true));
    let before = plan(
        &cluster,
        Known {
            published: false,
            ..known(&found, Some(&roster))
        },
    );
    assert_eq!(before.shards[&1].spec.weight, 1, "the first ring is planned from it");
    assert_eq!(before.owners.len(), 3);

    let after = plan(&cluster, known(&found, Some(&roster)));
    assert_eq!(after.shards[&1].spec.weight, 2);
    assert_eq!(after.shards[&1].step, Step::Update);
    let owners: Vec<_> = after.owners.iter().map(|(o, w)| (o.get(), w.get())).collect();
    assert_eq!(owners, [(0, 1), (1, 2)]);
    assert_eq!(after.shards[&2].spec.state, ShardState::Active, "drained, it stays");

    cluster.overrides.insert(0, over(0, 1, true));
    cluster.overrides.insert(1, over(1, 1, true));
    let nobody = plan(&cluster, known(&found, Some(&roster)));
    assert_eq!(nobody.refusals, [Refusal::NobodyOwns]);
}

#[test]
fn a_change_goes_through_ready_shards_a_few_at_a_time() {
    let (mut cluster, mut found, roster) = running(4);
    cluster.postgres.image = Some("other".to_owned());
    cluster.max_unavailable = 2;
    let first = plan(&cluster, known(&found, Some(&roster)));
    assert_eq!(first.with_step(Step::Update).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(first.with_step(Step::Hold).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(
        first.shards[&3].spec, found[&3].spec,
        "a shard on hold is given what it has"
    );

    // Shard 0 has the change and is not through with it; shard 1 is.
    for ordinal in [0, 1] {
        found.get_mut(&ordinal).unwrap().spec = first.shards[&ordinal].spec.clone();
    }
    set_ready(found.get_mut(&0).unwrap(), false);
    let next = plan(&cluster, known(&found, Some(&roster)));
    assert_eq!(
        steps(&next),
        [(0, Step::Keep), (1, Step::Keep), (2, Step::Update), (3, Step::Hold)]
    );
}

#[test]
fn the_pod_template_of_a_newer_operator_goes_through_the_shards_as_any_change_does() {
    let (cluster, mut found, roster) = running(3);
    for shard in found.values_mut() {
        shard.spec.template_revision = Some("of the operator before".to_owned());
    }
    let mut done = 0;
    // Each look is another operator's, for all it knows is in the resources.
    while let Some(next) = found
        .values()
        .position(|shard| shard.spec.template_revision.as_deref() != Some(template_revision()))
    {
        let plan = plan(&cluster, known(&found, Some(&roster)));
        let next = u16::try_from(next).unwrap();
        assert_eq!(plan.with_step(Step::Update).collect::<Vec<_>>(), [next]);
        assert_eq!(plan.with_step(Step::Hold).count(), 2 - done);
        // All are written, also those on hold.
        for (ordinal, shard) in &mut found {
            shard.spec = plan.shards[ordinal].spec.clone();
        }
        let shard = found.get_mut(&next).unwrap();
        shard.metadata.generation = Some(2);
        assert!(!shard_is_ready(shard), "it has not even seen the change");
        let meanwhile = super::plan(&cluster, known(&found, Some(&roster)));
        assert_eq!(meanwhile.with_step(Step::Update).count(), 0);
        set_ready(found.get_mut(&next).unwrap(), true);
        done += 1;
    }
    assert_eq!(done, 3);
}

#[test]
fn a_shard_that_is_unready_already_gets_the_change_first_and_counts() {
    let (mut cluster, mut found, roster) = running(3);
    set_ready(found.get_mut(&2).unwrap(), false);
    cluster.postgres.image = Some("mended".to_owned());
    let plan = plan(&cluster, known(&found, Some(&roster)));
    assert_eq!(steps(&plan), [(0, Step::Hold), (1, Step::Hold), (2, Step::Update)]);
}

#[test]
fn shards_that_serve_while_their_schema_is_on_its_way_get_a_change_one_after_the_other() {
    let (mut cluster, mut found, roster) = running(3);
    let migrating = |shard: &mut OrderShard| {
        set_ready(shard, false);
        let status = shard.status.as_mut().unwrap();
        status.initialised = true;
        status.conditions[0].reason = "PreparingDatabase".to_owned();
    };
    found.values_mut().for_each(migrating);
    cluster.postgres.image = Some("of the operator's new version".to_owned());
    let all = plan(&cluster, known(&found, Some(&roster)));
    assert_eq!(steps(&all), [(0, Step::Hold), (1, Step::Hold), (2, Step::Hold)]);

    for ordinal in [0, 2] {
        set_ready(found.get_mut(&ordinal).unwrap(), true);
    }
    let one = plan(&cluster, known(&found, Some(&roster)));
    assert_eq!(steps(&one), [(0, Step::Hold), (1, Step::Update), (2, Step::Hold)]);
}

#[test]
fn a_shard_that_has_not_seen_its_newest_specification_is_not_ready() {
    let (_, mut found, _) = running(1);
    let shard = found.get_mut(&0).unwrap();
    assert!(shard_is_ready(shard));
    shard.metadata.generation = Some(2);
    assert!(!shard_is_ready(shard));
}

#[test]
fn a_new_deletion_policy_reaches_every_shard_at_once() {
    let (mut cluster, found, roster) = running(3);
    cluster.deletion_policy = crds::DeletionPolicy::Delete;
    let alone = plan(&cluster, known(&found, Some(&roster)));
    assert_eq!(alone.with_step(Step::Update).count(), 3);

    cluster.postgres.image = Some("other".to_owned());
    let with_more = plan(&cluster, known(&found, Some(&roster)));
    for shard in with_more.shards.values() {
        assert_eq!(shard.spec.deletion_policy, crds::DeletionPolicy::Delete);
    }
    assert_eq!(with_more.with_step(Step::Hold).count(), 2);
}

#[test]
fn a_shard_being_deleted_is_awaited_and_a_name_that_is_taken_is_not_overwritten() {
    let (cluster, mut found, roster) = running(2);
    found.get_mut(&0).unwrap().metadata.deletion_timestamp = Some(Time::from(k8s_openapi::jiff::Timestamp::UNIX_EPOCH));
    let mut stranger = found.remove(&1).unwrap();
    stranger.metadata.owner_references = Some(vec![OwnerReference {
        uid: "another".to_owned(),
        controller: Some(true),
        ..OwnerReference::default()
    }]);
    let foreign = [stranger];
    let plan = plan(
        &cluster,
        Known {
            foreign: &foreign,
            ..known(&found, Some(&roster))
        },
    );
    assert_eq!(steps(&plan), [(0, Step::AwaitDeletion), (1, Step::Taken)]);
}
