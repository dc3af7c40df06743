//! Settles claims whose process died between the steps.

use std::time::Duration;

use ring::Ordinal;
use row_id::{ClaimId, UserId};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::error::StoreError;
use crate::store::Store;
use crate::store::fault::Refusal;
use crate::store::write::{Place, Work};
use crate::users::lock_user;

/// Settles claims whose process died between the steps.
#[derive(Debug, Clone)]
pub struct ClaimJanitor {
    /// Only claims pending for longer are touched; one minute in production.
    pub older_than: Duration,
    /// Most claims settled in a run on one shard.
    pub limit: u16,
}

impl Default for ClaimJanitor {
    fn default() -> Self {
        Self {
            older_than: Duration::from_secs(60),
            limit: 100,
        }
    }
}

/// What a run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClaimsSettled {
    /// Their user exists and uses them: held.
    pub held: u64,
    /// Nobody uses them: released.
    pub released: u64,
}

const OLD: &str = "SELECT claim_id, user_id, holder FROM ringwright.contact_claims
    WHERE state = 'pending' AND updated_at < now() - make_interval(secs => $1)
          AND (ringwright.range_of(claim_id)).state = 'owned'
    ORDER BY updated_at LIMIT $2";

/// A user that was never written can now never be: a creator that wakes up late conflicts with this row.
const TOMBSTONE: &str = "INSERT INTO shop.users (user_id, state, first_name, last_name, email_address, mobile_number,
        locale, time_zone, created_at, updated_at)
    VALUES ($1, 'tombstone', '', '', '', '', '', '', now(), now()) ON CONFLICT DO NOTHING RETURNING user_id";

const IS_TOMBSTONE: &str = "SELECT state = 'tombstone' FROM shop.users WHERE user_id = $1";

/// A change of this user that is under way finds another version than it read, and begins again.
const DISTURB: &str = "UPDATE shop.users SET version = version + 1, updated_at = now() WHERE user_id = $1";

/// Only as they were looked at.
const HOLD: &str = "UPDATE ringwright.contact_claims SET state = 'held', updated_at = now()
    WHERE claim_id = $1 AND user_id = $2 AND holder = $3 AND state = 'pending'";

const RELEASE: &str = "DELETE FROM ringwright.contact_claims
    WHERE claim_id = $1 AND user_id = $2 AND holder = $3 AND state = 'pending'";

impl ClaimJanitor {
    /// Settles the claims of one shard.
    ///
    /// A claim that its user does not use is released only after the user's row, on its own shard, was made to refuse
    /// the attempt that claimed: by a tombstone where there is no row, by a new version where there is one.
    ///
    /// # Errors
    /// What every write can meet. A claim that cannot be settled, for its user's shard is away, keeps none of the others
    /// from it; the last error is returned.
    pub async fn run(&self, store: &Store, shard: Ordinal) -> Result<ClaimsSettled, StoreError> {
        let mut settled = ClaimsSettled::default();
        let mut failed = None;
        for old in store.inner.write(Place::Shard(shard), Old(self.clone())).await?.value {
            match settle(store, old).await {
                Ok((used, changed)) => {
                    tracing::info!(shard = %shard, claim = %old.claim, user = %old.user, used, changed, "settled an old claim");
                    let count = if used { &mut settled.held } else { &mut settled.released };
                    *count += changed;
                }
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(settled), Err)
    }
}

/// Whether the claim is used, and how many rows that changed.
async fn settle(store: &Store, old: OldClaim) -> Result<(bool, u64), StoreError> {
    let used = store.inner.write(Place::Key(old.user.uuid()), Secure(old)).await?.value;
    let sql = if used { HOLD } else { RELEASE };
    let settled = store
        .inner
        .write(Place::Key(old.claim.uuid()), Settle { sql, old })
        .await?;
    Ok((used, settled.value))
}

#[derive(Debug, Clone, Copy)]
struct OldClaim {
    claim: ClaimId,
    user: UserId,
    holder: Uuid,
}

struct Old(ClaimJanitor);

impl Work for Old {
    type Output = Vec<OldClaim>;
    const OPERATION: &'static str = "find old claims to contacts";

    async fn run(&self, conn: &mut PgConnection) -> Result<Vec<OldClaim>, Refusal> {
        let rows = sqlx::query(OLD)
            .bind(self.0.older_than.as_secs_f64())
            .bind(i64::from(self.0.limit))
            .fetch_all(conn)
            .await?;
        let foreign = |error: row_id::IdError| Refusal::BadRow(error.to_string());
        rows.iter()
            .map(|row| {
                Ok(OldClaim {
                    claim: ClaimId::from_uuid(row.try_get("claim_id")?).map_err(foreign)?,
                    user: UserId::from_uuid(row.try_get("user_id")?).map_err(foreign)?,
                    holder: row.try_get("holder")?,
                })
            })
            .collect()
    }
}

/// Tells whether the user uses the contact, and if not, sees to it that the attempt that claimed it comes too late.
struct Secure(OldClaim);

impl Work for Secure {
    type Output = bool;
    const OPERATION: &'static str = "secure the user of an old claim";

    async fn run(&self, conn: &mut PgConnection) -> Result<bool, Refusal> {
        let id = self.0.user.uuid();
        if let Some(user) = lock_user(conn, self.0.user).await? {
            let used = user.contacts().iter().any(|contact| contact.claim_id() == self.0.claim);
            if !used {
                sqlx::query(DISTURB).bind(id).execute(conn).await?;
            }
            return Ok(used);
        }
        if sqlx::query(TOMBSTONE)
            .bind(id)
            .fetch_optional(&mut *conn)
            .await?
            .is_none()
        {
            let tombstone: bool = sqlx::query_scalar(IS_TOMBSTONE).bind(id).fetch_one(conn).await?;
            if !tombstone {
                return Err(Refusal::Again("the user of an old claim was just created"));
            }
        }
        Ok(false)
    }
}

struct Settle {
    sql: &'static str,
    old: OldClaim,
}

impl Work for Settle {
    type Output = u64;
    const OPERATION: &'static str = "settle an old claim to a contact";

    async fn run(&self, conn: &mut PgConnection) -> Result<u64, Refusal> {
        let settled = sqlx::query(self.sql)
            .bind(self.old.claim.uuid())
            .bind(self.old.user.uuid())
            .bind(self.old.holder)
            .execute(conn)
            .await?;
        Ok(settled.rows_affected())
    }
}
