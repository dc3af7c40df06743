//! `GET /v1/users/{id}`

use axum::extract::State;
use axum::response::Response;
use row_id::UserId;
use store::{Answer, StoreError};

use super::UserView;
use crate::app::App;
use crate::auth::{Caller, Read};
use crate::openapi::headers::ReadHeaders;
use crate::openapi::responses::GetUserProblems;
use crate::problem::Problem;
use crate::reply;
use crate::request::{PathId, ReadContext};

/// Reads a user.
#[utoipa::path(get, path = "/v1/users/{id}", tag = "users",
    params(("id" = uuid::Uuid, Path, description = "The user"), ReadHeaders),
    responses(
        (status = 200, description = "The user", body = UserView, headers(
            ("ETag" = String, description = "Its version, for If-Match"),
            ("Ringwright-Token" = String, description = "Covers this read"))),
        GetUserProblems))]
pub async fn get_user(
    _: Caller<Read>,
    State(app): State<App>,
    PathId(id): PathId<UserId>,
    ReadContext(at): ReadContext,
) -> Result<Response, Problem> {
    let Answer { value, token } = app.store.get_user(id, &at).await?;
    let user = value.ok_or(StoreError::UserNotFound(id))?;
    reply::read(
        &Answer {
            value: UserView::from(&user),
            token,
        },
        Some(user.version),
    )
}
