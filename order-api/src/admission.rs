//! Bounded work: a fixed number of requests at once, each for a bounded time. What does not fit is refused at once,
//! since a queue would only make everybody late.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::app::App;
use crate::problem::{Problem, catalogue};

/// Lets the request in when there is room, and ends it when its time is up.
pub async fn admit(State(app): State<App>, request: Request, next: Next) -> Response {
    let Ok(_room) = app.admission.clone().try_acquire_owned() else {
        return Problem::new(
            &catalogue::OVERLOADED,
            "As many requests as this instance takes are being worked on.",
        )
        .retry_after(Duration::from_secs(1))
        .into_response();
    };
    let limit = app.settings.request_timeout;
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(
            &catalogue::TIMED_OUT,
            format!("The request took longer than {} s.", limit.as_secs_f32()),
        )
        .retry_after(Duration::from_secs(1))
        .into_response(),
    }
}
