//! Conditions by the rules of kstatus: Ready, Reconciling, Stalled.
//!
//! * `Ready` is true only when what the specification asks is so.
//! * `Reconciling` is true while the operator works towards it, or waits for something that comes by itself.
//! * `Stalled` is true when it does not come by itself: somebody has to act, and the message says how.

use std::fmt::Debug;

use crds::labels;
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use kube::{
    Api, Resource,
    api::{Patch, PatchParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use crate::apply::FIELD_MANAGER;

/// A machine-readable reason: each controller documents its own.
pub(crate) trait Reason: Copy {
    /// In PascalCase, as conditions and events want it.
    fn as_str(self) -> &'static str;
}

/// Where a resource stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    phase: Phase,
    reason: &'static str,
    message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Ready,
    Reconciling,
    Stalled,
}

impl Standing {
    /// Everything is as the specification asks.
    pub(crate) fn ready(reason: impl Reason, message: impl Into<String>) -> Self {
        Self {
            phase: Phase::Ready,
            reason: reason.as_str(),
            message: message.into(),
        }
    }

    /// On the way, or waiting for something that comes by itself.
    pub(crate) fn reconciling(reason: impl Reason, message: impl Into<String>) -> Self {
        Self {
            phase: Phase::Reconciling,
            reason: reason.as_str(),
            message: message.into(),
        }
    }

    /// Somebody has to act.
    pub(crate) fn stalled(reason: impl Reason, message: impl Into<String>) -> Self {
        Self {
            phase: Phase::Stalled,
            reason: reason.as_str(),
            message: message.into(),
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    pub(crate) fn is_stalled(&self) -> bool {
        self.phase == Phase::Stalled
    }

    pub(crate) fn reason(&self) -> &'static str {
        self.reason
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// The three conditions. One that keeps its status keeps the time of its last transition.
    pub(crate) fn conditions(&self, previous: &[Condition], generation: Option<i64>) -> Vec<Condition> {
        let condition = |type_: &str, holds: bool| {
            let status = if holds { "True" } else { "False" };
            let since = previous
                .iter()
                .find(|before| before.type_ == type_ && before.status == status)
                .map_or_else(now, |before| before.last_transition_time.clone());
            Condition {
                type_: type_.to_owned(),
                status: status.to_owned(),
                reason: self.reason.to_owned(),
                message: self.message.clone(),
                observed_generation: generation,
                last_transition_time: since,
            }
        };
        vec![
            condition("Ready", self.phase == Phase::Ready),
            condition("Reconciling", self.phase == Phase::Reconciling),
            condition("Stalled", self.phase == Phase::Stalled),
        ]
    }
}

/// Now, to the second: what the API server keeps of a time, so that a status read back equals the one written.
pub(crate) fn now() -> Time {
    let now = Timestamp::now();
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// Whether `resource` is Ready for the generation of its specification that exists now.
pub(crate) fn is_ready(conditions: &[Condition], observed: Option<i64>, generation: Option<i64>) -> bool {
    observed == generation && conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Writes the status if it differs from the one read. Says whether it wrote.
///
/// By server-side apply, so that a field that is no longer given goes away.
pub(crate) async fn write_status<K, S>(
    api: &Api<K>,
    name: &str,
    before: Option<&S>,
    status: &S,
) -> Result<bool, kube::Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    S: PartialEq + Serialize,
{
    if before == Some(status) {
        return Ok(false);
    }
    let patch = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {"name": name},
        "status": status,
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    api.patch_status(name, &params, &Patch::Apply(&patch)).await?;
    Ok(true)
}

/// Selects what the operator made, for watches: nothing else reaches its memory.
pub(crate) fn made_by_operator() -> String {
    format!("{}={}", labels::MANAGED_BY, labels::MANAGED_BY_OPERATOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy)]
    struct Because(&'static str);

    impl Reason for Because {
        fn as_str(self) -> &'static str {
            self.0
        }
    }

    fn statuses(conditions: &[Condition]) -> Vec<(&str, &str)> {
        conditions
            .iter()
            .map(|c| (c.type_.as_str(), c.status.as_str()))
            .collect()
    }

    #[test]
    fn exactly_one_of_the_three_holds() {
        let of = |standing: Standing| standing.conditions(&[], Some(1));
        assert_eq!(
            statuses(&of(Standing::ready(Because("AllGood"), ""))),
            [("Ready", "True"), ("Reconciling", "False"), ("Stalled", "False")]
        );
        assert_eq!(
            statuses(&of(Standing::reconciling(Because("Working"), ""))),
            [("Ready", "False"), ("Reconciling", "True"), ("Stalled", "False")]
        );
        assert_eq!(
            statuses(&of(Standing::stalled(Because("Stuck"), ""))),
            [("Ready", "False"), ("Reconciling", "False"), ("Stalled", "True")]
        );
    }

    #[test]
    fn a_condition_keeps_its_time_until_its_status_changes() {
        let mut before = Standing::reconciling(Because("Working"), "1 of 3").conditions(&[], Some(1));
        let long_ago = Time(Timestamp::from_second(1_000_000_000).unwrap());
        before
            .iter_mut()
            .for_each(|c| c.last_transition_time = long_ago.clone());

        let after = Standing::ready(Because("AllGood"), "3 of 3").conditions(&before, Some(1));
        assert_ne!(after[0].last_transition_time, long_ago, "Ready turned True");
        assert_ne!(after[1].last_transition_time, long_ago, "Reconciling turned False");
        assert_eq!(after[2].last_transition_time, long_ago, "Stalled stayed False");
    }

    #[test]
    fn an_older_generation_is_not_ready() {
        let conditions = Standing::ready(Because("AllGood"), "").conditions(&[], Some(1));
        assert!(is_ready(&conditions, Some(1), Some(1)));
        assert!(!is_ready(&conditions, Some(1), Some(2)));
    }
}
