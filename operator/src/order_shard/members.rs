//! The members of a shard as Kubernetes and Patroni tell of them.

use std::collections::BTreeMap;

use crds::labels;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::api::{DeleteParams, Preconditions};
use serde::Deserialize;

/// Annotation in which a member publishes its state.
const STATUS_ANNOTATION: &str = "status";
/// Annotation of the operator: digest of the files this pod has loaded.
pub(crate) const LOADED_ANNOTATION: &str = "ringwright.dev/configuration-loaded";
/// Annotation of the operator: digest of the files this pod should load. Any change of a pod makes the kubelet refresh
/// its mounts at once instead of within a minute or two.
pub(crate) const WANTED_ANNOTATION: &str = "ringwright.dev/configuration-wanted";

/// Parameters whose value a standby must not have below its master's; a lower one is taken by the master first.
const MASTER_FIRST_WHEN_LOWERED: [&str; 5] = [
    "max_connections",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "max_wal_senders",
    "max_worker_processes",
];

/// A pod and what its Patroni says.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    /// The pod's name.
    pub name: String,
    pub uid: String,
    pub ip: Option<String>,
    pub ready: bool,
    /// Its deletion has begun.
    pub terminating: bool,
    /// Revision of the StatefulSet's template it was made from.
    pub revision: Option<String>,
    /// The role label, as Patroni last set it.
    pub role: Option<String>,
    /// Digest of the files it has loaded, and of those it was told to load.
    pub loaded: Option<String>,
    pub wanted: Option<String>,
    pub patroni: Option<PatroniStatus>,
    /// Its ServiceAccount was made after it. A token belongs to the account's uid, so Patroni's is refused; the kubelet
    /// would get another one only when the old one is near its end.
    pub token_is_dead: bool,
    /// What Kubernetes says keeps it from running: `Unschedulable`, `ImagePullBackOff`, `CrashLoopBackOff`, ...
    pub trouble: Option<String>,
}

/// A member's own account; absent until Patroni runs.
#[derive(Debug, Clone, Default, Deserialize, PartialEq, Eq, Hash)]
#[serde(default)]
pub(crate) struct PatroniStatus {
    /// `running`, `starting`, `stopped`, `creating replica`, `in archive recovery`, ...
    pub state: String,
    /// `primary`, `replica`, `uninitialized`, ...
    pub role: String,
    pub timeline: Option<i64>,
    /// On a replica the last byte received or replayed, whichever is further.
    pub xlog_location: Option<u64>,
    /// `streaming` on a replica that follows.
    pub replication_state: Option<String>,
    pub pending_restart: bool,
    /// Which parameters a restart would change.
    pub pending_restart_reason: BTreeMap<String, Change>,
}

/// A parameter's value now and after a restart, as text with its unit.
#[derive(Debug, Clone, Default, Deserialize, PartialEq, Eq, Hash)]
#[serde(default)]
pub(crate) struct Change {
    pub old_value: String,
    pub new_value: String,
}

impl Member {
    /// `account_since`: when the shard's ServiceAccount was made, if that is known.
    pub(crate) fn from_pod(pod: &Pod, account_since: Option<&Time>) -> Self {
        let status = pod.status.as_ref();
        let condition = |kind: &str| {
            status
                .and_then(|s| s.conditions.as_ref())
                .is_some_and(|all| all.iter().any(|c| c.type_ == kind && c.status == "True"))
        };
        let annotation = |key: &str| pod.annotations().get(key).cloned();
        Self {
            name: pod.name_any(),
            uid: pod.uid().unwrap_or_default(),
            ip: status.and_then(|s| s.pod_ip.clone()),
            ready: condition("Ready"),
            terminating: pod.metadata.deletion_timestamp.is_some(),
            revision: pod.labels().get("controller-revision-hash").cloned(),
            role: pod.labels().get(labels::ROLE).cloned(),
            loaded: annotation(LOADED_ANNOTATION),
            wanted: annotation(WANTED_ANNOTATION),
            // What cannot be read is as good as absent: Patroni writes it anew within a second.
            patroni: annotation(STATUS_ANNOTATION).and_then(|text| serde_json::from_str(&text).ok()),
            token_is_dead: matches!(
                (account_since, &pod.metadata.creation_timestamp),
                (Some(account), Some(pod)) if account.0 > pod.0
            ),
            trouble: status.and_then(trouble),
        }
    }

    /// Number of the pod within its StatefulSet.
    pub(crate) fn index(&self) -> Option<u32> {
        member_index(&self.name)
    }

