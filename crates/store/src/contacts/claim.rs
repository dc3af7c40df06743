//! Claiming, holding and releasing contacts.
//!
//! A claim names the user it is for and the attempt (`holder`) that stamped it last. `pending`: that attempt is between
//! claiming the contact and writing the user. `held`: the user was written with it.
//!
//! * A `held` claim may be stamped again by its own user, which makes it `pending`; and it may be taken over by another
//!   user if its user, read on its own shard, does not use the contact any more (it was changed, and the process died
//!   before the release) and it was not stamped since it was looked at.
//! * A `pending` claim belongs to its attempt: only that one holds or releases it. Others wait for a short while and
//!   then give up. An exception are attempts to create one user under one idempotency key, whose lease tells which of
//!   them is at work.
//! * What no attempt settles, the janitor does after a minute, and first makes sure that the attempt can do no more.

use std::time::{Duration, Instant};

use row_id::{ClaimId, UserId};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::Contact;
use crate::error::StoreError;
use crate::idempotency::confirm;
use crate::store::Store;
use crate::store::fault::Refusal;
use crate::store::query::range_columns;
use crate::store::write::{Place, Work, absent, present};
use crate::users::lock_user;

/// How long a claim waits for another user's pending one on the same contact; most are settled within milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(25);
/// What a caller is told when a pending claim outlasts that: its process may have died, and the janitor takes a minute.
const RETRY_AFTER: Duration = Duration::from_secs(5);

const CLAIM: &str = "INSERT INTO ringwright.contact_claims AS c (claim_id, kind, user_id, state, holder)
    VALUES ($1, $2, $3, 'pending', $4)
    ON CONFLICT (claim_id) DO UPDATE SET state = 'pending', holder = excluded.holder, updated_at = now()
        WHERE c.user_id = excluded.user_id AND (c.state = 'held' OR c.holder = excluded.holder OR $5)
    RETURNING claim_id";

const LOOK: &str = concat!(
    "SELECT c.user_id, c.state, c.holder, ",
    range_columns!(),
    " FROM ringwright.contact_claims c, ringwright.range_of($1) r WHERE c.claim_id = $1"
);

/// Only as it was looked at.
const TAKE_OVER: &str = "UPDATE ringwright.contact_claims
    SET user_id = $2, state = 'pending', holder = $3, updated_at = now()
    WHERE claim_id = $1 AND user_id = $4 AND holder = $5 AND state = 'held'";

const HOLD: &str = "UPDATE ringwright.contact_claims SET state = 'held', updated_at = now()
    WHERE claim_id = $1 AND user_id = $2 AND holder = $3";

const RELEASE_PENDING: &str = "DELETE FROM ringwright.contact_claims
    WHERE claim_id = $1 AND user_id = $2 AND holder = $3 AND state = 'pending'";

const RELEASE_HELD: &str = "DELETE FROM ringwright.contact_claims
    WHERE claim_id = $1 AND user_id = $2 AND holder = $3 AND state = 'held'";

/// Whom a claim is for, and by which attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claimant {
    pub(crate) user: UserId,
    pub(crate) holder: Uuid,
}

/// For what a contact is claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// For a user about to be created: earlier attempts under the same key have lost their lease.
    Create,
    /// For a user that exists.
    Update,
}

enum Claimed {
    Ours,
    Theirs(Found),
    Free,
}

/// A claim as it was looked at.
#[derive(Debug, Clone, Copy)]
struct Found {
    claimant: Claimant,
    held: bool,
}

