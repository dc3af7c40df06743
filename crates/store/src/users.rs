//! Users of the shop.

use chrono::{DateTime, Utc};
use row_id::UserId;

use crate::error::StoreError;
use crate::idempotency::{IdempotencyKey, StoredResponse, Written};
use crate::reading::{Answer, ReadAt};
use crate::store::Store;

/// A row of `shop.users`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its position is the hash of its own other bytes.
    pub user_id: UserId,
    /// Given name.
    pub first_name: String,
    /// Family name.
    pub last_name: String,
    /// Unique over all shards (by its normalised form).
    pub email_address: String,
    /// E.164, unique over all shards.
    pub mobile_number: String,
    /// BCP 47.
    pub locale: String,
    /// IANA name.
    pub time_zone: String,
    /// Counted up by each update.
    pub version: i64,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

/// What a caller says of a user; already validated (see [`crate::contacts`] for the normalised forms).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewUser {
    /// Given name.
    pub first_name: String,
    /// Family name.
    pub last_name: String,
    /// As it will be written to.
    pub email_address: String,
    /// E.164.
    pub mobile_number: String,
    /// BCP 47.
    pub locale: String,
    /// IANA name.
    pub time_zone: String,
}

impl Store {
    /// Creates a user whose email address and mobile number nobody else holds, on any shard.
    ///
    /// Steps: key row with the chosen id, claims pending, user, claims held. Each is idempotent, so a repeat with the
    /// same key resumes after a crash; a claim that lost is given back.
    pub async fn create_user(
        &self,
        key: IdempotencyKey,
        new: NewUser,
        render: impl Fn(&User) -> StoredResponse + Send + Sync + 'static,
    ) -> Result<Written, StoreError> {
        let _ = (key, new, render);
        unimplemented!()
    }

    /// Reads one user.
    pub async fn get_user(&self, id: UserId, at: &ReadAt) -> Result<Answer<Option<User>>, StoreError> {
        let _ = (id, at);
        unimplemented!()
    }

    /// Reads many users, grouped by shard; one failure is never another's. Answers stand in the order of `ids`.
    pub async fn get_users(&self, ids: &[UserId], at: &ReadAt) -> Vec<Result<Answer<Option<User>>, StoreError>> {
        let _ = (ids, at);
        unimplemented!()
    }

    /// Replaces what a user's caller may set. `expected` is If-Match; `None` overwrites whatever is there.
    pub async fn update_user(
        &self,
        key: IdempotencyKey,
        id: UserId,
        expected: Option<i64>,
        new: NewUser,
        render: impl Fn(&User) -> StoredResponse + Send + Sync + 'static,
    ) -> Result<Written, StoreError> {
        let _ = (key, id, expected, new, render);
        unimplemented!()
    }
}
