use ring::{Epoch, Ordinal, Range, Shard, Tokens};

use super::*;
use crate::order_cluster::fixtures::{cluster, known};

fn record() -> Record {
    Record {
        data_id: "data".to_owned(),
        epoch: Some(Epoch(7)),
        roster: Some("0-2".parse().unwrap()),
        highest: Some(4),
    }
}

fn numbered() -> impl FnMut() -> String {
    let mut next = 0;
    move || {
        next += 1;
        format!("password-{next}")
    }
}

fn a_ring(epoch: u64) -> Ring {
    let shard = Shard {
        name: "shop-0".to_owned(),
        ordinal: Ordinal(0),
        state: ring::ShardState::Active,
        hosts: vec![names::member_host("ns", "shop-0", 0)],
    };
    Ring::new(
        Epoch(epoch),
        vec![shard],
        Tokens::from_ranges([(Range::ALL, Ordinal(0))]).unwrap(),
    )
    .unwrap()
}

#[test]
fn a_shard_says_what_it_is_and_whose() {
    let cluster = cluster(3);
    let plan = super::super::plan::plan(&cluster, known(&BTreeMap::new(), None));
    let mut spec = plan.shards[&2].spec.clone();
    // It changes with every change of the pods.
    spec.template_revision = Some("revision".to_owned());
    insta::assert_yaml_snapshot!(shard(&cluster, 2, &spec));
}

#[test]
fn secrets_have_the_roles_names_new_passwords_and_what_must_not_be_forgotten() {
    let secrets = secrets(&cluster(3), &BTreeMap::new(), &record(), numbered());
    let names: Vec<_> = secrets
        .iter()
        .map(|secret| secret.metadata.name.clone().unwrap())
        .collect();
    assert_eq!(names, secret_names("shop"));
    insta::assert_yaml_snapshot!(secrets);
}

#[test]
fn passwords_that_are_there_stay_and_only_those_missing_are_new() {
    let cluster = cluster(3);
    let mut found: BTreeMap<String, Secret> = secrets(&cluster, &BTreeMap::new(), &record(), numbered())
        .into_iter()
        .map(|secret| (secret.metadata.name.clone().unwrap(), secret))
        .collect();
    let before = found.clone();
    let system = found.get_mut("shop-postgres").unwrap().data.as_mut().unwrap();
    system.remove("rewind-password");
    system.insert("patroni-password".to_owned(), ByteString(Vec::new()));
    found.remove("shop-mover");

    let again = secrets(&cluster, &found, &record(), || "new".to_owned());
    for secret in again {
        let name = secret.metadata.name.clone().unwrap();
        for (key, value) in secret.data.unwrap() {
            let old = &before[&name].data.as_ref().unwrap()[&key];
            let is_new = matches!(
                (name.as_str(), key.as_str()),
                ("shop-postgres", "rewind-password" | "patroni-password") | ("shop-mover", "password")
            );
            assert_eq!(value.0 == b"new", is_new, "{name} {key}");
            assert!(is_new || value == *old, "{name} {key}");
        }
    }
}

#[test]
fn a_ring_comes_out_of_its_config_map_as_it_went_in() {
    let ring = a_ring(5);
    let map = ring_config_map(ring_metadata(&cluster(1), &record()), None, &ring);
    assert_eq!(ring::decode(&encoded_ring(&map)).unwrap(), ring);
    assert!(map.metadata.owner_references.is_none(), "it outlives the cluster");
}

#[test]
fn a_new_ring_takes_the_place_of_exactly_the_one_read_and_keeps_what_others_wrote_beside_it() {
    let metadata = ring_metadata(&cluster(1), &record());
    let mut live = ring_config_map(metadata.clone(), None, &a_ring(5));
    live.metadata.resource_version = Some("41".to_owned());
    live.metadata
        .labels
        .as_mut()
        .unwrap()
        .insert("team".to_owned(), "payments".to_owned());
    live.data.as_mut().unwrap().insert("stray".to_owned(), "x".to_owned());
    let next = ring_config_map(metadata, Some(&live), &a_ring(6));
    assert_eq!(next.metadata.resource_version.as_deref(), Some("41"));
    assert_eq!(next.metadata.labels.as_ref().unwrap()["team"], "payments");
    assert_eq!(next.data.unwrap().len(), 2);
}

#[test]
fn an_empty_config_map_is_refused_not_believed() {
    assert!(ring::decode(&encoded_ring(&ConfigMap::default())).is_err());
}

#[test]
fn every_derived_name_stays_valid_for_the_longest_cluster_and_ordinal() {
    let cluster = "a".repeat(crds::MAX_CLUSTER_NAME);
    let shard = names::shard(&cluster, u16::MAX);
    // A StatefulSet's name, with which Kubernetes makes a label of 11 characters more.
    assert!(shard.len() + 11 <= 63);
    // A pod's, which is also a host name.
    assert!(format!("{shard}-4").len() <= 63);
    assert!(names::ring(&cluster).len() <= 63 && names::system_secret(&cluster).len() <= 63);
}
