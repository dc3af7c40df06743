use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::Readiness;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Why the telemetry of a program is not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken or not this machine's.
    #[error("cannot listen on {address} for health and metrics; is it in use, or not an address of this machine?")]
    Bind {
        /// Where it should have listened.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The server ended.
    #[error("serving health and metrics ended")]
    Serve(#[source] std::io::Error),
}

/// `/livez` answers as long as the program runs; `/readyz` says whether all checks pass, and which do not.
pub fn health_routes(readiness: Arc<Readiness>) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(readyz))
        .with_state(readiness)
}

/// [`health_routes`], and `/metrics` in OpenMetrics text.
pub fn router(registry: Arc<Registry>, readiness: Arc<Readiness>) -> Router {
    let metrics = Router::new().route("/metrics", get(metrics)).with_state(registry);
    health_routes(readiness).merge(metrics)
}

/// Serves a router on an address until shutdown.
///
/// # Errors
/// If it cannot listen there, or the server fails.
pub async fn serve(address: SocketAddr, router: Router, shutdown: CancellationToken) -> Result<(), ServeError> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| ServeError::Bind { address, source })?;
    let server = axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned());
    server.await.map_err(ServeError::Serve)
}

async fn readyz(State(readiness): State<Arc<Readiness>>) -> Response {
    let report = readiness.report().await;
    let status = if report.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(report)).into_response()
}

async fn metrics(State(registry): State<Arc<Registry>>) -> Response {
    let mut body = String::new();
    match text::encode(&mut body, &registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPEN_METRICS)], body).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
