//! The StatefulSet of a shard.

use k8s_openapi::api::apps::v1::{
    StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec, StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::labels::{self, component};
use super::pod;
use crate::order_shard::shard::Shard;

/// `replicas` is what should run now, which stays above the specification while a member that is to go is master.
pub(super) fn stateful_set(shard: &Shard, replicas: u32) -> StatefulSet {
    StatefulSet {
        metadata: labels::owned(shard, shard.name.clone(), component::SHARD),
        spec: Some(StatefulSetSpec {
            service_name: Some(shard.name.clone()),
            replicas: Some(i32::try_from(replicas).unwrap_or(i32::MAX)),
            selector: labels::label_selector(labels::selector(shard)),
            // Which member may start first is Patroni's decision: it knows who has the data.
            pod_management_policy: Some("Parallel".to_owned()),
            // The operator deletes outdated pods itself: replicas first, then a switchover, then the old master. The
            // StatefulSet's own order goes by number and would hit the master at any point.
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("OnDelete".to_owned()),
                rolling_update: None,
            }),
            // Never `Delete`: somebody who deletes the set or scales it by hand must not lose the data. The operator
            // removes volumes itself: a surplus one's when the others are well, all when the shard goes and its policy
            // says so.
            persistent_volume_claim_retention_policy: Some(StatefulSetPersistentVolumeClaimRetentionPolicy {
                when_deleted: Some("Retain".to_owned()),
                when_scaled: Some("Retain".to_owned()),
            }),
            revision_history_limit: Some(3),
            template: pod::template(shard),
            volume_claim_templates: Some(vec![volume_claim(shard)]),
            ..StatefulSetSpec::default()
        }),
        status: None,
    }
}

fn volume_claim(shard: &Shard) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some("data".to_owned()),
            labels: Some(labels::of(shard, component::SHARD)),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: shard.storage.class.clone(),
            volume_mode: Some("Filesystem".to_owned()),
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), shard.storage.size.clone())].into()),
                limits: None,
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}
