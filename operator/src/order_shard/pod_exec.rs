//! Running a command in a member's container.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::Api;
use kube::api::AttachParams;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::build::pod::CONTAINER;

/// The commands here take milliseconds; a node that is gone must not hold a reconcile up.
const PATIENCE: Duration = Duration::from_secs(20);

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// `None`: it did not end by itself.
    pub exit_code: Option<i32>,
    pub stderr: String,
}

/// A command that could not be run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExecError {
    #[error("could not run {command} in pod {pod}")]
    Connect {
        command: String,
        pod: String,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("could not talk to {command} in pod {pod}")]
    Stream {
        command: String,
        pod: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{command} in pod {pod} did not end within {PATIENCE:?}")]
    TooSlow { command: String, pod: String },
}

/// Runs `command` in `pod` with `input` on its standard input. What is secret belongs into the input: a command line is
/// visible to everybody who can list processes.
pub(crate) async fn run(pods: &Api<Pod>, pod: &str, command: &[&str], input: &str) -> Result<Outcome, ExecError> {
    let name = || command.first().copied().unwrap_or_default().to_owned();
    tokio::time::timeout(PATIENCE, converse(pods, pod, command, input))
        .await
        .unwrap_or_else(|_| {
            Err(ExecError::TooSlow {
                command: name(),
                pod: pod.to_owned(),
            })
        })
}

async fn converse(pods: &Api<Pod>, pod: &str, command: &[&str], input: &str) -> Result<Outcome, ExecError> {
    let name = || command.first().copied().unwrap_or_default().to_owned();
    let stream = |source| ExecError::Stream {
        command: name(),
        pod: pod.to_owned(),
        source,
    };
    let parameters = AttachParams::default()
        .container(CONTAINER)
        .stdin(!input.is_empty())
        .stdout(false)
        .stderr(true);
    let mut process = pods
        .exec(pod, command.iter().copied(), &parameters)
        .await
        .map_err(|source| ExecError::Connect {
            command: name(),
            pod: pod.to_owned(),
            source: Box::new(source),
        })?;
    if let Some(mut stdin) = process.stdin() {
        stdin.write_all(input.as_bytes()).await.map_err(stream)?;
        stdin.shutdown().await.map_err(stream)?;
    }
    let status = process.take_status();
    let mut stderr = String::new();
    if let Some(mut reader) = process.stderr() {
        reader.read_to_string(&mut stderr).await.map_err(stream)?;
    }
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    Ok(Outcome {
        exit_code: status.as_ref().and_then(exit_code),
        stderr,
    })
}

/// The kubelet reports success as such and anything else as a cause named `ExitCode`.
fn exit_code(status: &Status) -> Option<i32> {
    if status.status.as_deref() == Some("Success") {
        return Some(0);
    }
    let causes = status.details.as_ref()?.causes.as_ref()?;
    let cause = causes.iter().find(|c| c.reason.as_deref() == Some("ExitCode"))?;
    cause.message.as_ref()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(json: serde_json::Value) -> Status {
        serde_json::from_value(json).expect("a status")
    }

    #[test]
    fn the_exit_code_is_found_where_the_kubelet_puts_it() {
        assert_eq!(exit_code(&status(serde_json::json!({"status": "Success"}))), Some(0));
        let failed = serde_json::json!({
            "status": "Failure", "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": "75"}]},
        });
        assert_eq!(exit_code(&status(failed)), Some(75));
        assert_eq!(exit_code(&status(serde_json::json!({"status": "Failure"}))), None);
    }
}
