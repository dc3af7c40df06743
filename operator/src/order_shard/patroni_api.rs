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
