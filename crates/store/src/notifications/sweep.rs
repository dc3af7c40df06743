//! Notifications that nobody holds: those whose sender died, and those left queued.

use std::time::Duration;

use ring::Ordinal;
use sqlx::PgConnection;

use super::{Notification, email_columns, email_from, sms_columns, sms_from};
use crate::error::StoreError;
use crate::store::Store;
use crate::store::fault::Refusal;
use crate::store::write::{Place, Work};

macro_rules! settle_lost {
    ($table:literal, $id:literal) => {
        concat!(
            "UPDATE ",
            $table,
            " SET status = 'unknown', lease_until = NULL, version = version + 1, updated_at = now(),
                 last_error = 'the sender ended before the provider''s answer was recorded'
             WHERE ",
            $id,
            " IN (
                 SELECT ",
            $id,
            " FROM ",
            $table,
            "
                 WHERE status = 'sending' AND lease_until < now() - make_interval(secs => $1)
                       AND (ringwright.range_of(",
            $id,
            ")).state = 'owned'
                 ORDER BY ",
            $id,
            " LIMIT $2 FOR UPDATE SKIP LOCKED)"
        )
    };
}

const SETTLE_LOST: [&str; 2] = [
    settle_lost!("shop.emails", "email_id"),
    settle_lost!("shop.sms", "sms_id"),
];

macro_rules! overdue {
    ($columns:expr, $from:literal, $id:literal) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM ",
            $from,
            " WHERE status = 'queued' AND updated_at < now() - make_interval(secs => $1)
                   AND (lease_until IS NULL OR lease_until < now()) AND (ringwright.range_of(",
            $id,
            ")).state = 'owned'
             ORDER BY updated_at LIMIT $2"
        )
    };
}

const OVERDUE_EMAILS: &str = overdue!(email_columns!(), "shop.emails e", "email_id");
const OVERDUE_SMS: &str = overdue!(sms_columns!(), "shop.sms s", "sms_id");

struct SettleLost {
    grace: Duration,
    limit: u16,
}

impl Work for SettleLost {
    type Output = u64;
    const OPERATION: &'static str = "settle notifications whose sender ended";

    async fn run(&self, conn: &mut PgConnection) -> Result<u64, Refusal> {
        let mut settled = 0;
        for sql in SETTLE_LOST {
            let done = sqlx::query(sql)
                .bind(self.grace.as_secs_f64())
                .bind(i64::from(self.limit))
                .execute(&mut *conn)
                .await?;
            settled += done.rows_affected();
        }
        Ok(settled)
    }
}

struct Overdue {
    age: Duration,
    limit: u16,
}

impl Work for Overdue {
    type Output = Vec<Notification>;
    const OPERATION: &'static str = "look for notifications left queued";

    async fn run(&self, conn: &mut PgConnection) -> Result<Vec<Notification>, Refusal> {
        let mut overdue = Vec::new();
        for sql in [OVERDUE_EMAILS, OVERDUE_SMS] {
            let rows = sqlx::query(sql)
                .bind(self.age.as_secs_f64())
                .bind(i64::from(self.limit))
                .fetch_all(&mut *conn)
                .await?;
            for row in &rows {
                let found = if sql == OVERDUE_EMAILS {
                    email_from(row).map(|email| email.map(Notification::Email))
                } else {
                    sms_from(row).map(|sms| sms.map(Notification::Sms))
                };
                overdue.extend(found.map_err(Refusal::BadRow)?);
            }
        }
        Ok(overdue)
    }
}

impl Store {
    /// Notifications that have been queued and untouched for longer than `age` and that no worker holds, oldest first:
    /// their event was lost, or nobody consumes. At most `limit` emails and as many text messages a call.
    ///
    /// # Errors
    /// What every write can meet.
    pub async fn overdue_notifications(
        &self,
        shard: Ordinal,
        age: Duration,
        limit: u16,
    ) -> Result<Vec<Notification>, StoreError> {
        Ok(self
            .inner
            .write(Place::Shard(shard), Overdue { age, limit })
            .await?
            .value)
    }

    /// Turns `sending` rows whose lease ended longer ago than `grace` into `unknown`, and tells how many. At most
    /// `limit` emails and as many text messages a call.
    ///
    /// # Errors
    /// What every write can meet.
    pub async fn settle_lost_sendings(&self, shard: Ordinal, grace: Duration, limit: u16) -> Result<u64, StoreError> {
        Ok(self
            .inner
            .write(Place::Shard(shard), SettleLost { grace, limit })
            .await?
            .value)
    }
}
