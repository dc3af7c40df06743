//! Answers that went well.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, LOCATION};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use serde::Serialize;
use store::{Answer, ReadTokens, StoredResponse, Written};

use crate::problem::{Problem, catalogue};
use crate::request::consistency::TOKEN_HEADER;
use crate::request::if_match::etag;

/// Tells that the answer is the one an earlier request with this key got.
pub static REPLAYED_HEADER: HeaderName = HeaderName::from_static("idempotency-replayed");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What was read, with its entity tag when it is one row.
pub fn read<T: Serialize>(answer: &Answer<T>, version: Option<i64>) -> Result<Response, Problem> {
    let mut response = json(StatusCode::OK, &answer.value)?;
    cover(response.headers_mut(), &answer.token);
    if let Some(version) = version {
        response.headers_mut().insert(ETAG, etag(version));
    }
    Ok(response)
}

/// A JSON document that belongs to the caller: caches must not hand it to others.
pub fn json<T: Serialize>(status: StatusCode, value: &T) -> Result<Response, Problem> {
    let body = serde_json::to_vec(value).map_err(|error| {
        tracing::error!(%error, "writing an answer as JSON");
        Problem::new(&catalogue::INTERNAL, "The answer could not be written.")
    })?;
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// What a write answers now, and to every repeat with its key.
pub fn render<T: Serialize>(status: StatusCode, location: Option<String>, version: i64, value: &T) -> StoredResponse {
    StoredResponse {
        status: status.as_u16(),
        location,
        etag: etag(version).to_str().ok().map(str::to_owned),
        // Views are structs of strings and numbers: writing them as JSON cannot fail.
        body: serde_json::to_string(value).unwrap_or_default(),
    }
}

/// The answer of a write, first or repeated.
pub fn written(written: Written) -> Response {
    let StoredResponse {
        status,
        location,
        etag,
        body,
    } = written.response;
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for (name, value) in [(LOCATION, location), (ETAG, etag)] {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
            headers.insert(name, value);
        }
    }
    if written.repeated {
        headers.insert(&REPLAYED_HEADER, HeaderValue::from_static("true"));
    }
    cover(headers, &written.token);
    response
}

/// Tells which state the answer covers.
pub fn cover(headers: &mut HeaderMap, token: &impl std::fmt::Display) {
    if let Ok(value) = HeaderValue::from_str(&token.to_string()) {
        headers.insert(&TOKEN_HEADER, value);
    }
}

/// Tells which states the parts of an answer cover; one token a shard.
pub fn cover_all(headers: &mut HeaderMap, tokens: &ReadTokens) {
    if !tokens.as_slice().is_empty() {
        cover(headers, tokens);
    }
}