    /// Deletes this very pod, and no other that has come under its name since it was looked at.
    pub(crate) fn deletion(&self) -> DeleteParams {
        DeleteParams::default().preconditions(Preconditions {
            uid: Some(self.uid.clone()),
            resource_version: None,
        })
    }

    /// Its container runs and PostgreSQL answers.
    pub(crate) fn is_up(&self) -> bool {
        self.ready && !self.terminating
    }

    /// A replica that receives what its master writes.
    pub(crate) fn is_streaming(&self) -> bool {
        self.is_up()
            && self
                .patroni
                .as_ref()
                .is_some_and(|p| p.role == "replica" && p.replication_state.as_deref() == Some("streaming"))
    }

    pub(crate) fn timeline(&self) -> Option<i64> {
        self.patroni.as_ref().and_then(|p| p.timeline)
    }

    /// How far its log goes, in bytes; `None` while it is not known.
    pub(crate) fn position(&self) -> Option<u64> {
        self.patroni.as_ref()?.xlog_location.filter(|position| *position > 0)
    }

    pub(crate) fn pending_restart(&self) -> bool {
        self.patroni.as_ref().is_some_and(|p| p.pending_restart)
    }

    /// A restart would change something on this member while it is a replica. Lowered limits wait for the master: until
    /// then a restarted standby comes back with the old value and is pending again.
    pub(crate) fn restart_helps_as_replica(&self) -> bool {
        self.patroni
            .as_ref()
            .is_some_and(|p| p.pending_restart && !p.only_lowered_limits())
    }

    /// See [`PatroniStatus::only_lowered_limits`].
    pub(crate) fn lowers_limits(&self) -> bool {
        self.patroni.as_ref().is_some_and(|p| {
            p.pending_restart_reason
                .iter()
                .any(|(name, change)| is_lowered_limit(name, change))
        })
    }
}

/// Which of its shard's members has this name: they are numbered from 0.
pub(crate) fn member_index(name: &str) -> Option<u32> {
    name.rsplit_once('-').and_then(|(_, index)| index.parse().ok())
}

/// Reasons that pass in the ordinary course of a start are no trouble.
fn trouble(status: &PodStatus) -> Option<String> {
    let unscheduled = status
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == "PodScheduled" && c.status == "False")
        .and_then(|c| c.reason.clone());
    let waiting = status
        .container_statuses
        .iter()
        .flatten()
        .find_map(|c| c.state.as_ref()?.waiting.as_ref()?.reason.clone())
        .filter(|reason| !matches!(reason.as_str(), "ContainerCreating" | "PodInitializing"));
    unscheduled.or(waiting)
}

impl PatroniStatus {
    fn only_lowered_limits(&self) -> bool {
        !self.pending_restart_reason.is_empty()
            && self
                .pending_restart_reason
                .iter()
                .all(|(name, change)| is_lowered_limit(name, change))
    }
}

fn is_lowered_limit(name: &str, change: &Change) -> bool {
    let number = |text: &str| text.parse::<i64>().ok();
    MASTER_FIRST_WHEN_LOWERED.contains(&name)
        && matches!((number(&change.old_value), number(&change.new_value)), (Some(old), Some(new)) if new < old)
}

/// What Patroni's ConfigMaps say.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Consensus {
    /// Who holds the lock.
    pub leader: Option<String>,
    /// Who was master when the list of standbys was written.
    pub sync_leader: Option<String>,
    /// Standbys that have every acknowledged commit (under quorum commit: those that vote).
    pub sync_standbys: Vec<String>,
    /// PostgreSQL's system identifier.
    pub system_identifier: Option<String>,
    /// A member was chosen to make the database; its system identifier is not known yet.
    pub starting: bool,
    /// A handover is under way.
    pub switchover_pending: bool,
    /// The timelines that the masters have left, and at which byte of the log.
    pub history: BTreeMap<i64, u64>,
}

impl Consensus {
    /// Reads the annotations of `-leader`, `-sync`, `-config` and `-failover`.
    pub(crate) fn from_annotations(annotations: impl Fn(&str) -> BTreeMap<String, String>) -> Self {
        use super::build::dcs;
        let text = |map: &BTreeMap<String, String>, key: &str| map.get(key).filter(|v| !v.is_empty()).cloned();
        let (leader, sync) = (annotations(dcs::LEADER), annotations(dcs::SYNC));
        let (failover, config) = (annotations(dcs::FAILOVER), annotations(dcs::CONFIG));
        Self {
            leader: text(&leader, "leader"),
            sync_leader: text(&sync, "leader"),
            sync_standbys: text(&sync, "sync_standby")
                .map(|names| names.split(',').map(|name| name.trim().to_owned()).collect())
                .unwrap_or_default(),
            system_identifier: text(&config, dcs::INITIALIZE_ANNOTATION),
            starting: config.get(dcs::INITIALIZE_ANNOTATION).is_some_and(String::is_empty),
            switchover_pending: text(&failover, "leader").is_some() || text(&failover, "member").is_some(),
            history: text(&config, dcs::HISTORY_ANNOTATION).map_or_else(BTreeMap::new, |text| history(&text)),
        }
    }
}

