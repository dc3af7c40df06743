//! `PATCH /v1/users/{id}`, a JSON merge patch (RFC 7396)

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use row_id::UserId;
use serde::{Deserialize, Serialize};
use store::users::{NewUser, User};
use store::{BasedOn, ReadAt, StoreError};
use utoipa::ToSchema;

use super::{UserView, render};
use crate::app::App;
use crate::auth::{Caller, Write};
use crate::openapi::headers::RequiredIfMatchHeader;
use crate::openapi::responses::UpdateUserProblems;
use crate::problem::Problem;
use crate::request::fields::Fields;
use crate::request::idempotency_key::OptionalIdempotencyKey;
use crate::request::{IfMatch, JsonBody, PathId, RequiredIfMatch};

/// How often a change with `If-Match: *` is tried when others change the user at the same time.
const TRIES: usize = 5;

/// What is to be changed of a user; what is left out stays. No field can be taken away.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateUser {
    /// Given name.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false, min_length = 1, max_length = 100)]
    first_name: Option<String>,
    /// Family name.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false, min_length = 1, max_length = 100)]
    last_name: Option<String>,
    /// Where order mails go; nobody else may have it.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false, max_length = 254, format = Email)]
    email_address: Option<String>,
    /// Where texts go, in international form; nobody else may have it.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false, max_length = 32)]
    mobile_number: Option<String>,
    /// Language tag.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false, max_length = 35)]
    locale: Option<String>,
    /// IANA time zone.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    time_zone: Option<String>,
}

/// In a merge patch `null` takes a field away, and every field of a user is needed.
fn not_null<'de, D: serde::Deserializer<'de>>(field: D) -> Result<Option<String>, D::Error> {
    String::deserialize(field).map(Some)
}

/// The checked changes.
#[derive(Clone, Debug)]
struct Changes {
    first_name: Option<String>,
    last_name: Option<String>,
    email_address: Option<String>,
    mobile_number: Option<String>,
    locale: Option<String>,
    time_zone: Option<String>,
}

impl UpdateUser {
    fn validated(&self) -> Result<Changes, Problem> {
        let mut check = Fields::default();
        let changes = Changes {
            first_name: self
                .first_name
                .as_deref()
                .and_then(|name| check.name("first_name", name)),
            last_name: self.last_name.as_deref().and_then(|name| check.name("last_name", name)),
            email_address: self
                .email_address
                .as_deref()
                .and_then(|email| check.email("email_address", email)),
            mobile_number: self
                .mobile_number
                .as_deref()
                .and_then(|number| check.mobile_number("mobile_number", number)),
            locale: self.locale.as_deref().and_then(|locale| check.locale("locale", locale)),
            time_zone: self
                .time_zone
                .as_deref()
                .and_then(|zone| check.time_zone("time_zone", zone)),
        };
        check.finish(Some(changes))
    }
}

impl Changes {
    fn applied_to(self, user: User) -> NewUser {
        NewUser {
            first_name: self.first_name.unwrap_or(user.first_name),
            last_name: self.last_name.unwrap_or(user.last_name),
            email_address: self.email_address.unwrap_or(user.email_address),
            mobile_number: self.mobile_number.unwrap_or(user.mobile_number),
            locale: self.locale.unwrap_or(user.locale),
            time_zone: self.time_zone.unwrap_or(user.time_zone),
        }
    }
}

/// Changes a user.
///
/// If-Match makes a repeat harmless, so the Idempotency-Key may be left out; with one, a repeat gets the first answer.
#[utoipa::path(patch, path = "/v1/users/{id}", tag = "users",
    params(
        ("id" = uuid::Uuid, Path, description = "The user"),
        ("Idempotency-Key" = Option<String>, Header, description = "Identifies this operation; the same for its repeats"),
        RequiredIfMatchHeader),
    request_body(content(
        (UpdateUser = "application/json"), (UpdateUser = "application/merge-patch+json"))),
    responses(
        (status = 200, description = "The user as it is now", body = UserView, headers(
            ("ETag" = String, description = "Its new version"),
            ("Ringwright-Token" = String, description = "Covers this write"))),
        UpdateUserProblems))]
pub async fn update_user(
    caller: Caller<Write>,
    State(app): State<App>,
    PathId(id): PathId<UserId>,
    RequiredIfMatch(condition): RequiredIfMatch,
    OptionalIdempotencyKey(key): OptionalIdempotencyKey,
    JsonBody(body): JsonBody<UpdateUser>,
) -> Result<Response, Problem> {
    let changes = body.validated()?;
    let key = key.stands_for(caller.client(), "users.update", id, &body);
    let mut outcome = apply(&app, id, &condition, &key, &changes).await;
    // To `*` a change of somebody else in between is no conflict: the patch is made of the newer row.
    for _ in 1..TRIES {
        if condition != IfMatch::Any || !was_overtaken(&outcome) {
            break;
        }
        outcome = apply(&app, id, &condition, &key, &changes).await;
    }
    outcome
}

fn was_overtaken(outcome: &Result<Response, Problem>) -> bool {
    matches!(outcome, Err(problem) if problem.status() == StatusCode::PRECONDITION_FAILED)
}

/// Makes the new row of the newest one, and writes it if the newest one is still there.
async fn apply(
    app: &App,
    id: UserId,
    condition: &IfMatch,
    key: &store::IdempotencyKey,
    changes: &Changes,
) -> Result<Response, Problem> {
    let current = app
        .store
        .get_user(id, &ReadAt::strong())
        .await?
        .value
        .ok_or(StoreError::UserNotFound(id))?;
    // The store decides, in its transaction: it knows whether this is a repeat, whose condition holds no more.
    let based_on = if condition.holds_for(current.version) {
        BasedOn::version(current.version)
    } else {
        BasedOn::OneOf(Vec::new())
    };
    let new = changes.clone().applied_to(current);
    let (store, key) = (app.store.clone(), key.clone());
    app.write(async move {
        store
            .update_user(key, id, based_on, new, |user| render(StatusCode::OK, user))
            .await
    })
    .await
}
