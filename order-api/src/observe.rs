//! One pass around every request: its id, its span, its metrics, its line in the log. Paths are logged as route
//! templates, and nothing of a body or a query is logged at all: no customer's data gets into logs.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::CONNECTION;
use axum::http::{HeaderName, HeaderValue, Method, Version};
use axum::middleware::Next;
use axum::response::Response;
use prometheus_client::metrics::gauge::Gauge;
use tracing::{Instrument, Level, Span, field};

use crate::app::App;
use crate::metrics::ProblemLabels;
use crate::problem::ProblemType;

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Observes the request.
pub async fn observe(State(app): State<App>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let _in_flight = InFlight::enter(app.metrics.in_flight.clone());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str);
    let method = method_label(request.method());
    let version = request.version();
    let id = request_id(&request);
    let span = tracing::info_span!(
        "request",
        request_id = id.to_str().unwrap_or_default(),
        method,
        route,
        client = field::Empty
    );

    let mut response = next.run(request).instrument(span.clone()).await;

    response.headers_mut().insert(&REQUEST_ID, id);
    if app.is_draining() && version < Version::HTTP_2 {
        // Tells clients that keep connections open to leave before the connection is closed under them.
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let took = started.elapsed();
    app.metrics.answered(route, method, response.status().as_u16(), took);
    log(&span, &app, &response, took);
    response
}

fn log(span: &Span, app: &App, response: &Response, took: std::time::Duration) {
    let status = response.status().as_u16();
    let took_us = took.as_micros() as u64;
    let problem = response
        .extensions()
        .get::<&'static ProblemType>()
        .map(|kind| kind.slug);
    if let Some(problem) = problem {
        app.metrics.problems.get_or_create(&ProblemLabels { problem }).inc();
    }
    let problem = problem.unwrap_or_default();
    let _entered = span.enter();
    // At tens of thousands of requests a second a line for each that went well would cost more than the request.
    match status {
        500.. => tracing::event!(Level::WARN, status, problem, took_us, "answered"),
        400.. => tracing::event!(Level::INFO, status, problem, took_us, "answered"),
        _ => tracing::event!(Level::DEBUG, status, took_us, "answered"),
    }
}

/// The client's own request id when it is a reasonable one, so that a request can be followed through its systems.
fn request_id(request: &Request) -> HeaderValue {
    let given = request.headers().get(&REQUEST_ID).filter(|id| {
        let bytes = id.as_bytes();
        (1..=128).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
    });
    given.cloned().unwrap_or_else(|| {
        let id = format!("{:032x}", rand::random::<u128>());
        HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("none"))
    })
}

/// Methods are free text in HTTP; unknown ones share a label, so that nobody can fill the memory with them.
fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

/// Counted down also when the request is given up halfway.
struct InFlight(Gauge);

impl InFlight {
    fn enter(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}
