//! Users of the shop.

pub mod create;
pub mod get;
pub mod update;

use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use serde::Serialize;
use store::StoredResponse;
use store::users::User;
use utoipa::ToSchema;

use crate::reply;
use crate::request::fields::Fields;

/// A user.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = User)]
pub struct UserView {
    /// Its id, which also tells where it lives.
    #[schema(value_type = uuid::Uuid)]
    pub user_id: row_id::UserId,
    /// Given name.
    #[schema(example = "Ada")]
    pub first_name: String,
    /// Family name.
    #[schema(example = "Lovelace")]
    pub last_name: String,
    /// Unique; the domain in lower case.
    #[schema(example = "ada@example.org")]
    pub email_address: String,
    /// Unique; E.164.
    #[schema(example = "+491701234567")]
    pub mobile_number: String,
    /// Language tag.
    #[schema(example = "en-GB")]
    pub locale: String,
    /// IANA time zone.
    #[schema(example = "Europe/London")]
    pub time_zone: String,
    /// Counted up by each change; the ETag is made of it.
    pub version: i64,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

impl From<&User> for UserView {
    fn from(user: &User) -> Self {
        let user = user.clone();
        Self {
            user_id: user.user_id,
            first_name: user.first_name,
            last_name: user.last_name,
            email_address: user.email_address,
            mobile_number: user.mobile_number,
            locale: user.locale,
            time_zone: user.time_zone,
            version: user.version,
            created_at: user.created_at,
            updated_at: user.updated_at,
        }
    }
}

/// The answer of a write that ended with `user`.
fn render(status: StatusCode, user: &User) -> StoredResponse {
    let location = (status == StatusCode::CREATED).then(|| format!("/v1/users/{}", user.user_id));
    reply::render(status, location, user.version, &UserView::from(user))
}

/// The checks of a user's fields, the same for creating and changing.
impl Fields {
    fn name(&mut self, field: &str, value: &str) -> Option<String> {
        self.line(field, value, 1..=100)
    }
}
