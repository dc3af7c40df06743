//! Changing a user, whose contacts are unique over all shards.
//!
//! A new contact is claimed first, then the user is written, then the claim is held and the old contact released. A
//! crash in between leaves a pending claim, which the janitor settles, or an old claim, which whoever wants the contact
//! next takes over.

use row_id::UserId;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::{NewUser, User, lock_user};
use crate::contacts::{Claimant, Contact, Purpose, claim, hold, hold_or_release, release_unused};
use crate::error::StoreError;
use crate::failpoint::Failpoint;
use crate::idempotency::{IdempotencyKey, Keyed, StoredResponse, Written, bind_key, repeat, with_key};
use crate::orders::now_after;
use crate::store::Store;
use crate::store::fault::Refusal;
use crate::store::write::{Committed, Place, Work};
use crate::version::BasedOn;

/// Tries when the user is changed by others meanwhile and the caller named no version.
const TRIES: usize = 5;

/// The key with its answer and the user's new state, in one statement.
const UPDATE: &str = with_key!(
    "changed AS (
         UPDATE shop.users SET first_name = $8, last_name = $9, email_address = $10, mobile_number = $11, locale = $12,
                               time_zone = $13, version = $14, updated_at = $15
         WHERE user_id = $7 AND state = 'active' AND EXISTS (SELECT FROM key) RETURNING user_id)
     SELECT count(*) AS changed FROM changed"
);

impl Store {
    /// Replaces what a user's caller may set. [`BasedOn::Any`] overwrites whatever is there.
    ///
    /// # Errors
    /// [`StoreError::UserNotFound`], [`StoreError::VersionMismatch`], [`StoreError::EmailTaken`],
    /// [`StoreError::MobileTaken`], [`StoreError::ClaimPending`] (another request for the same contact is at work),
    /// [`StoreError::KeyReuse`], and what every write can meet.
    pub async fn update_user(
        &self,
        key: IdempotencyKey,
        id: UserId,
        based_on: BasedOn,
        new: NewUser,
        render: impl Fn(&User) -> StoredResponse + Send + Sync + 'static,
    ) -> Result<Written, StoreError> {
        let update = Update {
            store: self.clone(),
            key,
            id,
            based_on,
            new,
        };
        let render = std::sync::Arc::new(render);
        match tokio::spawn(async move { update.run(render).await }).await {
            Ok(outcome) => outcome,
            Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
            Err(_) => Err(StoreError::InProgress {
                retry_after: std::time::Duration::from_secs(1),
            }),
        }
    }
}

type Render<R> = std::sync::Arc<R>;

struct Update {
    store: Store,
    key: IdempotencyKey,
    id: UserId,
    based_on: BasedOn,
    new: NewUser,
}

impl Update {
    async fn run<R>(self, render: Render<R>) -> Result<Written, StoreError>
    where
        R: Fn(&User) -> StoredResponse + Send + Sync + 'static,
    {
        let mut current = 0;
        for _ in 0..TRIES {
            let before = Before {
                key: self.key.clone(),
                id: self.id,
                based_on: self.based_on.clone(),
            };
            let before = self.at_user(before).await?;
            let user = match before.value {
                Found::Repeated(keyed) => return Ok(keyed.written(before.token)),
                Found::Now(user) => *user,
            };
            let written = self.write_with_claims(&user, &render).await?;
            match written.value {
                Some(keyed) => return Ok(keyed.written(written.token)),
                None => current = user.version + 1,
            }
        }
        Err(StoreError::VersionMismatch { current })
    }

    /// Claims what is new, writes, and settles the claims; `None` if the user was changed meanwhile.
    async fn write_with_claims<R>(
        &self,
        user: &User,
        render: &Render<R>,
    ) -> Result<Committed<Option<Keyed>>, StoreError>
    where
        R: Fn(&User) -> StoredResponse + Send + Sync + 'static,
    {
        let used = user.contacts();
        let wanted = self.new.contacts();
        let gained: Vec<&Contact> = wanted.iter().filter(|contact| !used.contains(contact)).collect();
        // Made anew for each try: a claim stamped by an earlier one is another's.
        let claimant = Claimant {
            user: self.id,
            holder: Uuid::from_u128(rand::random()),
        };
        let outcome = self.claim_and_write(user, &gained, claimant, render).await;
        match &outcome {
            Ok(Committed { value: Some(_), .. }) => {
                for contact in gained {
                    hold(&self.store, contact, claimant).await;
                }
                for contact in used.iter().filter(|contact| !wanted.contains(contact)) {
                    release_unused(&self.store, contact, self.id).await;
                }
            }
            // Of a write of unknown outcome nobody knows whether the user has the contact now.
            Err(StoreError::OutcomeUnknown { .. }) => {}
            Err(error) if Failpoint::is_crash(error) => {}
            Ok(Committed { value: None, .. }) | Err(_) => {
                for contact in gained {
                    hold_or_release(&self.store, contact, claimant).await;
                }
            }
        }
        outcome
    }

