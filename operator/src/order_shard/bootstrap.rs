//! The first start of a shard that nobody carries out.
//!
//! The member that is to make the database first writes an empty system identifier, which keeps the others from doing
//! the same. If the API server takes that write but its answer comes too late, the member does not know that it was
//! chosen, and all of them wait for each other for ever. Patroni has no way out of that; the operator has, because it
//! sees that nobody works on it.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::build::dcs::INITIALIZE_ANNOTATION;
use super::members::{Consensus, Member};

/// How long everybody must have waited. A member that was chosen says so within a second (`initializing new cluster`), or
/// within twice Patroni's timeout for the API server (5 s) if that is slow.
const PATIENCE: Duration = Duration::from_secs(15);

/// Since when all members wait for a first start that none of them makes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct StartWatch(Option<Instant>);

impl StartWatch {
    /// Takes in what is seen now; true when the claim of the first start is to be taken back.
    pub(crate) fn look(&mut self, instances: u32, consensus: &Consensus, members: &[Member], now: Instant) -> bool {
        let nobody_starts = consensus.starting
            && consensus.leader.is_none()
            && members.len() >= instances as usize
            && members.iter().all(waits_without_data);
        if !nobody_starts {
            self.0 = None;
            return false;
        }
        let since = *self.0.get_or_insert(now);
        now.duration_since(since) >= PATIENCE
    }
}

/// Its volume is empty and it does nothing about that. A member that makes a database, copies one, or has one says so.
fn waits_without_data(member: &Member) -> bool {
    member
        .patroni
        .as_ref()
        .is_some_and(|p| p.role == "uninitialized" && p.state == "stopped")
}

/// The claim could not be taken back.
#[derive(Debug, thiserror::Error)]
#[error("could not take back the claim of a first start from ConfigMap {config_map}")]
pub(crate) struct TakeBackError {
    config_map: String,
    #[source]
    source: kube::Error,
}

/// Takes the claim back if it is still there and still empty. False if it has changed meanwhile.
pub(crate) async fn take_back(api: &Api<ConfigMap>, config_map: &str) -> Result<bool, TakeBackError> {
    let failed = |source: kube::Error| TakeBackError {
        config_map: config_map.to_owned(),
        source,
    };
    let found = api.get(config_map).await.map_err(failed)?;
    if found.annotations().get(INITIALIZE_ANNOTATION).map(String::as_str) != Some("") {
        return Ok(false);
    }
    match api
        .patch(config_map, &PatchParams::default(), &Patch::Merge(removal(&found)))
        .await
    {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        other => other.map(|_| true).map_err(failed),
    }
}

/// The version makes sure that only the object that was looked at changes.
fn removal(found: &ConfigMap) -> Value {
    json!({"metadata": {
        "resourceVersion": found.resource_version(),
        "annotations": {INITIALIZE_ANNOTATION: null},
    }})
}

#[cfg(test)]
mod tests {
    use super::super::members::PatroniStatus;
    use super::*;

    fn member(index: u32, state: &str, role: &str) -> Member {
        Member {
            ready: false,
            patroni: Some(PatroniStatus {
                state: state.to_owned(),
                role: role.to_owned(),
                ..PatroniStatus::default()
            }),
            ..Member::ready(&format!("shop-0-{index}"))
        }
    }

    fn waiting() -> [Member; 2] {
        [0, 1].map(|index| member(index, "stopped", "uninitialized"))
    }

    fn claimed() -> Consensus {
        Consensus {
            starting: true,
            ..Consensus::default()
        }
    }

    /// What is said after everything has stayed the same for `PATIENCE`.
    fn after_patience(consensus: &Consensus, members: &[Member]) -> bool {
        let (mut watch, start) = (StartWatch::default(), Instant::now());
        let at_once = watch.look(2, consensus, members, start);
        assert!(!at_once, "nothing is taken back at first sight");
        watch.look(2, consensus, members, start + PATIENCE)
    }

    #[test]
    fn a_first_start_that_nobody_makes_is_taken_back_after_a_while() {
        assert!(after_patience(&claimed(), &waiting()));
    }

    #[test]
    fn nothing_is_taken_back_while_somebody_works_or_may() {
        let [one, two] = waiting();
        let works = member(1, "initializing new cluster", "uninitialized");
        assert!(!after_patience(&claimed(), &[one.clone(), works]));
        let has_data = member(1, "stopped", "replica");
        assert!(!after_patience(&claimed(), &[one.clone(), has_data]));
        let silent = Member {
            patroni: None,
            ..two.clone()
        };
        assert!(!after_patience(&claimed(), &[one.clone(), silent]));
        // A member that is not seen may be the one.
        assert!(!after_patience(&claimed(), std::slice::from_ref(&one)));
        assert!(!after_patience(&Consensus::default(), &[one.clone(), two.clone()]));
        let led = Consensus {
            leader: Some("shop-0-0".to_owned()),
            ..claimed()
        };
        assert!(!after_patience(&led, &[one, two]));
    }

    #[test]
    fn the_wait_begins_anew_when_somebody_was_seen_working() {
        let (mut watch, start) = (StartWatch::default(), Instant::now());
        let works = [
            member(0, "initializing new cluster", "uninitialized"),
            waiting()[1].clone(),
        ];
        assert!(!watch.look(2, &claimed(), &waiting(), start));
        assert!(!watch.look(2, &claimed(), &works, start + PATIENCE / 2));
        assert!(!watch.look(2, &claimed(), &waiting(), start + PATIENCE));
        assert!(watch.look(2, &claimed(), &waiting(), start + PATIENCE * 2));
    }

    #[test]
    fn only_the_version_that_was_looked_at_is_changed() {
        let found: ConfigMap = serde_json::from_value(json!({
            "metadata": {"name": "shop-0-config", "resourceVersion": "42", "annotations": {"initialize": ""}}
        }))
        .expect("a ConfigMap");
        assert_eq!(
            removal(&found),
            json!({"metadata": {"resourceVersion": "42", "annotations": {"initialize": null}}})
        );
    }
}
