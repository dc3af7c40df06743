//! Ids in the path.

use std::fmt::Display;
use std::str::FromStr;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;

use crate::app::App;
use crate::problem::{Problem, catalogue, sentence};

/// The id in the path of a route with exactly one.
#[derive(Debug)]
pub struct PathId<T>(pub T);

impl<T> FromRequestParts<App> for PathId<T>
where
    T: FromStr,
    T::Err: Display,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        // Taken as text: a typed `Path` would refuse with axum's own answer, which is no problem document.
        let Path(text) = Path::<String>::from_request_parts(parts, app).await.map_err(|_| {
            Problem::new(
                &catalogue::MALFORMED_REQUEST,
                "The path is not UTF-8 after percent-decoding.",
            )
        })?;
        text.parse()
            .map(PathId)
            .map_err(|error: T::Err| Problem::new(&catalogue::INVALID_ID, sentence(error)))
    }
}
