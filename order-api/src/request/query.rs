//! Query parameters: unknown ones are refused, so that a mistyped `limit` is not silently the default.

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::app::App;
use crate::problem::{Problem, catalogue};

/// Query parameters of type `T`, whose `Deserialize` denies unknown fields.
#[derive(Debug)]
pub struct QueryParams<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<App> for QueryParams<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        Query::try_from_uri(&parts.uri)
            .map(|Query(params)| Self(params))
            .map_err(|error| Problem::new(&catalogue::MALFORMED_REQUEST, error.body_text()))
    }
}
