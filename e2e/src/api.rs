//! The order API, called the way a shop's backend calls it.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::header::HeaderMap;
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

/// A caller of one pod of the order API.
#[derive(Clone)]
pub struct Api {
    client: Client,
    base: String,
    bearer: String,
}

/// An answer, whole.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as it came.
    pub text: String,
}

impl Reply {
    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.text).with_context(|| format!("no JSON: {}", self.text))
    }

    /// The body, if the request succeeded.
    ///
    /// # Errors
    /// The API's own words, when it did not.
    pub fn success(self) -> Result<Value> {
        ensure!(self.status.is_success(), "{}: {}", self.status, self.text);
        self.json()
    }

    /// A text field of a body that tells of success.
    ///
    /// # Errors
    /// As [`Reply::success`], or when there is no such field.
    pub fn text_field(self, name: &str) -> Result<String> {
        let body = self.success()?;
        body[name]
            .as_str()
            .map(str::to_owned)
            .with_context(|| format!("no {name} in {body}"))
    }

    /// A header as text; empty when it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// The last part of the problem's type, when the body is a problem of RFC 9457.
    ///
    /// # Errors
    /// When it is not one.
    pub fn problem(&self) -> Result<String> {
        let kind = self.header("content-type");
        ensure!(
            kind.starts_with("application/problem+json"),
            "{} with {kind}: {}",
            self.status,
            self.text
        );
        let body = self.json()?;
        ensure!(
            body["status"] == self.status.as_u16(),
            "the problem's status differs from the answer's: {body}"
        );
        let uri = body["type"].as_str().context("the problem has no type")?;
        Ok(uri.rsplit('/').next().unwrap_or_default().to_owned())
    }
}

impl Api {
    /// A caller with a bearer key.
    ///
    /// # Errors
    /// When no client can be made.
    pub fn new(address: &str, bearer: &str) -> Result<Self> {
        let client = Client::builder().timeout(Duration::from_secs(30)).build()?;
        Ok(Self {
            client,
            base: format!("http://{address}:8080"),
            bearer: bearer.to_owned(),
        })
    }

    /// The same caller with another key.
    pub fn with_bearer(&self, bearer: &str) -> Self {
        Self {
            bearer: bearer.to_owned(),
            ..self.clone()
        }
    }

    /// A request with the bearer key, to be completed by the caller.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, format!("{}{path}", self.base))
            .bearer_auth(&self.bearer)
    }

    /// Reads.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn get(&self, path: &str) -> Result<Reply> {
        send(self.request(Method::GET, path)).await
    }

    /// Posts a body under an idempotency key.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn post(&self, path: &str, key: &str, body: Option<&Value>) -> Result<Reply> {
        let mut request = self.request(Method::POST, path).header("idempotency-key", key);
        if let Some(body) = body {
            request = request.json(body);
        }
        send(request).await
    }

    /// Creates a user whose addresses are made of `name`, and returns the id.
    ///
    /// # Errors
    /// The API's refusal.
    pub async fn create_user(&self, customer: &Customer) -> Result<String> {
        let key = format!("user-{}", customer.email);
        self.post("/v1/users", &key, Some(&customer.body()))
            .await?
            .text_field("user_id")
    }

    /// Places an order of two teapots and returns the id.
    ///
    /// # Errors
    /// The API's refusal.
    pub async fn create_order(&self, user_id: &str, key: &str) -> Result<String> {
        let path = format!("/v1/users/{user_id}/orders");
        self.post(&path, key, Some(&two_teapots()))
            .await?
            .text_field("order_id")
    }
}

/// Sends a request and reads the whole answer.
///
/// # Errors
/// When there is no answer.
pub async fn send(request: RequestBuilder) -> Result<Reply> {
    let response = request.send().await?;
    Ok(Reply {
        status: response.status(),
        headers: response.headers().clone(),
        text: response.text().await?,
    })
}

/// An order that the API accepts.
pub fn two_teapots() -> Value {
    json!({
        "currency": "EUR",
        "order_details": {"lines": [
            {"sku": "TEA-1", "description": "Teapot", "quantity": 2, "unit_price_minor": 1999},
        ]},
    })
}

/// A person with addresses of their own.
#[derive(Debug, Clone)]
pub struct Customer {
    /// Email address.
    pub email: String,
    /// Mobile number in E.164 form.
    pub mobile: String,
}

impl Customer {
    /// Somebody nobody has been before.
    pub fn new() -> Self {
        // Drawn once: of a thousand that are drawn, two are the same in one run of two hundred.
        static NEXT: LazyLock<AtomicU32> = LazyLock::new(|| AtomicU32::new(rand::random()));
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // German mobile numbers of the length that is valid for this prefix.
        Self {
            email: format!("customer.{number:08x}@example.com"),
            mobile: format!("+49151{:08}", number % 100_000_000),
        }
    }

    /// What the API is told.
    pub fn body(&self) -> Value {
        json!({
            "first_name": "Ada", "last_name": "Lovelace",
            "email_address": self.email, "mobile_number": self.mobile,
            "locale": "en", "time_zone": "Europe/Berlin",
        })
    }
}

impl Default for Customer {
    fn default() -> Self {
        Self::new()
    }
}
