//! What the customers received: the development mail server's Maildir and the SMS gateway's list.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use installation::mail::{Email, PRINT_ALL, SELECTOR, read_all};
use kube::ResourceExt;
use serde::Deserialize;

use crate::kubernetes::Kubernetes;
use crate::patience::await_condition;

/// How long an event may take through broker, notifier and mail server on a loaded machine, the broker's start with it.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// A received text message.
#[derive(Debug, Clone, Deserialize)]
pub struct Text {
    /// The recipient's number.
    pub to: String,
    /// What it says.
    pub body: String,
}

/// Every email the development mail server holds.
///
/// # Errors
/// When it cannot be read.
pub async fn emails(kubernetes: &Kubernetes, namespace: &str) -> Result<Vec<Email>> {
    let pods = kubernetes.pods(namespace, SELECTOR).await?;
    let pod = pods.first().context("there is no mail server")?.name_any();
    let arguments = ["exec", "-n", namespace, &pod, "--"].into_iter().chain(PRINT_ALL);
    Ok(read_all(&kubernetes.cluster.kubectl(arguments)?)?)
}

/// Every text message the development gateway took.
///
/// # Errors
/// When it does not answer.
pub async fn texts(kubernetes: &Kubernetes, namespace: &str) -> Result<Vec<Text>> {
    let address = kubernetes
        .ready_pod_address(namespace, "app.kubernetes.io/name=ringwright-sms-gateway")
        .await?;
    let answer = reqwest::get(format!("http://{address}:8080/messages")).await?;
    ensure!(
        answer.status().is_success(),
        "the SMS gateway answered {}",
        answer.status()
    );
    Ok(answer.json().await?)
}

/// Waits until `count` emails to this address have come.
///
/// # Errors
/// When they have not within [`PATIENCE`].
pub async fn await_emails(kubernetes: &Kubernetes, namespace: &str, to: &str, count: usize) -> Result<Vec<Email>> {
    await_condition(&format!("{count} emails to one customer"), PATIENCE, || async {
        let mut found = emails(kubernetes, namespace).await?;
        found.retain(|email| email.is_to(to));
        Ok((found.len() >= count).then_some(found))
    })
    .await
}

/// Waits until `count` text messages to this number have come.
///
/// # Errors
/// When they have not within [`PATIENCE`].
pub async fn await_texts(kubernetes: &Kubernetes, namespace: &str, to: &str, count: usize) -> Result<Vec<Text>> {
    await_condition(&format!("{count} text messages to one customer"), PATIENCE, || async {
        let mut found = texts(kubernetes, namespace).await?;
        found.retain(|text| text.to == to);
        Ok((found.len() >= count).then_some(found))
    })
    .await
}
