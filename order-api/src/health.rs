//! `GET /livez` and `GET /readyz`.

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

/// Whether requests should be sent here. A ring was loaded, else nothing would listen; one shard that is down, or the
/// broker, takes nothing from the others' users, so neither matters here.
#[utoipa::path(get, path = "/readyz", tag = "meta", security(()),
    responses(
        (status = 200, description = "It takes requests", body = String, content_type = "text/plain"),
        (status = 503, description = "It is about to end", body = String, content_type = "text/plain")))]
pub async fn readyz(State(app): State<App>) -> Response {
    if app.is_draining() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response();
    }
    "ok\n".into_response()
}
