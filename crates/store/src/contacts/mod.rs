//! Contact claims: an address or number belongs to one user over all shards.
//!
//! A claim's key is the hash of (kind, normalised value), so a second claim is a primary-key conflict on one shard.

mod claim;
mod janitor;

use row_id::ClaimId;

use crate::error::StoreError;

pub use crate::idempotency::KeyJanitor;
pub(crate) use claim::{Claimant, Purpose, claim, hold, hold_or_release, release_pending, release_unused};
pub use janitor::{ClaimJanitor, ClaimsSettled};

/// What a claim is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContactKind {
    /// An email address.
    Email,
    /// A mobile number.
    Mobile,
}

impl ContactKind {
    /// As in the database and in the claim's key.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Mobile => "mobile",
        }
    }
}

/// The form under which an email address is unique: trimmed and in lower case.
///
/// The local part is case-sensitive by the standard and by no provider in use; two users who differ in case only are
/// one person or an impostor.
pub fn normalised_email(address: &str) -> String {
    address.trim().to_lowercase()
}

/// The form under which a mobile number is unique: `+` and digits.
pub fn normalised_mobile(number: &str) -> String {
    number.chars().filter(|c| c.is_ascii_digit() || *c == '+').collect()
}

/// An address or number in the form under which it is unique.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Contact {
    kind: ContactKind,
    normalised: String,
}

impl Contact {
    pub(crate) fn email(address: &str) -> Self {
        Self {
            kind: ContactKind::Email,
            normalised: normalised_email(address),
        }
    }

    pub(crate) fn mobile(number: &str) -> Self {
        Self {
            kind: ContactKind::Mobile,
            normalised: normalised_mobile(number),
        }
    }

    pub(crate) fn claim_id(&self) -> ClaimId {
        ClaimId::derive(self.kind.as_str(), &self.normalised)
    }

    pub(crate) fn taken(&self) -> StoreError {
        match self.kind {
            ContactKind::Email => StoreError::EmailTaken,
            ContactKind::Mobile => StoreError::MobileTaken,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_spellings_of_one_contact_are_one_claim() {
        assert!(Contact::email(" Ada@Example.org ").claim_id() == Contact::email("ada@example.org").claim_id());
        assert!(Contact::mobile("+44 20 7946-0000").claim_id() == Contact::mobile("+442079460000").claim_id());
        assert!(Contact::email("ada@example.org").claim_id() != Contact::email("ada@example.com").claim_id());
    }
}
