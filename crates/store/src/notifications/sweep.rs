//! Notifications whose sender died.

use std::time::Duration;

use ring::Ordinal;
use sqlx::PgConnection;

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

impl Store {
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