    async fn claim_and_write<R>(
        &self,
        user: &User,
        gained: &[&Contact],
        claimant: Claimant,
        render: &Render<R>,
    ) -> Result<Committed<Option<Keyed>>, StoreError>
    where
        R: Fn(&User) -> StoredResponse + Send + Sync + 'static,
    {
        for contact in gained {
            claim(&self.store, contact, claimant, Purpose::Update).await?;
        }
        self.store.inner.failpoint.hit("new contacts claimed")?;
        let write = Write {
            key: self.key.clone(),
            id: self.id,
            version: user.version,
            new: self.new.clone(),
            render: Render::clone(render),
        };
        let written = self.at_user(write).await?;
        self.store.inner.failpoint.hit("user changed")?;
        Ok(written)
    }

    async fn at_user<W: Work>(&self, work: W) -> Result<Committed<W::Output>, StoreError> {
        self.store.inner.write(Place::Key(self.id.uuid()), work).await
    }
}

enum Found {
    Repeated(Keyed),
    Now(Box<User>),
}

/// The user as it is, or the answer of an earlier request with the key.
struct Before {
    key: IdempotencyKey,
    id: UserId,
    based_on: BasedOn,
}

impl Work for Before {
    type Output = Found;
    const OPERATION: &'static str = "read a user to change it";

    async fn run(&self, conn: &mut PgConnection) -> Result<Found, Refusal> {
        let user = lock_user(conn, self.id).await?;
        // After the lock: a first request with this key may just have committed, and its repeat is no conflict.
        if let Some(first) = repeat(conn, self.key.id_at(self.id.position()), self.key.request).await? {
            return Ok(Found::Repeated(Keyed::repeated(first)));
        }
        let user = user.ok_or(StoreError::UserNotFound(self.id))?;
        if !self.based_on.allows(user.version) {
            return Err(StoreError::VersionMismatch { current: user.version }.into());
        }
        Ok(Found::Now(Box::new(user)))
    }
}

struct Write<R> {
    key: IdempotencyKey,
    id: UserId,
    version: i64,
    new: NewUser,
    render: Render<R>,
}

impl<R: Fn(&User) -> StoredResponse + Send + Sync + 'static> Work for Write<R> {
    /// `None`: the user was changed since it was read.
    type Output = Option<Keyed>;
    const OPERATION: &'static str = "change a user";

    async fn run(&self, conn: &mut PgConnection) -> Result<Option<Keyed>, Refusal> {
        let user = lock_user(conn, self.id)
            .await?
            .ok_or(StoreError::UserNotFound(self.id))?;
        let key_id = self.key.id_at(self.id.position());
        if let Some(first) = repeat(conn, key_id, self.key.request).await? {
            return Ok(Some(Keyed::repeated(first)));
        }
        if user.version != self.version {
            return Ok(None);
        }
        let user = self.changed(user);
        let response = (self.render)(&user);
        let row = bind_key(sqlx::query(UPDATE), key_id, &self.key, &response)
            .bind(user.user_id.uuid())
            .bind(&user.first_name)
            .bind(&user.last_name)
            .bind(&user.email_address)
            .bind(&user.mobile_number)
            .bind(&user.locale)
            .bind(&user.time_zone)
            .bind(user.version)
            .bind(user.updated_at)
            .fetch_one(conn)
            .await?;
        if row.try_get::<i64, _>("changed")? == 0 {
            return Err(Refusal::Again("another request used the key meanwhile"));
        }
        Ok(Some(Keyed {
            response,
            repeated: false,
            events: Vec::new(),
        }))
    }
}

impl<R> Write<R> {
    fn changed(&self, user: User) -> User {
        let new = self.new.clone();
        User {
            first_name: new.first_name,
            last_name: new.last_name,
            email_address: new.email_address,
            mobile_number: new.mobile_number,
            locale: new.locale,
            time_zone: new.time_zone,
            version: user.version + 1,
            updated_at: now_after(user.updated_at),
            ..user
        }
    }
}
