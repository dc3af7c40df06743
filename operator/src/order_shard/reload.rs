//! Getting changed files into running members without a restart.
//!
//! Changed files reach a pod's mount when the kubelet next looks at the pod, at once if the pod itself changes. So: an
//! annotation with the wanted digest (the kubelet looks), then `ringwright-reload` in the container until it finds the
//! files of that digest and makes Patroni read them, then an annotation that says they are loaded. A new pod starts with
//! neither annotation and goes through the same, which costs one command.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tracing::warn;

use super::build::Files;
use super::members::{LOADED_ANNOTATION, Member, WANTED_ANNOTATION};
use super::pod_exec::{self, ExecError};
use crate::apply::FIELD_MANAGER;

/// `ringwright-reload` found other files than the wanted ones: EX_TEMPFAIL.
const NOT_YET: i32 = 75;

/// A member that could not be told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReloadError {
    #[error("could not annotate pod {pod}")]
    Annotate {
        pod: String,
        #[source]
        source: kube::Error,
    },
    #[error(transparent)]
    Exec(#[from] ExecError),
    #[error("ringwright-reload in pod {pod} failed ({exit_code:?}): {stderr}; is the image one of Ringwright's?")]
    Failed {
        pod: String,
        exit_code: Option<i32>,
        stderr: String,
    },
}

/// What a member needs so that it has the files of `digest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    Nothing,
    /// Be told, then asked.
    Tell,
    /// Be asked whether the files have arrived.
    Ask,
}

/// Decides it from the pod's annotations.
pub(crate) fn need(member: &Member, digest: &str) -> Need {
    if member.loaded.as_deref() == Some(digest) {
        Need::Nothing
    } else if !member.is_up() {
        // It reads its files when it starts; it is asked once it is there.
        Need::Nothing
    } else if member.wanted.as_deref() == Some(digest) {
        Need::Ask
    } else {
        Need::Tell
    }
}

/// Brings every member that runs to the current files. Says whether all have them.
///
/// A member that `is_outdated` is replaced soon; that it cannot be told must not keep it from being replaced.
pub(crate) async fn reload(
    pods: &Api<Pod>,
    members: &[Member],
    files: &Files,
    is_outdated: impl Fn(&Member) -> bool,
) -> Result<bool, ReloadError> {
    let mut all = true;
    for member in members {
        let Some(digest) = files.digest(&member.name) else {
            continue;
        };
        all &= match bring(pods, member, &digest).await {
            Err(error) if is_outdated(member) => {
                warn!(
                    member = member.name,
                    error = telemetry::chain(&error),
                    "an outdated member could not be given its files"
                );
                true
            }
            other => other?,
        };
    }
    Ok(all)
}

async fn bring(pods: &Api<Pod>, member: &Member, digest: &str) -> Result<bool, ReloadError> {
    match need(member, digest) {
        Need::Nothing => Ok(true),
        Need::Ask => ask(pods, member, digest).await,
        Need::Tell => {
            annotate(pods, member, digest, false).await?;
            ask(pods, member, digest).await
        }
    }
}

async fn ask(pods: &Api<Pod>, member: &Member, digest: &str) -> Result<bool, ReloadError> {
    let outcome = pod_exec::run(pods, &member.name, &["ringwright-reload", digest], "").await?;
    match outcome.exit_code {
        Some(0) => {
            annotate(pods, member, digest, true).await?;
            Ok(true)
        }
        Some(NOT_YET) => Ok(false),
        exit_code => Err(ReloadError::Failed {
            pod: member.name.clone(),
            exit_code,
            stderr: outcome.stderr.chars().take(200).collect(),
        }),
    }
}

/// The uid makes sure that a pod which was replaced meanwhile is not said to have loaded anything.
async fn annotate(pods: &Api<Pod>, member: &Member, digest: &str, loaded: bool) -> Result<(), ReloadError> {
    let mut annotations = json!({WANTED_ANNOTATION: digest});
    if loaded {
        annotations[LOADED_ANNOTATION] = digest.into();
    }
    let patch = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": member.name, "uid": member.uid, "annotations": annotations},
    });
    pods.patch(
        &member.name,
        &PatchParams::apply(FIELD_MANAGER).force(),
        &Patch::Apply(&patch),
    )
    .await
    .map(drop)
    .map_err(|source| ReloadError::Annotate {
        pod: member.name.clone(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_told_once_and_asked_until_it_has_the_files() {
        let mut member = Member {
            uid: "1".to_owned(),
            ..Member::ready("shop-0-0")
        };
        assert_eq!(need(&member, "new"), Need::Tell);
        member.wanted = Some("new".to_owned());
        assert_eq!(need(&member, "new"), Need::Ask);
        member.loaded = Some("new".to_owned());
        assert_eq!(need(&member, "new"), Need::Nothing);
        assert_eq!(need(&member, "newer"), Need::Tell);
        member.ready = false;
        assert_eq!(need(&member, "newer"), Need::Nothing);
    }
}
