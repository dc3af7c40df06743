//! Request headers, for the description only; the extractors in [`crate::request`] read them.

use utoipa::IntoParams;

/// Of every operation that changes something by POST.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only described")]
pub struct IdempotencyHeader {
    /// Identifies this operation; the same for its repeats, another for each other operation.
    #[param(
        rename = "Idempotency-Key",
        example = "8e03978e-40d5-43e8-bc93-6894a57f9324",
        min_length = 1,
        max_length = 255
    )]
    idempotency_key: String,
}

/// Of every operation that reads.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only described")]
pub struct ReadHeaders {
    /// Tokens of earlier answers: the answer is not older than what they cover.
    #[param(rename = "Ringwright-Token")]
    token: Option<String>,
    /// `session` (default): not older than the tokens. `strong`: the newest acknowledged state.
    #[param(rename = "Ringwright-Consistency", example = "session")]
    consistency: Option<String>,
}

/// Of a change that must not overwrite another unseen.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only described")]
pub struct RequiredIfMatchHeader {
    /// The ETag of the version the change is based on, or `*`.
    #[param(rename = "If-Match", example = "\"v3\"")]
    if_match: String,
}

/// Of a change that may be tied to a version.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only described")]
pub struct OptionalIfMatchHeader {
    /// Do it only if this is still the current version.
    #[param(rename = "If-Match", example = "\"v3\"")]
    if_match: Option<String>,
}
