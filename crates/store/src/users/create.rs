//! Creating a user: the one operation that spans shards.
//!
//! The steps, each a transaction of its own on the shard its rows belong to:
//! 1. the idempotency key's row, at the position of the key itself, with the chosen user id and a lease,
//! 2. the claims to the email address and the mobile number, pending (always in this order, so that of two requests
//!    for the same pair one gets both),
//! 3. the user,
//! 4. the claims, held,
//! 5. the answer into the key's row.
//!
//! A repeat with the same key takes the lease over once it has ended, and does again whatever was not done; all steps
//! find what an earlier attempt did under the same user id. If nobody repeats, the janitor settles the claims.
//!
//! The attempt whose lease was taken over may wake at any time and go on under that user id, as far as writing the user.
//! So who took over gives nothing back: what he claimed is the janitor's, who makes sure that no such user can be written.

use std::time::{Duration, Instant};

use row_id::{KeyId, UserId};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::{NewUser, User, user_columns, user_from};
use crate::contacts::{Claimant, Purpose, claim, hold, release_pending};
use crate::error::StoreError;
use crate::failpoint::Failpoint;
use crate::idempotency::{FoundKey, IdempotencyKey, RequestHash, StoredResponse, Written, confirm, find};
use crate::orders::now;
use crate::store::Store;
use crate::store::fault::Refusal;
use crate::store::write::{Committed, Place, Work, absent};
use crate::token::ReadToken;

/// How long an attempt may work before a repeat may take over. Longer than its writes take, unless shards are away.
const LEASE: Duration = Duration::from_secs(30);
/// User ids tried when the janitor has put a tombstone on the chosen one.
const ROUNDS: usize = 3;

const BEGIN: &str = "INSERT INTO ringwright.idempotency_keys
        (key_id, request_hash, state, resource_id, lease_holder, lease_until)
    VALUES ($1, $2, 'running', $3, $4, clock_timestamp() + make_interval(secs => $5))
    ON CONFLICT DO NOTHING RETURNING key_id";

const TAKE_OVER: &str = "UPDATE ringwright.idempotency_keys
    SET lease_holder = $2, lease_until = clock_timestamp() + make_interval(secs => $3)
    WHERE key_id = $1 AND state = 'running' AND lease_until < clock_timestamp()";

const INSERT: &str = "INSERT INTO shop.users (user_id, state, first_name, last_name, email_address, mobile_number,
        locale, time_zone, version, created_at, updated_at)
    VALUES ($1, 'active', $2, $3, $4, $5, $6, $7, 1, $8, $8) ON CONFLICT DO NOTHING";

const READ: &str = concat!(
    "SELECT u.state = 'active' AS active, ",
    user_columns!(),
    " FROM shop.users u WHERE u.user_id = $1"
);

const CHOOSE_ANOTHER: &str = "UPDATE ringwright.idempotency_keys SET resource_id = $2
    WHERE key_id = $1 AND state = 'running' AND lease_holder = $3";

const FINISH: &str = "UPDATE ringwright.idempotency_keys
    SET state = 'done', resource_id = NULL, lease_holder = NULL, lease_until = NULL,
        status = $3, location = $4, etag = $5, body = $6
    WHERE key_id = $1 AND state = 'running' AND resource_id = $2";

const FORGET: &str = "DELETE FROM ringwright.idempotency_keys
    WHERE key_id = $1 AND state = 'running' AND lease_holder = $2";

const END_LEASE: &str = "UPDATE ringwright.idempotency_keys SET lease_until = clock_timestamp()
    WHERE key_id = $1 AND state = 'running' AND lease_holder = $2";

