//! Idempotency keys: the same key and request give the same answer, once.
//!
//! Only successful requests store an answer; one that failed left nothing behind, so its key may be tried again.

use std::time::Duration;

use crate::outbox::OutboxEvent;
use crate::token::ReadToken;

/// How long a key is kept.
pub const KEPT: Duration = Duration::from_secs(24 * 3600);

/// A client's key for one request. Every write takes one: a caller whose client sent none makes a random one, because
/// a commit of unknown outcome is settled through it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The authenticated client (the name of its API key): keys of two clients never meet.
    pub client: String,
    /// What the client sent, or a random text.
    pub key: String,
    /// Hash of method, path and body.
    pub request: RequestHash,
}

impl IdempotencyKey {
    /// The key of item `index` of a batch sent under this key.
    pub fn item(&self, index: usize, request: RequestHash) -> Self {
        Self {
            client: self.client.clone(),
            key: format!("{}#{index}", self.key),
            request,
        }
    }
}

/// SHA-256 over what makes two requests the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestHash(pub [u8; 32]);

/// The answer that a repeat gets again, byte by byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredResponse {
    /// HTTP status.
    pub status: u16,
    /// Value of the `Location` header.
    pub location: Option<String>,
    /// Value of the `ETag` header.
    pub etag: Option<String>,
    /// The body exactly as sent (text, not jsonb, which would reorder it).
    pub body: String,
}

/// The outcome of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// What to answer: rendered by this write, or stored by the first one with this key.
    pub response: StoredResponse,
    /// True when an earlier request with this key did the work.
    pub repeated: bool,
    /// Events committed by this write, to be published at once; pollers take them only after a short while.
    pub events: Vec<OutboxEvent>,
    /// Covers the write.
    pub token: ReadToken,
}
