//! `POST /v1/users`

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use store::users::NewUser;
use utoipa::ToSchema;

use super::{UserView, render};
use crate::app::App;
use crate::auth::{Caller, Write};
use crate::openapi::headers::IdempotencyHeader;
use crate::openapi::responses::CreateUserProblems;
use crate::problem::Problem;
use crate::request::fields::Fields;
use crate::request::{IdempotencyKey, JsonBody};

/// A user to be created.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateUser {
    /// Given name.
    #[schema(min_length = 1, max_length = 100, example = "Ada")]
    first_name: String,
    /// Family name.
    #[schema(min_length = 1, max_length = 100, example = "Lovelace")]
    last_name: String,
    /// Where order mails go; nobody else may have it.
    #[schema(max_length = 254, format = Email, example = "ada@example.org")]
    email_address: String,
    /// Where texts go, in international form; nobody else may have it.
    #[schema(max_length = 32, example = "+49 170 1234567")]
    mobile_number: String,
    /// Language tag; `en` when left out.
    #[serde(default = "default_locale")]
    #[schema(max_length = 35, default = "en")]
    locale: String,
    /// IANA time zone; `UTC` when left out.
    #[serde(default = "default_time_zone")]
    #[schema(default = "UTC")]
    time_zone: String,
}

fn default_locale() -> String {
    "en".to_owned()
}

fn default_time_zone() -> String {
    "UTC".to_owned()
}

impl CreateUser {
    pub(super) fn validated(&self) -> Result<NewUser, Problem> {
        let mut check = Fields::default();
        let checked = (
            check.name("first_name", &self.first_name),
            check.name("last_name", &self.last_name),
            check.email("email_address", &self.email_address),
            check.mobile_number("mobile_number", &self.mobile_number),
            check.locale("locale", &self.locale),
            check.time_zone("time_zone", &self.time_zone),
        );
        let user = match checked {
            (
                Some(first_name),
                Some(last_name),
                Some(email_address),
                Some(mobile_number),
                Some(locale),
                Some(time_zone),
            ) => Some(NewUser {
                first_name,
                last_name,
                email_address,
                mobile_number,
                locale,
                time_zone,
            }),
            _ => None,
        };
        check.finish(user)
    }
}

/// Creates a user.
#[utoipa::path(post, path = "/v1/users", tag = "users", params(IdempotencyHeader), request_body = CreateUser,
    responses(
        (status = 201, description = "The user is created", body = UserView, headers(
            ("Location" = String, description = "Where it can be read"),
            ("ETag" = String, description = "Its version, for If-Match"),
            ("Ringwright-Token" = String, description = "Covers this write"))),
        CreateUserProblems))]
pub async fn create_user(
    caller: Caller<Write>,
    State(app): State<App>,
    key: IdempotencyKey,
    JsonBody(body): JsonBody<CreateUser>,
) -> Result<Response, Problem> {
    let user = body.validated()?;
    let key = key.stands_for(caller.client(), "users.create", "", &body);
    let store = app.store.clone();
    app.write(async move {
        store
            .create_user(key, user, |user| render(StatusCode::CREATED, user))
            .await
    })
    .await
}
