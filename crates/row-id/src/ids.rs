use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use crate::layout;
use crate::{IdError, Position};

/// What all ids share; `$check` looks at what version and variant do not tell.
macro_rules! row_id {
    ($(#[$doc:meta])* $name:ident, $expected:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// Takes a UUID, from the database say, as an id of this kind.
            ///
            /// # Errors
            /// If the UUID cannot be such an id; nothing tells one kind of a user's rows from another.
            pub fn from_uuid(id: Uuid) -> Result<Self, IdError> {
                if !layout::is_ours(id) {
                    return Err(IdError::Foreign { expected: $expected, id, version: id.get_version_num() });
                }
                let check: fn(Uuid) -> Result<(), IdError> = $check;
                check(id).map(|()| Self(id))
            }

            /// The id as the database and the wire carry it.
            pub const fn uuid(self) -> Uuid {
                self.0
            }

            /// Where on the ring the row lives.
            pub fn position(self) -> Position {
                layout::position(self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let id = text.parse::<Hyphenated>().map_err(|_| IdError::Malformed {
                    expected: $expected,
                    found: format!("{} characters", text.chars().count()),
                })?;
                Self::from_uuid(id.into_uuid())
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Uuid {
                id.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

/// An id that carries the time it was made.
macro_rules! timed {
    ($name:ident) => {
        impl $name {
            /// When the id was made, in unix milliseconds by the clock of its maker.
            pub fn created_ms(self) -> u64 {
                layout::millis(self.0)
            }
        }
    };
}

/// An id of a row that lives where its user lives.
macro_rules! owned_by_a_user {
    ($(#[$doc:meta])* $name:ident, $expected:literal) => {
        row_id!($(#[$doc])* $name, $expected, |_| Ok(()));
        timed!($name);

        impl $name {
            /// A new id at the position of the user that the row belongs to.
            pub fn generate(position: Position) -> Self {
                Self(layout::now(position))
            }
        }
    };
}

row_id!(
    /// Key of `users`. Its position is the hash of its other bytes, so that a mistyped one is refused
    /// (a wrong id passes in one of 2^32 cases).
    UserId,
    "a user id",
    |id| if layout::own_position(id) == layout::position(id) { Ok(()) } else { Err(IdError::SelfCheck { id }) }
);
timed!(UserId);

impl UserId {
    /// A new user's id; its position is as good as random.
    pub fn generate() -> Self {
        Self(layout::self_positioned(layout::now(Position::new(0))))
    }
}

owned_by_a_user!(
    /// Key of `orders`.
    OrderId,
    "an order id"
);
owned_by_a_user!(
    /// Key of `invoices`.
    InvoiceId,
    "an invoice id"
);
owned_by_a_user!(
    /// Key of `emails`.
    EmailId,
    "an email id"
);
owned_by_a_user!(
    /// Key of `sms`.
    SmsId,
    "an SMS id"
);
owned_by_a_user!(
    /// Key of the outbox, and the message id of the event.
    EventId,
    "an event id"
);

row_id!(
    /// Key of `idempotency_keys`: a position and a hash of what the key identifies.
    KeyId,
    "an idempotency key id",
    |_| Ok(())
);

impl KeyId {
    /// The id of an idempotency key: `content` is everything that makes it one (client, key, index in a batch),
    /// joined so that no two cases join to the same bytes.
    pub fn derive(position: Position, content: &[u8]) -> Self {
        Self(layout::hashed(position, content))
    }
}

row_id!(
    /// Key of `contact_claims`: the same contact gives the same key, so a second claim of it is a conflict.
    ClaimId,
    "a contact claim id",
    |_| Ok(())
);

impl ClaimId {
    /// The id of the claim to a contact, of a kind such as `email`. Two spellings of one address claim the same only
    /// if the caller has normalised them to the same.
    pub fn derive(kind: &str, normalised: &str) -> Self {
        // A kind never contains the separator, so no two pairs join to the same bytes.
        let content = [kind.as_bytes(), b"\0", normalised.as_bytes()].concat();
        Self(layout::hashed(Position::of(&content), &content))
    }
}

#[cfg(test)]
#[path = "ids_tests.rs"]
mod tests;
