//! The service under test, and a client for it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use order_api::app::{App, Settings};
use order_api::auth::ApiKeys;
use order_api::invoices::details::Seller;
use order_api::metrics::Metrics;
use order_api::outbox::{PublishNow, PublishNowWorker};
use order_api::request::BodyLimits;
use order_api::routes;
use ring::{Epoch, Ordinal, Range, Ring, Shard, ShardState, Tokens};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use store::{Store, StoreConfig};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// The key that may do everything.
pub(crate) const ALL: &str = "test-key-with-all-scopes";
/// A key of another client that may do everything.
pub(crate) const OTHER: &str = "test-key-of-another-client";
/// A key that may read only.
pub(crate) const READER: &str = "test-key-that-reads";
/// A key that may do one request a second.
pub(crate) const SLOW: &str = "test-key-that-is-slow";

/// The limits of most tests: sizes small enough to be met.
pub(crate) fn settings() -> Settings {
    Settings {
        body: BodyLimits {
            max_bytes: 64 * 1024,
            read_timeout: Duration::from_secs(1),
        },
        request_timeout: Duration::from_secs(60),
        max_concurrent_requests: 64,
    }
}

fn seller() -> Seller {
    Seller {
        name: "Tea & Co".to_owned(),
        address: vec!["1 Harbour Street".to_owned()],
        tax_id: None,
    }
}

/// The service over some shards.
pub(crate) struct Api {
    /// All of it.
    pub(crate) app: App,
    /// Its routes.
    pub(crate) router: Router,
    /// Its shards.
    pub(crate) store: Store,
    /// Ends it.
    pub(crate) draining: CancellationToken,
    /// What was handed over to be published; a test may run it.
    pub(crate) worker: Option<PublishNowWorker>,
    /// The mounted files: keys and database credentials.
    pub(crate) files: TempDir,
}

impl Api {
    /// The service over a shard that nobody can reach.
    pub(crate) fn without_shards(settings: Settings) -> Self {
        Self::waiting_in_vain(settings, Duration::from_millis(300))
    }

    /// The same, whose store gives the shard up after `deadline`.
    pub(crate) fn waiting_in_vain(settings: Settings, deadline: Duration) -> Self {
        let files = files();
        // A port of this machine on which nothing listens.
        let shard = shard(0, "127.0.0.1:9");
        let tokens = Tokens::from_ranges([(Range::ALL, Ordinal(0))]).unwrap();
        let ring = Arc::new(Ring::new(Epoch(1), vec![shard], tokens).unwrap());
        let mut config = StoreConfig::new("order-api-test", files.path().join("database"));
        config.write_deadline = deadline;
        config.read_deadline = deadline;
        let store = Store::open(config, watch::channel(ring).1).unwrap();
        Self::over(store, settings, files)
    }

    /// The service over `store`.
    pub(crate) fn over(store: Store, settings: Settings, files: TempDir) -> Self {
        let metrics = Arc::new(Metrics::default());
        let keys = ApiKeys::load(files.path().join("keys")).unwrap();
        let (publish_now, worker) = PublishNow::new(metrics.clone());
        let draining = CancellationToken::new();
        let app = App::new(
            store.clone(),
            keys,
            publish_now,
            metrics,
            settings,
            seller(),
            draining.clone(),
        );
        let router = routes::router(app.clone());
        Self {
            app,
            router,
            store,
            draining,
            worker: Some(worker),
            files,
        }
    }

    /// A GET with the key that may do everything.
    pub(crate) fn get(&self, path: &str) -> Call {
        self.call(Method::GET, path)
    }

    /// A POST with that key and a fresh idempotency key.
    pub(crate) fn post(&self, path: &str) -> Call {
        self.call(Method::POST, path).header("idempotency-key", &fresh_key())
    }

    /// A PATCH with that key.
    pub(crate) fn patch(&self, path: &str) -> Call {
        self.call(Method::PATCH, path)
    }

    /// Any request with that key.
    pub(crate) fn call(&self, method: Method, path: &str) -> Call {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().expect("a test's path is a URI");
        Call {
            router: self.router.clone(),
            request,
        }
        .bearer(ALL)
    }
}

/// A shard of one member.
pub(crate) fn shard(ordinal: u16, host: &str) -> Shard {
    Shard {
        name: format!("test-{ordinal}"),
        ordinal: Ordinal(ordinal),
        state: ShardState::Active,
        hosts: vec![host.to_owned()],
    }
}