/// Lines of a timeline, where it was left, why, when, and who was master after. What cannot be read proves nothing.
fn history(text: &str) -> BTreeMap<i64, u64> {
    let lines: Vec<Vec<serde_json::Value>> = serde_json::from_str(text).unwrap_or_default();
    lines
        .iter()
        .filter_map(|line| Some((line.first()?.as_i64()?, line.get(1)?.as_u64()?)))
        .collect()
}

/// The member that is master: it holds the lock and says so by its label. The label alone may be a dead node's.
pub(crate) fn master<'a>(members: &'a [Member], consensus: &Consensus) -> Option<&'a Member> {
    let leader = consensus.leader.as_deref()?;
    members
        .iter()
        .find(|m| m.name == leader && m.is_up() && m.role.as_deref() == Some(labels::ROLE_MASTER))
}

#[cfg(test)]
impl Member {
    /// One that is up, of which nothing else is known.
    pub(crate) fn ready(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            uid: String::new(),
            ip: None,
            ready: true,
            terminating: false,
            revision: None,
            role: None,
            loaded: None,
            wanted: None,
            patroni: None,
            token_is_dead: false,
            trouble: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(json: &str) -> PatroniStatus {
        serde_json::from_str(json).expect("a status")
    }

    #[test]
    fn a_member_s_own_account_is_read_as_patroni_writes_it() {
        let parsed = status(
            r#"{"conn_url":"postgres://10.0.0.7:5432/postgres","api_url":"http://10.0.0.7:8008/patroni","state":"running",
                "role":"replica","version":"4.0.7","xlog_location":67109192,"replication_state":"streaming","timeline":3,
                "pending_restart":true,
                "pending_restart_reason":{"max_connections":{"old_value":"200","new_value":"300"}}}"#,
        );
        assert_eq!((parsed.timeline, parsed.xlog_location), (Some(3), Some(67_109_192)));
        assert_eq!(parsed.replication_state.as_deref(), Some("streaming"));
        assert!(parsed.pending_restart && !parsed.only_lowered_limits());
    }

    #[test]
    fn the_history_of_timelines_is_read_as_patroni_writes_it() {
        let text =
            r#"[[1,50331808,"no recovery target specified","2026-01-01T00:00:00+00:00","shop-0-1"],[2,67109192,"x"]]"#;
        assert_eq!(history(text), BTreeMap::from([(1, 50_331_808), (2, 67_109_192)]));
        assert_eq!(history("{}"), BTreeMap::new());
    }

    #[test]
    fn only_lowered_limits_wait_for_the_master() {
        let lowered = r#"{"pending_restart":true,"pending_restart_reason":{"max_connections":{"old_value":"300","new_value":"200"}}}"#;
        assert!(status(lowered).only_lowered_limits());
        let mixed = r#"{"pending_restart":true,"pending_restart_reason":{
            "max_connections":{"old_value":"300","new_value":"200"},
            "shared_buffers":{"old_value":"128MB","new_value":"64MB"}}}"#;
        assert!(!status(mixed).only_lowered_limits());
        // An older Patroni gives no reasons: then a restart is tried.
        assert!(!status(r#"{"pending_restart":true}"#).only_lowered_limits());
    }

    #[test]
    fn a_master_needs_both_the_lock_and_the_label() {
        let member = |name: &str, role: &str| Member {
            role: Some(role.to_owned()),
            ..Member::ready(name)
        };
        let members = [member("shop-0-0", "master"), member("shop-0-1", "replica")];
        let led_by = |name: &str| Consensus {
            leader: Some(name.to_owned()),
            ..Consensus::default()
        };
        assert_eq!(
            master(&members, &led_by("shop-0-0")).map(|m| m.name.as_str()),
            Some("shop-0-0")
        );
        // The lock has moved on, the label of the dead master has not.
        assert!(master(&members, &led_by("shop-0-1")).is_none());
        assert!(master(&members, &Consensus::default()).is_none());
    }
}
