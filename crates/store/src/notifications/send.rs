//! Sending: claim by lease, mark as handed over, record how it ended.

use std::time::Duration;

use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::{Claimed, Lease, NotificationId, NotificationStatus, SendOutcome};
use crate::error::StoreError;
use crate::idempotency::confirm;
use crate::store::Store;
use crate::store::fault::Refusal;
use crate::store::query::range_columns;
use crate::store::write::{Place, Work, absent, present};

/// The statements on one of the two tables, which differ in names only.
struct Statements {
    claim: &'static str,
    look: &'static str,
    give_up_lost: &'static str,
    begin: &'static str,
    end: &'static str,
}

macro_rules! statements {
    ($table:literal, $id:literal) => {
        Statements {
            claim: concat!(
                "UPDATE ",
                $table,
                " SET lease_holder = $2, lease_until = now() + make_interval(secs => $3),
                     version = version + 1, updated_at = now()
                 WHERE ",
                $id,
                " = $1 AND status = 'queued'
                       AND (lease_until IS NULL OR lease_until < now() OR lease_holder = $2)
                 RETURNING ",
                $id
            ),
            look: concat!(
                "SELECT n.status, n.lease_holder,
                     (extract(epoch FROM n.lease_until - now()) * 1000)::bigint AS leased_ms, ",
                range_columns!(),
                " FROM ",
                $table,
                " n, ringwright.range_of($1) r WHERE n.",
                $id,
                " = $1 FOR NO KEY UPDATE OF n"
            ),
            give_up_lost: concat!(
                "UPDATE ",
                $table,
                " SET status = 'unknown', lease_until = NULL, version = version + 1,
                     updated_at = now(), last_error = 'the sender ended before the provider''s answer was recorded'
                 WHERE ",
                $id,
                " = $1"
            ),
            begin: concat!(
                "UPDATE ",
                $table,
                " SET status = 'sending', attempts = attempts + 1, version = version + 1,
                     updated_at = now()
                 WHERE ",
                $id,
                " = $1 AND lease_holder = $2 AND status = 'queued' AND lease_until > now()
                 RETURNING ",
                $id
            ),
            // The holder stays, so that a repeat by the same holder is known.
            end: concat!(
                "UPDATE ",
                $table,
                " SET status = $3, provider_reference = $4, last_error = $5, lease_until = NULL,
                     sent_at = CASE WHEN $3 = 'sent' THEN now() END, version = version + 1, updated_at = now()
                 WHERE ",
                $id,
                " = $1 AND lease_holder = $2 AND lease_until IS NOT NULL
                       AND status IN ('queued', 'sending')
                 RETURNING ",
                $id
            ),
        }
    };
}

const EMAILS: Statements = statements!("shop.emails", "email_id");
const SMS: Statements = statements!("shop.sms", "sms_id");

impl NotificationId {
    fn statements(self) -> &'static Statements {
        match self {
            Self::Email(_) => &EMAILS,
            Self::Sms(_) => &SMS,
        }
    }
}

struct Seen {
    status: NotificationStatus,
    holder: Option<Uuid>,
    leased_for: Option<Duration>,
}

async fn look(conn: &mut PgConnection, id: NotificationId) -> Result<Seen, Refusal> {
    let sql = id.statements().look;
    let row = match sqlx::query(sql).bind(id.uuid()).fetch_optional(&mut *conn).await? {
        Some(row) => row,
        None => {
            absent(conn, id.uuid()).await?;
            let again = sqlx::query(sql).bind(id.uuid()).fetch_optional(&mut *conn).await?;
            again.ok_or(Refusal::Shop(StoreError::LeaseLost(id.uuid())))?
        }
    };
    present(&row)?;
    let leased_ms: Option<i64> = row.try_get("leased_ms")?;
    Ok(Seen {
        status: row.try_get::<&str, _>("status")?.parse().map_err(Refusal::BadRow)?,
        holder: row.try_get("lease_holder")?,
        leased_for: leased_ms
            .and_then(|ms| u64::try_from(ms).ok())
            .map(Duration::from_millis),
    })
}

struct Claim(Lease);

impl Work for Claim {
    type Output = Claimed;
    const OPERATION: &'static str = "claim a notification";

