use crds::OrderShardStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};

use super::*;
use crate::{
    conditions::{Reason, Standing},
    order_cluster::{build, fixtures::cluster},
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

fn known(shards: &BTreeMap<u16, OrderShard>) -> Known<'_> {
    Known {
        shards,
        foreign: &[],
        roster: None,
        data_id: "data",
    }
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
    let found = carried_out(&cluster, &plan(&cluster, known(&none)));
    (cluster, found, (0..shards).collect())
}

#[test]
fn a_new_cluster_gets_all_its_shards_at_once() {
    let none = BTreeMap::new();
    let plan = plan(&cluster(3), known(&none));
    assert_eq!(steps(&plan), [(0, Step::Create), (1, Step::Create), (2, Step::Create)]);
    assert_eq!(plan.refusals, []);
    assert_eq!(plan.shards[&2].spec.data_id, "data");
}

#[test]
fn a_cluster_as_it_should_be_is_left_alone() {
    let (cluster, found, roster) = running(3);
    let plan = plan(
        &cluster,
        Known {
            roster: Some(&roster),
            ..known(&found)
        },
    );
    assert_eq!(steps(&plan), [(0, Step::Keep), (1, Step::Keep), (2, Step::Keep)]);
}

#[test]
fn before_keys_are_spread_a_cluster_may_still_grow_but_not_shrink() {
    let (mut cluster, found, _) = running(3);
    cluster.shards = 4;
    let grown = plan(&cluster, known(&found));
    assert_eq!(steps(&grown)[3], (3, Step::Create));
    assert_eq!(grown.refusals, []);

    cluster.shards = 2;
    let shrunk = plan(&cluster, known(&found));
    assert_eq!(steps(&shrunk).len(), 3);
    assert!(matches!(
        shrunk.refusals[..],
        [Refusal::Shards { wanted: 2, have: 3, .. }]
    ));
}

#[test]
fn once_keys_are_spread_another_number_of_shards_is_refused_and_nothing_else_is() {
    let (mut cluster, found, roster) = running(3);
    cluster.shards = 5;
    cluster.postgres.image = Some("other".to_owned());
    let plan = plan(
        &cluster,
        Known {
            roster: Some(&roster),
            ..known(&found)
        },
    );
    assert_eq!(steps(&plan), [(0, Step::Update), (1, Step::Hold), (2, Step::Hold)]);
    assert_eq!(
        plan.refusals[0].to_string(),
        "spec.shards is 5, but the keys are spread over 3 shards (0-2), and moving keys between shards is not \
         supported yet: set spec.shards back to 3"
    );
}

#[test]
fn a_shard_of_the_roster_that_is_gone_is_made_again_not_given_up() {
    let (cluster, mut found, roster) = running(3);
    found.remove(&1);
    let plan = plan(
        &cluster,
        Known {
            roster: Some(&roster),
            ..known(&found)
        },
    );
    assert_eq!(steps(&plan), [(0, Step::Keep), (1, Step::Create), (2, Step::Keep)]);
    assert_eq!(plan.refusals, []);
}

#[test]
fn weights_and_drain_of_running_shards_are_refused_and_the_weight_stands() {
    let (mut cluster, found, roster) = running(2);
    let over = |weight: i32, drain: bool| crds::ShardOverride {
        ordinal: 1,
        weight,
        drain,
        image: None,
    };
    cluster.overrides.insert(1, over(2, true));
    let plan = plan(
        &cluster,
        Known {
            roster: Some(&roster),
            ..known(&found)
        },
    );
    assert_eq!(
        plan.refusals,
        [
            Refusal::Weight {
                ordinal: 1,
                wanted: 2,
                have: 1
            },
            Refusal::Drain { ordinal: 1 }
        ]
    );
    assert_eq!(plan.shards[&1].spec.weight, 1);
    assert_eq!(plan.shards[&1].step, Step::Keep);
}

#[test]
fn a_change_goes_through_ready_shards_a_few_at_a_time() {
    let (mut cluster, mut found, roster) = running(4);
    cluster.postgres.image = Some("other".to_owned());
    cluster.max_unavailable = 2;
    let first = plan(
        &cluster,
        Known {
            roster: Some(&roster),
            ..known(&found)
        },
    );
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
    let next = plan(
        &cluster,
        Known {
            roster: Some(&roster),
            ..known(&found)
        },
    );
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
        let plan = plan(
            &cluster,
            Known {
                roster: Some(&roster),
                ..known(&found)
            },
        );
        let next = u16::try_from(next).unwrap();
        assert_eq!(plan.with_step(Step::Update).collect::<Vec<_>>(), [next]);
        assert_eq!(plan.with_step(Step::Hold).count(), 2 - done);
        let shard = found.get_mut(&next).unwrap();
        shard.spec = plan.shards[&next].spec.clone();
        shard.metadata.generation = Some(2);
        assert!(!shard_is_ready(shard), "it has not even seen the change");
        let meanwhile = super::plan(
            &cluster,
            Known {
                roster: Some(&roster),
                ..known(&found)
            },
        );
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
    let plan = plan(
        &cluster,
        Known {
            roster: Some(&roster),
            ..known(&found)
        },
    );
    assert_eq!(steps(&plan), [(0, Step::Hold), (1, Step::Hold), (2, Step::Update)]);
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
    let alone = plan(
        &cluster,
        Known {
            roster: Some(&roster),
            ..known(&found)
        },
    );
    assert_eq!(alone.with_step(Step::Update).count(), 3);

    cluster.postgres.image = Some("other".to_owned());
    let with_more = plan(
        &cluster,
        Known {
            roster: Some(&roster),
            ..known(&found)
        },
    );
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
            roster: Some(&roster),
            foreign: &foreign,
            ..known(&found)
        },
    );
    assert_eq!(steps(&plan), [(0, Step::AwaitDeletion), (1, Step::Taken)]);
}
