//! Every kind of problem the API answers with. The slug is part of the API: clients switch on it, so one is never
//! renamed and never changes its status.

/// One kind of problem: what `GET /problems/{slug}` explains.
#[derive(Debug)]
pub struct ProblemType {
    /// The last part of the type URI, `/problems/<slug>`.
    pub slug: &'static str,
    /// The HTTP status every answer of this kind has.
    pub status: u16,
    /// A short summary, the same for every occurrence.
    pub title: &'static str,
    /// What has happened.
    pub meaning: &'static str,
    /// What the client does about it.
    pub remedy: &'static str,
}

/// Declares the problem types and the list of all of them, so that none can be missing from the list.
macro_rules! problem_types {
    ($($name:ident = $status:literal $slug:literal, $title:literal: $meaning:literal; $remedy:literal)*) => {
        $(#[doc = $title]
        pub static $name: ProblemType =
            ProblemType { slug: $slug, status: $status, title: $title, meaning: $meaning, remedy: $remedy };)*

        /// All problem types, in the order of their status.
        pub static ALL: &[&ProblemType] = &[$(&$name),*];
    };
}

problem_types! {
    MALFORMED_REQUEST = 400 "malformed-request", "The request is malformed":
        "The path, a query parameter or a header is not what this route takes; the detail names it.";
        "Correct the request. Sending it again unchanged gives the same answer."
    MALFORMED_JSON = 400 "malformed-json", "The body is not valid JSON":
        "The body is not JSON as RFC 8259 has it: a syntax error, a lone surrogate, text that is not UTF-8, a number out of range or nesting deeper than 128 levels. The detail tells line and column.";
        "Correct the body."
    INVALID_ID = 400 "invalid-id", "The id is not one of ours":
        "An id in the path is not a UUID that Ringwright has made. A user id carries a check, so a mistyped one is found here rather than as a missing user.";
        "Compare the id with the one that was returned when the row was created."
    INVALID_CURSOR = 400 "invalid-cursor", "The cursor is not valid":
        "The cursor was not made by this API, was changed, or belongs to another list.";
        "Start the list again without a cursor, and take cursors only from the field `next_cursor`."
    INVALID_TOKEN = 400 "invalid-consistency-token", "The consistency token is not valid":
        "The header Ringwright-Token is not one that an answer of this API carried, or it names a state that its shard was never in.";
        "Send back the header unchanged as it was received, or leave it out. After a shard was restored from a backup, older tokens are of no use any more."
    IDEMPOTENCY_KEY_MISSING = 400 "idempotency-key-missing", "An Idempotency-Key is required":
        "Every POST that changes something needs the header Idempotency-Key, so that it can be repeated without being done twice.";
        "Send a fresh key, for example a random UUID, with each new operation, and the same key when you repeat it."
    IDEMPOTENCY_KEY_INVALID = 400 "idempotency-key-invalid", "The Idempotency-Key is not valid":
        "The header has to be sent once, with 1 to 255 visible ASCII characters, with or without the quotes of a structured-field string.";
        "Use, for example, a random UUID."
    UNAUTHENTICATED = 401 "unauthenticated", "A valid API key is required":
        "The header Authorization is missing, is not of the form `Bearer <key>`, or the key is not known.";
        "Send a key that the operators of this API have given you; a key that was rotated away is no longer known."
    FORBIDDEN = 403 "insufficient-scope", "The API key lacks the scope":
        "The key is known but does not have the scope that this operation needs.";
        "Use a key with the scope named in the detail."
    ROUTE_NOT_FOUND = 404 "route-not-found", "There is nothing at this path":
        "No route of this API matches the path.";
        "See /docs for the routes there are."
    USER_NOT_FOUND = 404 "user-not-found", "The user does not exist":
        "The id is well-formed, but no user has it.";
        "Check which user was meant. If it was created a moment ago, send the Ringwright-Token of that answer along."
    ORDER_NOT_FOUND = 404 "order-not-found", "The order does not exist":
        "The id is well-formed, but no order has it.";
        "Check which order was meant. If it was placed a moment ago, send the Ringwright-Token of that answer along."
    INVOICE_NOT_FOUND = 404 "invoice-not-found", "The invoice does not exist":
        "The id is well-formed, but no invoice has it.";
        "Check which invoice was meant. If it was generated a moment ago, send the Ringwright-Token of that answer along."
    PROBLEM_NOT_FOUND = 404 "problem-not-found", "There is no such problem type":
        "The last part of the path is not the slug of a problem type.";
        "See /problems for all of them."
    METHOD_NOT_ALLOWED = 405 "method-not-allowed", "The path does not take this method":
        "There is a route at this path, but not for this method; the header Allow lists those it takes.";
        "Use one of them."
    NOT_ACCEPTABLE = 406 "not-acceptable", "None of the accepted media types can be made":
        "The header Accept rules out every form this resource has.";
        "Accept one of the media types named in the detail."
    REQUEST_TIMEOUT = 408 "request-timeout", "The body did not arrive in time":
        "The body of the request was sent too slowly and the request was given up; nothing was done.";
        "Send it again, with the same Idempotency-Key."
    CONTACT_TAKEN = 409 "contact-taken", "Another user has this address or number":
        "An email address and a mobile number each belong to one user at most; the errors name the field.";
        "Use another one, or change the user who has it."
    CONTACT_CLAIM_PENDING = 409 "contact-claim-pending", "Another request is claiming this address or number":
        "Another request is just creating or changing a user with the same email address or mobile number and has not ended, so it is not known yet whose it will be. Nothing was done.";
        "Wait for the seconds in Retry-After, then send the request again, with the same Idempotency-Key if it had one. If the other request succeeds, the answer is contact-taken."
    ORDER_STATE = 409 "order-state-conflict", "The order's status does not allow this":
        "An order goes from created to processed or to cancelled, and from neither of these any further; the detail tells its status.";
        "Get the order to see what has been done with it."
    INVOICE_EXISTS = 409 "invoice-exists", "The order has its invoice already":
        "An order is invoiced once.";
        "Get the invoice that is named in the detail."
    IDEMPOTENCY_KEY_IN_USE = 409 "idempotency-key-in-use", "The first request with this key is still running":
        "A request with the same Idempotency-Key has begun and has not ended.";
        "Wait for the seconds in Retry-After, then send the request again with the same key to get its answer."
    PRECONDITION_FAILED = 412 "precondition-failed", "The resource has changed":
        "The entity tag in If-Match is not that of the current version.";
        "Get the resource, apply the change to what it is now, and send it with the new entity tag."
    BODY_TOO_LARGE = 413 "body-too-large", "The body is too large":
        "The body is larger than this API takes; the detail tells the limit in bytes.";
        "Send less, for example a batch in several parts."
    UNSUPPORTED_MEDIA_TYPE = 415 "unsupported-media-type", "The body is not of a supported media type":
        "The route takes JSON in UTF-8 without content coding; the detail tells what was sent.";
        "Send `Content-Type: application/json`."
    INVALID_FIELDS = 422 "invalid-fields", "Fields of the body are not valid":
        "The body is JSON but not what this operation takes. Each of the errors points at a field with a JSON pointer.";
        "Correct the fields. A repeated request needs a fresh Idempotency-Key only if the first one was accepted."
    IDEMPOTENCY_KEY_REUSED = 422 "idempotency-key-reused", "The Idempotency-Key was used for another request":
        "A key stands for one request: the same operation on the same resource with the same body.";
        "Use a fresh key for a new operation."
    PRECONDITION_REQUIRED = 428 "precondition-required", "If-Match is required":
        "A change needs the entity tag of the version it is based on, so that no other change is overwritten unseen.";
        "Get the resource and send its ETag in If-Match."
    TOO_MANY_REQUESTS = 429 "too-many-requests", "The API key is used too often":
        "The key has more requests a second than it is allowed.";
        "Wait for the seconds in Retry-After."
    INTERNAL = 500 "internal-error", "Something went wrong inside":
        "The fault is on this side. The log has it under the request id that the answer carries.";
        "Repeat the request with the same Idempotency-Key; report the request id if it happens again."
    OVERLOADED = 503 "overloaded", "Too much to do at the moment":
        "The request was refused at once, before anything was done, because a queue is full.";
        "Wait for the seconds in Retry-After, then send it again with the same Idempotency-Key."
    SHARD_UNAVAILABLE = 503 "shard-unavailable", "The database with this data cannot be reached":
        "The shard that owns the data does not answer, is failing over, or its keys are just being moved. Other users' data may well be reachable.";
        "Wait for the seconds in Retry-After, then send it again with the same Idempotency-Key."
    OUTCOME_UNKNOWN = 503 "outcome-unknown", "Whether it was done is not known":
        "The operation was begun, and its confirmation did not come. It may have been done.";
        "Send the same request with the same Idempotency-Key: it is done once at most, and that answer tells the outcome."
    TIMED_OUT = 503 "timed-out", "The answer was not ready in time":
        "The request took longer than this API allows for one. A request that changes something goes on and may still be done.";
        "Send it again, with the same Idempotency-Key: that answer tells the outcome."
}

/// The problem type with this slug.
pub fn by_slug(slug: &str) -> Option<&'static ProblemType> {
    ALL.iter().copied().find(|kind| kind.slug == slug)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::ALL;

    #[test]
    fn slugs_are_unique_and_fit_into_a_uri() {
        let slugs: HashSet<_> = ALL.iter().map(|kind| kind.slug).collect();
        assert_eq!(slugs.len(), ALL.len());
        assert!(
            slugs
                .iter()
                .all(|slug| slug.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'))
        );
    }

    #[test]
    fn every_status_is_an_error() {
        assert!(ALL.iter().all(|kind| (400..600).contains(&kind.status)));
    }
}
