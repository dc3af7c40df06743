use uuid::Uuid;

/// Why a value is no id of the wanted kind. The texts are meant for the caller of an API.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// Not a UUID in its hyphenated form. The value itself is not repeated: it may be anything.
    #[error(
        "not {expected}: want a UUID of 36 characters such as 8a3c01f2-0195-8c3e-8a4b-5d2f00c1e9a7, got {found} that do not form one"
    )]
    Malformed {
        /// What was asked for, with its article ("an order id").
        expected: &'static str,
        /// How long the value was ("12 characters").
        found: String,
    },
    /// A UUID, but not of the version or variant that ids here have.
    #[error("not {expected}: {id} is a UUID of version {version}, ids of this system are of version 8 (RFC 9562)")]
    Foreign {
        /// What was asked for, with its article.
        expected: &'static str,
        /// The UUID that was given.
        id: Uuid,
        /// Its version, 0 to 15.
        version: usize,
    },
    /// A user id whose first 32 bits are not the hash of the others.
    #[error("not a user id: {id} fails its self-check, so it was mistyped, cut, or not made by this system")]
    SelfCheck {
        /// The UUID that was given.
        id: Uuid,
    },
}
