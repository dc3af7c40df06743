//! The header `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header) and the request it stands for.

use std::fmt::Display;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::Serialize;
use sha2::{Digest, Sha256};
use store::RequestHash;

use crate::app::App;
use crate::problem::{Problem, catalogue};

const HEADER: &str = "idempotency-key";
const MAX_LENGTH: usize = 255;

/// The key the client has chosen for one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey(String);

/// The same where it may be left out: a random one stands in, since the store settles every write through a key.
#[derive(Clone, Debug)]
pub struct OptionalIdempotencyKey(pub IdempotencyKey);

impl IdempotencyKey {
    /// Binds the key to its client and to what it stands for: the operation, what it is done to, and the body's meaning.
    /// The parsed body is taken, not its bytes, so that a repeat may order or space its fields otherwise.
    pub fn stands_for(
        self,
        client: &str,
        operation: &str,
        subject: impl Display,
        body: &impl Serialize,
    ) -> store::IdempotencyKey {
        store::IdempotencyKey {
            client: client.to_owned(),
            key: self.0,
            request: request_hash(operation, subject, body),
        }
    }

    fn parse(header: &str) -> Result<Self, Problem> {
        // The draft has a structured-field string, in quotes; nearly all clients send the bare value.
        let key = match header.strip_prefix('"') {
            Some(rest) => rest.strip_suffix('"').ok_or_else(invalid)?,
            None => header,
        };
        let fits = (1..=MAX_LENGTH).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic());
        if !fits || key.contains(['"', '\\']) {
            return Err(invalid());
        }
        Ok(Self(key.to_owned()))
    }
}

fn invalid() -> Problem {
    Problem::new(
        &catalogue::IDEMPOTENCY_KEY_INVALID,
        format!("Use 1 to {MAX_LENGTH} visible ASCII characters."),
    )
}

impl FromRequestParts<App> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        let mut headers = parts.headers.get_all(HEADER).iter();
        let Some(header) = headers.next() else {
            return Err(Problem::new(
                &catalogue::IDEMPOTENCY_KEY_MISSING,
                "This operation changes something: send the header Idempotency-Key.",
            ));
        };
        if headers.next().is_some() {
            return Err(Problem::new(
                &catalogue::IDEMPOTENCY_KEY_INVALID,
                "The header was sent more than once.",
            ));
        }
        Self::parse(header.to_str().map_err(|_| invalid())?)
    }
}

impl FromRequestParts<App> for OptionalIdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        if parts.headers.contains_key(HEADER) {
            return IdempotencyKey::from_request_parts(parts, app).await.map(Self);
        }
        Ok(Self(IdempotencyKey(
            uuid::Builder::from_random_bytes(rand::random()).into_uuid().to_string(),
        )))
    }
}

/// What makes two requests the same.
pub fn request_hash(operation: &str, subject: impl Display, body: &impl Serialize) -> RequestHash {
    let mut hash = Sha256::new();
    hash.update(format!("{operation}\n{subject}\n"));
    // Request bodies are plain structs with string keys: writing them as JSON cannot fail.
    hash.update(serde_json::to_vec(body).unwrap_or_default());
    RequestHash(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_taken_with_and_without_quotes() {
        assert_eq!(
            IdempotencyKey::parse("\"8e03978e\"").unwrap(),
            IdempotencyKey::parse("8e03978e").unwrap()
        );
    }

    #[test]
    fn keys_that_are_empty_too_long_or_not_visible_are_refused() {
        for bad in ["", "\"\"", "\"a", "a b", "a\"b", "a\\b", &"x".repeat(256)] {
            assert!(IdempotencyKey::parse(bad).is_err(), "{bad:?}");
        }
        assert!(IdempotencyKey::parse(&"x".repeat(255)).is_ok());
    }

    #[test]
    fn the_hash_tells_operation_subject_and_body_apart() {
        let base = request_hash("orders.create", "u1", &("a", 1));
        assert_eq!(base, request_hash("orders.create", "u1", &("a", 1)));
        assert_ne!(base, request_hash("orders.cancel", "u1", &("a", 1)));
        assert_ne!(base, request_hash("orders.create", "u2", &("a", 1)));
        assert_ne!(base, request_hash("orders.create", "u1", &("a", 2)));
    }
}
