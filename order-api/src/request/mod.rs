//! What is taken from a request, each as an extractor that refuses with a problem.

pub mod body;
pub mod consistency;
pub mod fields;
pub mod idempotency_key;
pub mod if_match;
pub mod path;
pub mod query;

pub use body::{BodyLimits, JsonBody, NoBody};
pub use consistency::ReadContext;
pub use idempotency_key::IdempotencyKey;
pub use if_match::{IfMatch, OptionalIfMatch, RequiredIfMatch};
pub use path::PathId;
pub use query::QueryParams;
