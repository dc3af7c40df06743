//! Carrying out the step that [`super::rollout`] decided.

use std::time::Instant;

use crds::OrderShard;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use tracing::info;

use super::Shards;
use super::build::SystemPasswords;
use super::members::Member;
use super::observe::Observed;
use super::patroni_api::PatroniError;
use super::rollout::Step;

/// A step that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ActError {
    #[error(transparent)]
    Patroni(#[from] PatroniError),
    #[error("could not delete pod {pod} to have it made from the newest template")]
    DeletePod {
        pod: String,
        #[source]
        source: kube::Error,
    },
}

/// Takes the step, and tells of it by an event.
pub(crate) async fn act(
    shards: &Shards,
    resource: &OrderShard,
    observed: &Observed,
    login: &SystemPasswords,
    step: &Step,
) -> Result<(), ActError> {
    info!(shard = resource.name_any(), ?step, "taking a step");
    let found = |name: &str| observed.members.iter().find(|m| m.name == name);
    match step {
        Step::ReplacePod { member } => match found(member) {
            Some(member) => replace_pod(shards, resource, member).await,
            None => Ok(()),
        },
        Step::Restart { member } => match found(member).and_then(|m| m.ip.as_deref()) {
            Some(ip) => restart(shards, resource, member, ip, login).await,
            None => Ok(()),
        },
        Step::Switchover { from, to, why } => match found(from).and_then(|m| m.ip.as_deref()) {
            Some(ip) => {
                let note = format!(
                    "{from} hands over to {}: {why}",
                    to.as_deref().unwrap_or("another member")
                );
                shards.context.tell(resource, "Switchover", note).await;
                shards.remember(resource, |memory| memory.master.plan(why, Instant::now()));
                Ok(shards.patroni.switchover(ip, from, to.as_deref(), login).await?)
            }
            None => Ok(()),
        },
    }
}

async fn restart(
    shards: &Shards,
    resource: &OrderShard,
    member: &str,
    ip: &str,
    login: &SystemPasswords,
) -> Result<(), ActError> {
    let note = format!("restarting PostgreSQL of {member} for parameters that need it");
    shards.context.tell(resource, "Restarting", note).await;
    match shards.patroni.restart(ip, member, login).await {
        // Its condition was not met: it has been restarted since it was looked at.
        Err(PatroniError::Refused { status, .. }) if status == reqwest::StatusCode::SERVICE_UNAVAILABLE => Ok(()),
        other => Ok(other?),
    }
}

async fn replace_pod(shards: &Shards, resource: &OrderShard, member: &Member) -> Result<(), ActError> {
    let note = format!("replacing pod {} by one from the newest template", member.name);
    shards.context.tell(resource, "ReplacingPod", note).await;
    let pods = shards.context.api::<Pod>(&resource.namespace().unwrap_or_default());
    match pods.delete(&member.name, &member.deletion()).await {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        other => other.map(drop).map_err(|source| ActError::DeletePod {
            pod: member.name.clone(),
            source,
        }),
    }
}