impl Store {
    /// Creates a user whose email address and mobile number nobody else holds, on any shard.
    ///
    /// The whole of it runs in a task of its own: a client that goes away leaves nothing half done.
    ///
    /// # Errors
    /// [`StoreError::EmailTaken`], [`StoreError::MobileTaken`], [`StoreError::KeyReuse`],
    /// [`StoreError::InProgress`] (the same key is at work), [`StoreError::ClaimPending`] (another request for the same
    /// contact is), and what every write can meet; after the latter a repeat with the same key goes on where this one
    /// ended.
    pub async fn create_user(
        &self,
        key: IdempotencyKey,
        new: NewUser,
        render: impl Fn(&User) -> StoredResponse + Send + Sync + 'static,
    ) -> Result<Written, StoreError> {
        let attempt = Attempt {
            store: self.clone(),
            key_id: key.id_of_its_own(),
            request: key.request,
            new,
            holder: Uuid::from_u128(rand::random()),
            began: Instant::now(),
            alone: true,
        };
        match tokio::spawn(async move { attempt.run(&render).await }).await {
            Ok(outcome) => outcome,
            Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
            Err(_) => Err(StoreError::InProgress {
                retry_after: Duration::from_secs(1),
            }),
        }
    }
}

/// One attempt at creating one user.
struct Attempt {
    store: Store,
    key_id: KeyId,
    request: RequestHash,
    new: NewUser,
    /// Names this attempt in leases and claims.
    holder: Uuid,
    began: Instant,
    /// No earlier attempt began under this key, or none that could still go on.
    alone: bool,
}

impl Attempt {
    async fn run(mut self, render: &(impl Fn(&User) -> StoredResponse + Sync)) -> Result<Written, StoreError> {
        let begun = self
            .at_key(Begin {
                key_id: self.key_id,
                request: self.request,
                user: UserId::generate(),
                holder: self.holder,
            })
            .await?;
        let mut user_id = match begun.value {
            Begun::Done(response) => {
                let token = self.token_of(&response).await.unwrap_or(begun.token);
                return Ok(Written {
                    response,
                    repeated: true,
                    events: Vec::new(),
                    token,
                });
            }
            Begun::Ours { user, taken_over } => {
                self.alone = !taken_over;
                user
            }
        };
        self.store.inner.failpoint.hit("begun")?;
        for _ in 0..ROUNDS {
            match self.make(user_id).await {
                Ok(Some(made)) => return self.finish(made, render).await,
                Ok(None) => user_id = self.choose_another(user_id).await?,
                Err(error) => return Err(self.give_up(user_id, error).await),
            }
        }
        Err(self
            .give_up(
                user_id,
                StoreError::InProgress {
                    retry_after: Duration::from_secs(1),
                },
            )
            .await)
    }

    /// Claims the contacts and writes the user; `None` if a tombstone lies on the id.
    async fn make(&self, user: UserId) -> Result<Option<Committed<User>>, StoreError> {
        let claimant = self.claimant(user);
        let [email, mobile] = self.new.contacts();
        claim(&self.store, &email, claimant, Purpose::Create).await?;
        self.store.inner.failpoint.hit("email claimed")?;
        claim(&self.store, &mobile, claimant, Purpose::Create).await?;
        self.store.inner.failpoint.hit("mobile claimed")?;
        let insert = Insert {
            user,
            new: self.new.clone(),
        };
        let Committed { value, token } = self.store.inner.write(Place::Key(user.uuid()), insert).await?;
        let Some(written) = value else { return Ok(None) };
        self.store.inner.failpoint.hit("user written")?;
        for contact in [email, mobile] {
            hold(&self.store, &contact, claimant).await;
        }
        self.store.inner.failpoint.hit("claims held")?;
        Ok(Some(Committed { value: written, token }))
    }

    /// Stores the answer; if another attempt was first, its answer is the one.
    async fn finish(
        &self,
        made: Committed<User>,
        render: &impl Fn(&User) -> StoredResponse,
    ) -> Result<Written, StoreError> {
        let response = render(&made.value);
        let finish = Finish {
            key_id: self.key_id,
            request: self.request,
            user: made.value.user_id,
            response,
        };
        // The user is there: that its answer could not be stored must not be told as if nothing had been written.
        let (response, repeated) = self
            .at_key(finish)
            .await
            .map_err(|error| error.outcome_unknown())?
            .value;
        Ok(Written {
            response,
            repeated,
            events: Vec::new(),
            token: made.token,
        })
    }

