//! `GET /livez` and `GET /readyz`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::app::App;

/// Whether the process runs. It says nothing of databases or brokers: restarting this process heals neither.
#[utoipa::path(get, path = "/livez", tag = "meta", security(()),
    responses((status = 200, description = "It runs", body = String, content_type = "text/plain")))]
pub async fn livez() -> &'static str {
    "ok\n"
}

/// Whether requests should be sent here.
#[utoipa::path(get, path = "/readyz", tag = "meta", security(()),
    responses(
        (status = 200, description = "It takes requests", body = serde_json::Value),
        (status = 503, description = "It is about to end", body = serde_json::Value)))]
pub async fn readyz(State(app): State<App>) -> Response {
    let report = app.readiness.report().await;
    let status = if report.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(report)).into_response()
}
