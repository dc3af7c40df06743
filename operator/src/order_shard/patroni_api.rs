//! Patroni's REST API, as far as the operator asks it to act.

use std::time::Duration;

use reqwest::StatusCode;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::build::SystemPasswords;
use super::build::services::PATRONI_PORT;

/// A handover or a restart answers when it is done: with a checkpoint before it, that may take a while.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request that Patroni did not carry out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PatroniError {
    #[error("could not build the client for Patroni's REST API")]
    Client(#[source] reqwest::Error),
    #[error("could not {operation}: no answer from the member's Patroni; is its pod running and reachable?")]
    NoAnswer {
        operation: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("could not {operation}: Patroni answered {status}: {reason}")]
    Refused {
        operation: String,
        status: StatusCode,
        reason: String,
    },
}

/// What a request to copy the master's data came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reinitialized {
    /// It goes on by itself.
    Begun,
    /// 503: there is no leader, it is the leader itself, or something else is in progress.
    NotNow(String),
}

impl Reinitialized {
    fn of(answer: Result<(), PatroniError>) -> Result<Self, PatroniError> {
        match answer {
            Err(PatroniError::Refused { status, reason, .. }) if status == StatusCode::SERVICE_UNAVAILABLE => {
                Ok(Self::NotNow(reason))
            }
            other => other.map(|()| Self::Begun),
        }
    }
}

/// A client for the REST APIs of all members.
#[derive(Debug, Clone)]
pub(crate) struct PatroniApi {
    http: reqwest::Client,
}

impl PatroniApi {
    pub(crate) fn new() -> Result<Self, PatroniError> {
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(3))
            .timeout(PATIENCE)
            .no_proxy()
            .build()
            .map_err(PatroniError::Client)?;
        Ok(Self { http })
    }

    /// Restarts PostgreSQL on the member at `ip`, if it still has parameters that wait for it.
    pub(crate) async fn restart(&self, ip: &str, member: &str, login: &SystemPasswords) -> Result<(), PatroniError> {
        let operation = format!("restart PostgreSQL of {member}");
        self.post(ip, "restart", &json!({"restart_pending": true}), login, operation)
            .await
    }

    /// Hands the lock of `leader`, which is at `ip`, to `candidate`, or to whom Patroni chooses.
    pub(crate) async fn switchover(
        &self,
        ip: &str,
        leader: &str,
        candidate: Option<&str>,
        login: &SystemPasswords,
    ) -> Result<(), PatroniError> {
        let operation = format!("hand over from {leader}");
        let body = json!({"leader": leader, "candidate": candidate});
        self.post(ip, "switchover", &body, login, operation).await
    }

    /// Has the replica at `ip` throw its data away and copy the master's.
    ///
    /// Without `force`: if its Patroni is at work on something already, a copy or a rewind, that goes on.
    pub(crate) async fn reinitialize(
        &self,
        ip: &str,
        member: &str,
        login: &SystemPasswords,
    ) -> Result<Reinitialized, PatroniError> {
        let operation = format!("have {member} copied anew from the master");
        let body = json!({"force": false});
        Reinitialized::of(self.post(ip, "reinitialize", &body, login, operation).await)
    }

    async fn post(
        &self,
        ip: &str,
        path: &str,
        body: &Value,
        login: &SystemPasswords,
        operation: String,
    ) -> Result<(), PatroniError> {
        let host = if ip.contains(':') {
            format!("[{ip}]")
        } else {
            ip.to_owned()
        };
        let no_answer = |source: reqwest::Error| PatroniError::NoAnswer {
            operation: operation.clone(),
            source: source.without_url(),
        };
        let response = self
            .http
            .post(format!("http://{host}:{PATRONI_PORT}/{path}"))
            .basic_auth(&login.patroni_username, Some(login.patroni_password.expose_secret()))
            .json(body)
            .send()
            .await
            .map_err(no_answer)?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let reason = response.text().await.unwrap_or_default();
        Err(PatroniError::Refused {
            reason: reason.chars().take(200).collect(),
            operation,
            status,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: StatusCode) -> Result<(), PatroniError> {
        Err(PatroniError::Refused {
            operation: "have a copied anew".to_owned(),
            status,
            reason: "reinitialize already in progress".to_owned(),
        })
    }

    #[test]
    fn a_member_that_is_at_work_already_is_no_fault() {
        assert_eq!(Reinitialized::of(Ok(())).expect("an answer"), Reinitialized::Begun);
        assert_eq!(
            Reinitialized::of(refused(StatusCode::SERVICE_UNAVAILABLE)).expect("an answer"),
            Reinitialized::NotNow("reinitialize already in progress".to_owned())
        );
        assert!(Reinitialized::of(refused(StatusCode::UNAUTHORIZED)).is_err());
    }
}