    async fn choose_another(&self, given_up: UserId) -> Result<UserId, StoreError> {
        self.release_claims(given_up).await;
        let next = UserId::generate();
        let change = Change {
            sql: CHOOSE_ANOTHER,
            key_id: self.key_id,
            resource: Some(next),
            holder: self.holder,
        };
        if self.at_key(change).await?.value == 0 {
            return Err(StoreError::InProgress {
                retry_after: Duration::from_secs(1),
            });
        }
        Ok(next)
    }

    /// A token of the user that an earlier attempt has created: the key's row may lie on another shard, and what that one
    /// says covers no user. Best effort: the answer is right in any case.
    async fn token_of(&self, response: &StoredResponse) -> Option<ReadToken> {
        let user: UserId = response.location.as_ref()?.rsplit('/').next()?.parse().ok()?;
        let confirmed = self.store.inner.write(Place::Key(user.uuid()), Confirm).await;
        confirmed.ok().map(|confirmed| confirmed.token)
    }

    /// After a conflict nothing stays behind and the key may be used again; after trouble all stays as it is, and the
    /// lease ends, so that a repeat goes on at once.
    async fn give_up(&self, user: UserId, error: StoreError) -> StoreError {
        if Failpoint::is_crash(&error) {
            return error;
        }
        let conflict = matches!(
            error,
            StoreError::EmailTaken
                | StoreError::MobileTaken
                | StoreError::InProgress { .. }
                | StoreError::ClaimPending { .. }
        );
        // Past the lease another attempt may work under the same user id and have stamped the claims before this one
        // did, and so may one whose lease this one took over: then only the janitor may release them.
        let sql = if conflict && self.alone && self.began.elapsed() < LEASE {
            self.release_claims(user).await;
            FORGET
        } else {
            END_LEASE
        };
        let change = Change {
            sql,
            key_id: self.key_id,
            resource: None,
            holder: self.holder,
        };
        if let Err(after) = self.at_key(change).await {
            tracing::warn!(
                error = telemetry::chain(&after),
                "the lease of an idempotency key runs until its end"
            );
        }
        error
    }

    async fn release_claims(&self, user: UserId) {
        for contact in self.new.contacts() {
            release_pending(&self.store, &contact, self.claimant(user)).await;
        }
    }

    fn claimant(&self, user: UserId) -> Claimant {
        Claimant {
            user,
            holder: self.holder,
        }
    }

    async fn at_key<W: Work>(&self, work: W) -> Result<Committed<W::Output>, StoreError> {
        self.store.inner.write(Place::Key(self.key_id.uuid()), work).await
    }
}

enum Begun {
    Ours {
        user: UserId,
        /// From an attempt whose lease had ended, and which may go on all the same.
        taken_over: bool,
    },
    Done(StoredResponse),
}

struct Begin {
    key_id: KeyId,
    request: RequestHash,
    /// The id the user gets if no earlier attempt has chosen one.
    user: UserId,
    holder: Uuid,
}

impl Work for Begin {
    type Output = Begun;
    const OPERATION: &'static str = "begin to create a user";

    async fn run(&self, conn: &mut PgConnection) -> Result<Begun, Refusal> {
        let begun = sqlx::query(BEGIN)
            .bind(self.key_id.uuid())
            .bind(self.request.0.as_slice())
            .bind(self.user.uuid())
            .bind(self.holder)
            .bind(LEASE.as_secs_f64())
            .fetch_optional(&mut *conn)
            .await?;
        if begun.is_some() {
            return Ok(Begun::Ours {
                user: self.user,
                taken_over: false,
            });
        }
        match find(conn, self.key_id, self.request).await? {
            None => Err(Refusal::Again("the key's row was deleted meanwhile")),
            Some(FoundKey::Done(response)) => {
                confirm(conn).await?;
                Ok(Begun::Done(response))
            }
            Some(FoundKey::Running {
                resource,
                holder,
                leased_for,
            }) => {
                // Our own, after a commit of unknown outcome; or somebody's whose lease has ended.
                if holder != self.holder && !self.take_over(conn).await? {
                    let retry_after = leased_for.unwrap_or(Duration::from_secs(1));
                    return Err(StoreError::InProgress { retry_after }.into());
                }
                confirm(conn).await?;
                let user = UserId::from_uuid(resource).map_err(|error| Refusal::BadRow(error.to_string()))?;
                // By the id, not the holder: a take-over of unknown outcome, done again, finds this attempt as the holder.
                Ok(Begun::Ours {
                    user,
                    taken_over: user != self.user,
                })
            }
        }
    }
}

