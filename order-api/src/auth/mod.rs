//! Who calls, and what they may do: bearer keys (RFC 6750) with scopes.

pub mod keys;

use std::marker::PhantomData;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::HeaderValue;
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::request::Parts;

pub use keys::{ApiKey, ApiKeys, Scope};

use crate::app::App;
use crate::problem::{Problem, catalogue};

/// A scope as a type, so that a handler's signature says what it needs.
pub trait Needs {
    /// The scope.
    const SCOPE: Scope;
}

/// Needs scope `read`.
#[derive(Debug)]
pub struct Read;
/// Needs scope `write`.
#[derive(Debug)]
pub struct Write;
/// Needs scope `admin`.
#[derive(Debug)]
pub struct Admin;

impl Needs for Read {
    const SCOPE: Scope = Scope::Read;
}
impl Needs for Write {
    const SCOPE: Scope = Scope::Write;
}
impl Needs for Admin {
    const SCOPE: Scope = Scope::Admin;
}

/// A caller that has the scope `S`. As a handler's first argument it is checked before anything else is read.
#[derive(Debug)]
pub struct Caller<S> {
    key: Arc<ApiKey>,
    scope: PhantomData<S>,
}

impl<S> Caller<S> {
    /// The key's name: in whose name idempotency keys are kept.
    pub fn client(&self) -> &str {
        &self.key.name
    }
}

impl<S: Needs> FromRequestParts<App> for Caller<S> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let token = bearer_token(parts)?;
        let key = app.keys.find(token).ok_or_else(|| {
            challenge(
                Problem::new(&catalogue::UNAUTHENTICATED, "The API key is not known."),
                "error=\"invalid_token\"",
            )
        })?;
        tracing::Span::current().record("client", &*key.name);
        if !key.allows(S::SCOPE) {
            let scope = S::SCOPE.as_str();
            let problem = Problem::new(
                &catalogue::FORBIDDEN,
                format!("This operation needs a key with the scope {scope}."),
            );
            return Err(challenge(
                problem,
                &format!("error=\"insufficient_scope\", scope=\"{scope}\""),
            ));
        }
        key.admit().map_err(|wait| {
            Problem::new(
                &catalogue::TOO_MANY_REQUESTS,
                "The API key has used up its requests of this second.",
            )
            .retry_after(wait)
        })?;
        Ok(Self {
            key,
            scope: PhantomData,
        })
    }
}

/// The token of `Authorization: Bearer <token>`; the scheme in any case (RFC 9110, section 11.1).
fn bearer_token(parts: &Parts) -> Result<&[u8], Problem> {
    let missing = |detail: &'static str| challenge(Problem::new(&catalogue::UNAUTHENTICATED, detail), "");
    let header = parts
        .headers
        .get(AUTHORIZATION)
        .ok_or_else(|| missing("The header Authorization is missing."))?;
    match header.as_bytes().split_at_checked(7) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") && !token.trim_ascii().is_empty() => {
            Ok(token.trim_ascii())
        }
        _ => Err(missing("The header Authorization is not of the form `Bearer <key>`.")),
    }
}

fn challenge(problem: Problem, error: &str) -> Problem {
    let separator = if error.is_empty() { "" } else { ", " };
    let value = HeaderValue::from_str(&format!("Bearer realm=\"ringwright\"{separator}{error}"))
        .unwrap_or(HeaderValue::from_static("Bearer"));
    problem.with_header(WWW_AUTHENTICATE, value)
}
