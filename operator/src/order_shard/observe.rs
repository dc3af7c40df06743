//! Reading everything that exists of a shard.

use std::collections::BTreeMap;

use crds::labels;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, ServiceAccount};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;
use kube::api::ListParams;

use super::build::labels::component;
use super::members::{Consensus, Member};
use crate::context::Context;

/// A shard as it is.
#[derive(Debug)]
pub(crate) struct Observed {
    pub stateful_set: Option<StatefulSet>,
    /// In the order of their numbers.
    pub members: Vec<Member>,
    pub claims: Vec<PersistentVolumeClaim>,
    pub consensus: Consensus,
}

/// The API server could not be asked.
#[derive(Debug, thiserror::Error)]
#[error("could not read the {what} of shard {shard}")]
pub(crate) struct ObserveError {
    what: &'static str,
    shard: String,
    #[source]
    source: kube::Error,
}

/// Reads it from the API server itself: what a cache remembers may be older than the operator's own last step.
pub(crate) async fn observe(context: &Context, namespace: &str, shard: &str) -> Result<Observed, ObserveError> {
    let failed = |what: &'static str| {
        move |source: kube::Error| ObserveError {
            what,
            shard: shard.to_owned(),
            source,
        }
    };
    let selector = ListParams::default().labels(&format!(
        "{}={shard},{}={}",
        labels::SHARD,
        labels::COMPONENT,
        component::SHARD
    ));
    let (sets, pods) = (context.api::<StatefulSet>(namespace), context.api::<Pod>(namespace));
    let claims = context.api::<PersistentVolumeClaim>(namespace);
    let config_maps = context.api::<ConfigMap>(namespace);
    let accounts = context.api::<ServiceAccount>(namespace);
    let (account, stateful_set, pods, claims, config_maps) = tokio::try_join!(
        async { accounts.get_opt(shard).await.map_err(failed("ServiceAccount")) },
        async { sets.get_opt(shard).await.map_err(failed("StatefulSet")) },
        async { pods.list(&selector).await.map_err(failed("pods")) },
        async { claims.list(&selector).await.map_err(failed("volumes")) },
        async { config_maps.list(&selector).await.map_err(failed("ConfigMaps")) },
    )?;
    let account_since = account.and_then(|a| a.metadata.creation_timestamp);
    let mut members: Vec<Member> = pods
        .items
        .iter()
        .map(|pod| Member::from_pod(pod, account_since.as_ref()))
        .collect();
    members.sort_by_key(Member::index);
    let annotations: BTreeMap<String, BTreeMap<String, String>> = config_maps
        .items
        .into_iter()
        .map(|c| (c.name_any(), c.metadata.annotations.unwrap_or_default()))
        .collect();
    Ok(Observed {
        stateful_set,
        members,
        claims: claims.items,
        consensus: Consensus::from_annotations(|key| {
            let name = super::build::labels::names::dcs(shard, key);
            annotations.get(&name).cloned().unwrap_or_default()
        }),
    })
}

impl Observed {
    /// Takes the lock from a holder that the API server refuses, once `lapsed`: it can neither renew it nor give it back,
    /// nor take off the label that says it is master, while it has long been a standby.
    pub(crate) fn free_lapsed_lock(&mut self, lapsed: impl FnOnce(&str) -> bool) {
        let locked_out = |holder: &str| self.members.iter().any(|m| m.name == holder && m.token_is_dead);
        if self
            .consensus
            .leader
            .as_deref()
            .is_some_and(|holder| locked_out(holder) && lapsed(holder))
        {
            self.consensus.leader = None;
        }
    }

    /// The member that is master, if there is one.
    pub(crate) fn master(&self) -> Option<&Member> {
        super::members::master(&self.members, &self.consensus)
    }

    /// Members the StatefulSet is asked for.
    pub(crate) fn current_replicas(&self) -> Option<u32> {
        let replicas = self.stateful_set.as_ref()?.spec.as_ref()?.replicas?;
        u32::try_from(replicas).ok()
    }

    /// Revision of the newest pod template, once the StatefulSet's controller has seen the template as it is now.
    pub(crate) fn newest_revision(&self) -> Option<&str> {
        let set = self.stateful_set.as_ref()?;
        let status = set.status.as_ref()?;
        if status.observed_generation != set.metadata.generation {
            return None;
        }
        status.update_revision.as_deref()
    }

    /// Bytes that the StatefulSet's volume template asks for.
    pub(crate) fn template_storage(&self) -> Option<u64> {
        let templates = self
            .stateful_set
            .as_ref()?
            .spec
            .as_ref()?
            .volume_claim_templates
            .as_ref()?;
        super::storage::requested(templates.first()?)
    }

    /// The same as it is written there.
    pub(crate) fn template_storage_text(&self) -> Option<Quantity> {
        let templates = self
            .stateful_set
            .as_ref()?
            .spec
            .as_ref()?
            .volume_claim_templates
            .as_ref()?;
        let requests = templates
            .first()?
            .spec
            .as_ref()?
            .resources
            .as_ref()?
            .requests
            .as_ref()?;
        requests.get("storage").cloned()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::{from_value, json};

    use super::*;

    /// `shop-0-0` holds the lock; its pod is older than the ServiceAccount, or not.
    fn holding(older_than_account: bool) -> Observed {
        let account: Time = from_value(json!("2026-01-01T00:01:00Z")).expect("a time");
        let minute = if older_than_account { 0 } else { 2 };
        let made = format!("2026-01-01T00:0{minute}:00Z");
        let pod: Pod = from_value(json!({"metadata": {"name": "shop-0-0", "creationTimestamp": made}})).expect("a pod");
        Observed {
            stateful_set: None,
            members: vec![Member::from_pod(&pod, Some(&account))],
            claims: Vec::new(),
            consensus: Consensus {
                leader: Some("shop-0-0".to_owned()),
                ..Consensus::default()
            },
        }
    }

    fn leader(mut observed: Observed, lapsed: bool) -> Option<String> {
        observed.free_lapsed_lock(|_| lapsed);
        observed.consensus.leader
    }

    #[test]
    fn a_lapsed_lock_is_nobodys_when_its_holder_cannot_give_it_back() {
        assert_eq!(leader(holding(true), true), None);
        assert!(leader(holding(true), false).is_some(), "it may be master still");
        assert!(
            leader(holding(false), true).is_some(),
            "who can write to the API server keeps or loses the lock by Patroni's own rules"
        );
    }
}