/// Claims a contact, pending.
pub(crate) async fn claim(
    store: &Store,
    contact: &Contact,
    claimant: Claimant,
    purpose: Purpose,
) -> Result<(), StoreError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match store
            .settle(
                contact,
                Claim {
                    contact: contact.clone(),
                    claimant,
                    purpose,
                },
            )
            .await?
        {
            Claimed::Ours => return Ok(()),
            Claimed::Free => {}
            Claimed::Theirs(Found {
                claimant: theirs,
                held: true,
            }) => {
                if still_uses(store, contact, theirs.user).await? {
                    return Err(contact.taken());
                }
                let take_over = TakeOver {
                    claim: contact.claim_id(),
                    claimant,
                    from: theirs,
                };
                if store.settle(contact, take_over).await? {
                    return Ok(());
                }
            }
            Claimed::Theirs(Found { held: false, .. }) => {
                if Instant::now() >= deadline {
                    return Err(StoreError::ClaimPending {
                        retry_after: RETRY_AFTER,
                    });
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Makes a claim lasting, after its user was written. Best effort: what fails is left to the janitor.
pub(crate) async fn hold(store: &Store, contact: &Contact, claimant: Claimant) {
    settle_or_leave(store, contact, HOLD, claimant).await;
}

/// Gives back what this attempt claimed and its user was not written with. Best effort, as [`hold`].
pub(crate) async fn release_pending(store: &Store, contact: &Contact, claimant: Claimant) {
    settle_or_leave(store, contact, RELEASE_PENDING, claimant).await;
}

/// Settles what this attempt claimed for a user that it did not change after all. Another attempt may have changed the user
/// to the same contact, and this one have stamped its claim again: then the user has it, and it is made lasting. Best
/// effort, as [`hold`].
pub(crate) async fn hold_or_release(store: &Store, contact: &Contact, claimant: Claimant) {
    match still_uses(store, contact, claimant.user).await {
        Ok(true) => hold(store, contact, claimant).await,
        Ok(false) => release_pending(store, contact, claimant).await,
        Err(error) => leave_to_janitor(contact, &error),
    }
}

/// Changes a pending claim, or leaves it to the janitor.
async fn settle_or_leave(store: &Store, contact: &Contact, sql: &'static str, claimant: Claimant) {
    let claim = contact.claim_id();
    if let Err(error) = store.settle(contact, Change { sql, claim, claimant }).await {
        leave_to_janitor(contact, &error);
    }
}

fn leave_to_janitor(contact: &Contact, error: &StoreError) {
    let claim = contact.claim_id();
    tracing::warn!(error = telemetry::chain(error), %claim, "a claim stays pending until the janitor comes");
}

/// Gives back what a user has left, unless it has come back to it. Best effort: what stays is taken over by whoever
/// claims it next.
pub(crate) async fn release_unused(store: &Store, contact: &Contact, user: UserId) {
    let release = async {
        let found = store.settle(contact, Look(contact.claim_id())).await?;
        let Some(Found { claimant, held: true }) = found.filter(|found| found.claimant.user == user) else {
            return Ok(());
        };
        if still_uses(store, contact, user).await? {
            return Ok(());
        }
        store
            .settle(
                contact,
                Change {
                    sql: RELEASE_HELD,
                    claim: contact.claim_id(),
                    claimant,
                },
            )
            .await
            .map(drop)
    };
    if let Err::<(), StoreError>(error) = release.await {
        tracing::warn!(error = telemetry::chain(&error), claim = %contact.claim_id(), "a claim that is not used any more was not released");
    }
}

/// Whether a user, as its own shard's master has it, uses a contact.
async fn still_uses(store: &Store, contact: &Contact, user: UserId) -> Result<bool, StoreError> {
    let uses = Uses {
        contact: contact.clone(),
        user,
    };
    Ok(store.inner.write(Place::Key(user.uuid()), uses).await?.value)
}

impl Store {
    /// Runs a transaction where a contact's claim lives.
    async fn settle<W: Work>(&self, contact: &Contact, work: W) -> Result<W::Output, StoreError> {
        Ok(self
            .inner
            .write(Place::Key(contact.claim_id().uuid()), work)
            .await?
            .value)
    }
}

struct Claim {
    contact: Contact,
    claimant: Claimant,
    purpose: Purpose,
}

impl Work for Claim {
    type Output = Claimed;
    const OPERATION: &'static str = "claim a contact";

    async fn run(&self, conn: &mut PgConnection) -> Result<Claimed, Refusal> {
        let ours = sqlx::query(CLAIM)
            .bind(self.contact.claim_id().uuid())
            .bind(self.contact.kind.as_str())
            .bind(self.claimant.user.uuid())
            .bind(self.claimant.holder)
            .bind(self.purpose == Purpose::Create)
            .fetch_optional(&mut *conn)
            .await?;
        if ours.is_some() {
            return Ok(Claimed::Ours);
        }
        let found = look(conn, self.contact.claim_id()).await?;
        // It is acted on: what was read must be as lasting as what was written.
        confirm(conn).await?;
        Ok(found.map_or(Claimed::Free, Claimed::Theirs))
    }
}

async fn look(conn: &mut PgConnection, claim: ClaimId) -> Result<Option<Found>, Refusal> {
    let Some(row) = sqlx::query(LOOK).bind(claim.uuid()).fetch_optional(conn).await? else {
        return Ok(None);
    };
    present(&row)?;
    let user = UserId::from_uuid(row.try_get("user_id")?).map_err(|error| Refusal::BadRow(error.to_string()))?;
    let held = row.try_get::<&str, _>("state")? == "held";
    Ok(Some(Found {
        claimant: Claimant {
            user,
            holder: row.try_get("holder")?,
        },
        held,
    }))
}

struct Look(ClaimId);

impl Work for Look {
    type Output = Option<Found>;
    const OPERATION: &'static str = "look at a claim to a contact";

    async fn run(&self, conn: &mut PgConnection) -> Result<Option<Found>, Refusal> {
        let found = look(conn, self.0).await?;
        if found.is_none() {
            absent(conn, self.0.uuid()).await?;
        }
        confirm(conn).await?;
        Ok(found)
    }
}

struct TakeOver {
    claim: ClaimId,
    claimant: Claimant,
    from: Claimant,
}

impl Work for TakeOver {
    type Output = bool;
    const OPERATION: &'static str = "take over a contact that is not used any more";

    async fn run(&self, conn: &mut PgConnection) -> Result<bool, Refusal> {
        let taken = sqlx::query(TAKE_OVER)
            .bind(self.claim.uuid())
            .bind(self.claimant.user.uuid())
            .bind(self.claimant.holder)
            .bind(self.from.user.uuid())
            .bind(self.from.holder)
            .execute(&mut *conn)
            .await?;
        if taken.rows_affected() == 0 {
            absent(conn, self.claim.uuid()).await?;
        }
        Ok(taken.rows_affected() > 0)
    }
}

struct Change {
    sql: &'static str,
    claim: ClaimId,
    claimant: Claimant,
}

impl Work for Change {
    type Output = u64;
    const OPERATION: &'static str = "settle a claim to a contact";

    async fn run(&self, conn: &mut PgConnection) -> Result<u64, Refusal> {
        for last in [false, true] {
            let changed = sqlx::query(self.sql)
                .bind(self.claim.uuid())
                .bind(self.claimant.user.uuid())
                .bind(self.claimant.holder)
                .execute(&mut *conn)
                .await?;
            if changed.rows_affected() > 0 || last {
                return Ok(changed.rows_affected());
            }
            absent(conn, self.claim.uuid()).await?;
        }
        Ok(0)
    }
}

struct Uses {
    contact: Contact,
    user: UserId,
}

impl Work for Uses {
    type Output = bool;
    const OPERATION: &'static str = "look whether a user uses a contact";

    async fn run(&self, conn: &mut PgConnection) -> Result<bool, Refusal> {
        let uses = lock_user(conn, self.user)
            .await?
            .is_some_and(|user| user.contacts().contains(&self.contact));
        confirm(conn).await?;
        Ok(uses)
    }
}
