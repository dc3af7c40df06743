//! The order API's pods over HTTP, one after the other.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use reqwest::Method;
use reqwest::header::HeaderMap;

use crate::tls;

/// How long an answer is waited for; the API itself gives up after 10 s.
const PATIENCE: Duration = Duration::from_secs(12);
/// Connections kept open to each pod.
const IDLE_CONNECTIONS: usize = 256;

/// Calls all pods of the order API in turn. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Caller {
    http: reqwest::Client,
    bases: Arc<[String]>,
    bearer: Arc<str>,
    turn: Arc<AtomicUsize>,
}

/// What came back.
#[derive(Debug)]
pub(super) enum Reply {
    /// An answer, whole.
    Answer(Answer),
    /// None, and why.
    None(String),
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    headers: HeaderMap,
    pub(super) body: String,
}

impl Reply {
    /// What is wrong with it, if the API is to blame.
    pub(super) fn trouble(&self) -> Option<String> {
        match self {
            Self::None(why) => Some(why.clone()),
            Self::Answer(answer) => (answer.status >= 500).then(|| format!("{} {}", answer.status, answer.body)),
        }
    }
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default()
    }

    /// What a repeat has to get again: status, place, entity tag and body.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hash = DefaultHasher::new();
        (self.status, self.header("location"), self.header("etag"), &self.body).hash(&mut hash);
        hash.finish()
    }

    /// The last part of the problem's type; the status where the body is no problem.
    pub(super) fn problem(&self) -> String {
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        let slug = body["type"].as_str().and_then(|uri| uri.rsplit('/').next());
        slug.map_or_else(|| self.status.to_string(), str::to_owned)
    }
}

impl Caller {
    /// A caller of the pods at these addresses, each with its port.
    ///
    /// # Errors
    /// When there are none, or no client can be made.
    pub fn new(addresses: &[String], bearer: &str) -> Result<Self> {
        ensure!(!addresses.is_empty(), "no pod of the order API is ready to be called");
        tls::choose_provider();
        let http = reqwest::Client::builder()
            .timeout(PATIENCE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            // Less than the API keeps them.
            .pool_idle_timeout(Duration::from_secs(30))
            .build()?;
        let bases = addresses.iter().map(|address| format!("http://{address}"));
        Ok(Self {
            http,
            bases: bases.collect(),
            bearer: bearer.into(),
            turn: Arc::default(),
        })
    }

    /// Sends one request to the pod whose turn it is. `body` is JSON.
    pub(super) async fn send(
        &self,
        method: &Method,
        path: &str,
        headers: &[(&'static str, &str)],
        body: Option<&str>,
    ) -> Reply {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let base = &self.bases[turn % self.bases.len()];
        let mut request = self
            .http
            .request(method.clone(), format!("{base}{path}"))
            .bearer_auth(&self.bearer);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_owned());
        }
        match whole(request).await {
            Ok(answer) => Reply::Answer(answer),
            Err(error) => Reply::None(format!("{:#}", anyhow::Error::from(error))),
        }
    }
}

async fn whole(request: reqwest::RequestBuilder) -> reqwest::Result<Answer> {
    let response = request.send().await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = response.text().await?;
    Ok(Answer { status, headers, body })
}
