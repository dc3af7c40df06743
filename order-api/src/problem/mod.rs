//! Errors as the client sees them: problem details for HTTP APIs (RFC 9457).

pub mod catalogue;
mod of_store;
pub mod page;

use std::borrow::Cow;
use std::fmt::Display;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

pub use catalogue::ProblemType;

/// The media type of a problem.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// A refusal or failure on its way to the client.
#[derive(Debug)]
pub struct Problem {
    kind: &'static ProblemType,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    retry_after: Option<Duration>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// What is wrong with one field of the body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// JSON pointer to the field, as a URI fragment (RFC 6901, section 6).
    #[schema(example = "#/lines/0/quantity")]
    pub pointer: String,
    /// What it should be.
    #[schema(example = "must be between 1 and 1000000")]
    pub detail: Cow<'static, str>,
}

/// Problem details (RFC 9457).
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody {
    /// Which kind of problem, as a URI that explains it. Stable: switch on this.
    #[serde(rename = "type")]
    #[schema(example = "/problems/invalid-fields")]
    pub kind: String,
    /// A short summary of the kind of problem.
    pub title: &'static str,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// What happened this time.
    pub detail: Cow<'static, str>,
    /// Which fields of the body are wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub errors: Vec<FieldError>,
}

impl Problem {
    /// A problem of this kind; `detail` tells what happened this time, without secrets.
    pub fn new(kind: &'static ProblemType, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            errors: Vec::new(),
            retry_after: None,
            headers: Vec::new(),
        }
    }

    /// Field errors, under one `invalid-fields` problem.
    pub fn fields(errors: Vec<FieldError>) -> Self {
        let detail = match errors.len() {
            1 => "One field is not valid.".into(),
            n => format!("{n} fields are not valid."),
        };
        Self {
            errors,
            ..Self::new(&catalogue::INVALID_FIELDS, detail)
        }
    }

    /// Adds errors that point at fields.
    pub fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.errors = errors;
        self
    }

    /// Tells the client when to try again; whole seconds, one at least.
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Adds a response header.
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The kind of problem.
    pub fn kind(&self) -> &'static ProblemType {
        self.kind
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.kind.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The body, also used for the items of a batch.
    pub fn into_body(self) -> ProblemBody {
        ProblemBody {
            kind: format!("/problems/{}", self.kind.slug),
            title: self.kind.title,
            status: self.kind.status,
            detail: self.detail,
            errors: self.errors,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(mut self) -> Response {
        let status = self.status();
        let retry_after = self
            .retry_after
            .map(|wait| wait.as_millis().div_ceil(1000).max(1) as u64);
        let headers = std::mem::take(&mut self.headers);
        let kind = self.kind;
        // The body's fields are strings and numbers: writing them as JSON cannot fail.
        let body = serde_json::to_vec(&self.into_body()).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        response
            .headers_mut()
            .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        for (name, value) in headers {
            response.headers_mut().append(name, value);
        }
        // The access log and the metrics tell kinds of problems apart by it.
        response.extensions_mut().insert(kind);
        response
    }
}

/// The message of an error as a sentence: errors are written to be put behind others, details to stand alone.
pub fn sentence(error: impl Display) -> String {
    let message = error.to_string();
    let mut chars = message.chars();
    match chars.next() {
        Some(first) => format!("{}{}.", first.to_uppercase(), chars.as_str()),
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_rounded_up_to_whole_seconds() {
        let response = Problem::new(&catalogue::OVERLOADED, "x")
            .retry_after(Duration::from_millis(1001))
            .into_response();
        assert_eq!(response.headers()[RETRY_AFTER], "2");
        let response = Problem::new(&catalogue::OVERLOADED, "x")
            .retry_after(Duration::ZERO)
            .into_response();
        assert_eq!(response.headers()[RETRY_AFTER], "1");
    }

    #[test]
    fn field_errors_are_listed_with_their_pointers() {
        let problem = Problem::fields(vec![FieldError {
            pointer: "#/lines/0/sku".into(),
            detail: "is missing".into(),
        }]);
        insta::assert_json_snapshot!(problem.into_body());
    }
}