    async fn run(&self, conn: &mut PgConnection) -> Result<Claimed, Refusal> {
        let lease = self.0;
        let statements = lease.id.statements();
        let ours = sqlx::query(statements.claim)
            .bind(lease.id.uuid())
            .bind(lease.holder)
            .bind(lease.valid_for.as_secs_f64())
            .fetch_optional(&mut *conn)
            .await?;
        if ours.is_some() {
            return Ok(Claimed::Ours(lease));
        }
        let seen = look(conn, lease.id).await?;
        match seen {
            Seen {
                status: NotificationStatus::Queued,
                leased_for,
                ..
            }
            | Seen {
                status: NotificationStatus::Sending,
                leased_for: leased_for @ Some(_),
                ..
            } => Ok(Claimed::Busy {
                retry_after: leased_for.unwrap_or(Duration::from_millis(100)),
            }),
            // Whoever began to send it did not come back: it may be at the provider.
            Seen {
                status: NotificationStatus::Sending,
                leased_for: None,
                ..
            } => {
                sqlx::query(statements.give_up_lost)
                    .bind(lease.id.uuid())
                    .execute(conn)
                    .await?;
                Ok(Claimed::Settled(NotificationStatus::Unknown))
            }
            Seen { status, .. } => {
                confirm(conn).await?;
                Ok(Claimed::Settled(status))
            }
        }
    }
}

struct Begin(Lease);

impl Work for Begin {
    type Output = ();
    const OPERATION: &'static str = "mark a notification as being sent";

    async fn run(&self, conn: &mut PgConnection) -> Result<(), Refusal> {
        let Lease { id, holder, .. } = self.0;
        let begun = sqlx::query(id.statements().begin)
            .bind(id.uuid())
            .bind(holder)
            .fetch_optional(&mut *conn)
            .await?;
        if begun.is_some() {
            return Ok(());
        }
        let seen = look(conn, id).await?;
        confirm(conn).await?;
        // Our own, after a commit of unknown outcome.
        let ours = seen.holder == Some(holder) && seen.leased_for.is_some();
        if ours && seen.status == NotificationStatus::Sending {
            return Ok(());
        }
        Err(StoreError::LeaseLost(id.uuid()).into())
    }
}

struct End {
    lease: Lease,
    outcome: SendOutcome,
}

impl Work for End {
    type Output = ();
    const OPERATION: &'static str = "record how a notification's sending ended";

    async fn run(&self, conn: &mut PgConnection) -> Result<(), Refusal> {
        let Lease { id, holder, .. } = self.lease;
        let (status, reference, reason) = match &self.outcome {
            SendOutcome::Sent { provider_reference } => (NotificationStatus::Sent, provider_reference.as_deref(), None),
            SendOutcome::Retry { reason } => (NotificationStatus::Queued, None, Some(reason)),
            SendOutcome::Failed { reason } => (NotificationStatus::Failed, None, Some(reason)),
            SendOutcome::Unknown { reason } => (NotificationStatus::Unknown, None, Some(reason)),
        };
        let ended = sqlx::query(id.statements().end)
            .bind(id.uuid())
            .bind(holder)
            .bind(status.as_str())
            .bind(reference)
            .bind(reason)
            .fetch_optional(&mut *conn)
            .await?;
        if ended.is_some() {
            return Ok(());
        }
        let seen = look(conn, id).await?;
        confirm(conn).await?;
        // Recorded by this holder already, by a commit of unknown outcome.
        if seen.holder == Some(holder) && seen.status == status {
            return Ok(());
        }
        Err(StoreError::LeaseLost(id.uuid()).into())
    }
}

impl Store {
    /// Claims a queued notification for `lease`.
    ///
    /// # Errors
    /// What every write can meet; [`StoreError::LeaseLost`] if there is no such notification.
    pub async fn claim_notification(&self, id: NotificationId, lease: Duration) -> Result<Claimed, StoreError> {
        let lease = Lease {
            id,
            holder: Uuid::from_u128(rand::random()),
            valid_for: lease,
        };
        Ok(self.inner.write(Place::Key(id.uuid()), Claim(lease)).await?.value)
    }

    /// Marks a claimed notification `sending`: from here on its loss is ambiguous. Call it when only the message itself is
    /// left to send.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`], and what every write can meet; after any error, do not send. After
    /// [`StoreError::OutcomeUnknown`] the row may be marked: [`Store::record_outcome`] with [`SendOutcome::Retry`] takes
    /// that back, for its transaction comes after that of the mark or keeps it from being set.
    pub async fn begin_sending(&self, lease: &Lease) -> Result<(), StoreError> {
        self.inner.write(Place::Key(lease.id.uuid()), Begin(*lease)).await?;
        Ok(())
    }

    /// Records how the sending ended and gives the lease back. Its time limit does not count here: an answer that comes
    /// late is still the truth, unless somebody has settled the notification meanwhile.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`], and what every write can meet.
    pub async fn record_outcome(&self, lease: &Lease, outcome: SendOutcome) -> Result<(), StoreError> {
        let place = Place::Key(lease.id.uuid());
        self.inner.write(place, End { lease: *lease, outcome }).await?;
        Ok(())
    }
}
