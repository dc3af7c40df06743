//! Contact claims: an address or number belongs to one user over all shards.
//!
//! A claim's key is the hash of (kind, normalised value), so a second claim is a primary-key conflict on one shard.

use std::time::Duration;

use ring::Ordinal;

use crate::error::StoreError;
use crate::store::Store;

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

/// Settles claims whose creator died between the steps: pending for longer than `older_than`.
#[derive(Debug, Clone)]
pub struct ClaimJanitor {
    /// Only claims pending for longer are touched; one minute in production.
    pub older_than: Duration,
    /// Most claims settled in a run on one shard.
    pub limit: u16,
}

/// What a run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClaimsSettled {
    /// Their user exists and uses them: held.
    pub held: u64,
    /// Nobody uses them: released.
    pub released: u64,
}

impl ClaimJanitor {
    /// Settles the claims of one shard.
    ///
    /// A claim whose user does not exist is released only after a tombstone with that user id was inserted on the
    /// user's shard: a creator that wakes late then conflicts with it instead of using an address given to another.
    pub async fn run(&self, store: &Store, shard: Ordinal) -> Result<ClaimsSettled, StoreError> {
        let _ = (store, shard);
        unimplemented!()
    }
}

/// Sweeps idempotency keys older than [`crate::idempotency::KEPT`].
#[derive(Debug, Clone)]
pub struct KeyJanitor {
    /// Keys younger than this stay.
    pub older_than: Duration,
    /// Most keys deleted in a run on one shard.
    pub limit: u32,
}

impl KeyJanitor {
    /// Sweeps one shard and tells how many keys went.
    pub async fn run(&self, store: &Store, shard: Ordinal) -> Result<u64, StoreError> {
        let _ = (store, shard);
        unimplemented!()
    }
}