impl Begin {
    async fn take_over(&self, conn: &mut PgConnection) -> Result<bool, Refusal> {
        let taken = sqlx::query(TAKE_OVER)
            .bind(self.key_id.uuid())
            .bind(self.holder)
            .bind(LEASE.as_secs_f64())
            .execute(conn)
            .await?;
        Ok(taken.rows_affected() > 0)
    }
}

struct Insert {
    user: UserId,
    new: NewUser,
}

impl Work for Insert {
    /// `None`: a tombstone lies there.
    type Output = Option<User>;
    const OPERATION: &'static str = "create a user";

    async fn run(&self, conn: &mut PgConnection) -> Result<Option<User>, Refusal> {
        sqlx::query(INSERT)
            .bind(self.user.uuid())
            .bind(&self.new.first_name)
            .bind(&self.new.last_name)
            .bind(&self.new.email_address)
            .bind(&self.new.mobile_number)
            .bind(&self.new.locale)
            .bind(&self.new.time_zone)
            .bind(now())
            .execute(&mut *conn)
            .await?;
        let row = sqlx::query(READ).bind(self.user.uuid()).fetch_one(&mut *conn).await?;
        confirm(conn).await?;
        if !row.try_get::<bool, _>("active")? {
            return Ok(None);
        }
        user_from(&row).map_err(Refusal::BadRow)
    }
}

struct Finish {
    key_id: KeyId,
    request: RequestHash,
    user: UserId,
    response: StoredResponse,
}

impl Work for Finish {
    type Output = (StoredResponse, bool);
    const OPERATION: &'static str = "store the answer of a created user";

    async fn run(&self, conn: &mut PgConnection) -> Result<(StoredResponse, bool), Refusal> {
        let finished = sqlx::query(FINISH)
            .bind(self.key_id.uuid())
            .bind(self.user.uuid())
            .bind(i32::from(self.response.status))
            .bind(self.response.location.as_deref())
            .bind(self.response.etag.as_deref())
            .bind(&self.response.body)
            .execute(&mut *conn)
            .await?;
        if finished.rows_affected() > 0 {
            return Ok((self.response.clone(), false));
        }
        match find(conn, self.key_id, self.request).await? {
            Some(FoundKey::Done(first)) => {
                confirm(conn).await?;
                Ok((first, true))
            }
            found => {
                if found.is_none() {
                    absent(conn, self.key_id.uuid()).await?;
                }
                Err(Refusal::Again("the key's row changed hands"))
            }
        }
    }
}

/// Nothing but a commit, for its token.
struct Confirm;

impl Work for Confirm {
    type Output = ();
    const OPERATION: &'static str = "look how far a user's shard is";

    async fn run(&self, conn: &mut PgConnection) -> Result<(), Refusal> {
        confirm(conn).await
    }
}

struct Change {
    sql: &'static str,
    key_id: KeyId,
    resource: Option<UserId>,
    holder: Uuid,
}

impl Work for Change {
    type Output = u64;
    const OPERATION: &'static str = "settle the key of a user's creation";

    async fn run(&self, conn: &mut PgConnection) -> Result<u64, Refusal> {
        let query = sqlx::query(self.sql).bind(self.key_id.uuid());
        let query = match self.resource {
            Some(resource) => query.bind(resource.uuid()).bind(self.holder),
            None => query.bind(self.holder),
        };
        let changed = query.execute(&mut *conn).await?.rows_affected();
        if changed == 0 {
            absent(conn, self.key_id.uuid()).await?;
        }
        Ok(changed)
    }
}