/// A directory with the mounted files of the program: API keys and database credentials.
pub(crate) fn files() -> TempDir {
    let files = tempfile::tempdir().unwrap();
    let keys = files.path().join("keys");
    std::fs::create_dir(&keys).unwrap();
    write_key(&keys, "all", ALL, json!({"scopes": ["read", "write", "admin"]}));
    write_key(&keys, "other", OTHER, json!({"scopes": ["read", "write", "admin"]}));
    write_key(&keys, "reader", READER, json!({"scopes": ["read"]}));
    write_key(
        &keys,
        "slow",
        SLOW,
        json!({"scopes": ["read"], "requests_per_second": 1}),
    );
    let database = files.path().join("database");
    std::fs::create_dir(&database).unwrap();
    std::fs::write(database.join("username"), "nobody").unwrap();
    std::fs::write(database.join("password"), "nothing").unwrap();
    files
}

fn write_key(directory: &Path, name: &str, token: &str, mut file: Value) {
    let digest: String = Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect();
    file["sha256"] = digest.into();
    std::fs::write(directory.join(name), file.to_string()).unwrap();
}

/// An idempotency key that no other call has.
pub(crate) fn fresh_key() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// A user with contacts that nobody else has.
pub(crate) fn a_user() -> Value {
    // A German mobile prefix with eight digits behind it.
    let number = rand::random::<u32>() % 100_000_000;
    json!({
        "first_name": "Ada",
        "last_name": "Lovelace",
        "email_address": format!("ada.{:016x}@example.org", rand::random::<u64>()),
        "mobile_number": format!("+49151{number:08}"),
        "locale": "en-GB",
        "time_zone": "Europe/London",
    })
}

/// An order of 3998 minor units.
pub(crate) fn an_order() -> Value {
    json!({
        "currency": "EUR",
        "order_details": {
            "lines": [{"sku": "TEA-1", "description": "Teapot", "quantity": 2, "unit_price_minor": 1999}],
            "reference": "web-2041",
        },
    })
}

/// A request to be sent.
pub(crate) struct Call {
    router: Router,
    request: Request<Body>,
}

impl Call {
    /// Sets a header.
    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.request
            .headers_mut()
            .insert(name, HeaderValue::from_str(value).unwrap());
        self
    }

    /// Sets a header that need not be text.
    pub(crate) fn raw_header(mut self, name: &HeaderName, value: &HeaderValue) -> Self {
        self.request.headers_mut().insert(name, value.clone());
        self
    }

    /// Leaves a header out.
    pub(crate) fn without(mut self, name: &'static str) -> Self {
        self.request.headers_mut().remove(name);
        self
    }

    /// Calls with this API key.
    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// Sends a JSON body.
    pub(crate) fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json").body(body.to_string())
    }

    /// Sends these bytes.
    pub(crate) fn body(mut self, body: impl Into<Body>) -> Self {
        *self.request.body_mut() = body.into();
        self
    }

    /// Sends it.
    pub(crate) async fn send(self) -> Reply {
        let (head, body) = self.router.oneshot(self.request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Reply {
            status: head.status,
            headers: head.headers,
            body,
        }
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    /// The status.
    pub(crate) status: StatusCode,
    /// The headers.
    pub(crate) headers: HeaderMap,
    /// The body.
    pub(crate) body: Bytes,
}

impl Reply {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {} {:?}", self.status, String::from_utf8_lossy(&self.body)))
    }

    /// The same, of an answer that has to have this status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", String::from_utf8_lossy(&self.body));
        self
    }

    /// A header as text.
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .unwrap_or_else(|| panic!("{name} is missing: {self:?}"))
            .to_str()
            .unwrap()
    }

    /// The body of a problem with this status and slug; whole, for a snapshot.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, slug: &str) -> Value {
        let body = self.json();
        assert_eq!(
            (self.status.as_u16(), &body["type"]),
            (status, &json!(format!("/problems/{slug}"))),
            "{body}"
        );
        assert_eq!(body["status"], status);
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json");
        body
    }

    /// A string field of the body.
    #[track_caller]
    pub(crate) fn text(&self, field: &str) -> String {
        self.json()[field]
            .as_str()
            .unwrap_or_else(|| panic!("no {field}: {self:?}"))
            .to_owned()
    }
}
