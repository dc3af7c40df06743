//! Making the rows of an event.

use row_id::{EmailId, SmsId};
use sqlx::PgConnection;
use sqlx::postgres::PgRow;

use super::{NewNotifications, QueuedNotifications, email_columns, email_from, sms_columns, sms_from};
use crate::error::StoreError;
use crate::idempotency::confirm;
use crate::store::Store;
use crate::store::fault::Refusal;
use crate::store::write::{Place, Work};

const QUEUE_EMAIL: &str = "INSERT INTO shop.emails
        (email_id, user_email_address, order_id, invoice_id, kind, sequence, status, created_at, updated_at)
    VALUES ($1, $2, $3, $4, $5, $6, 'queued', now(), now())
    ON CONFLICT (order_id, kind, sequence) DO NOTHING";

const QUEUE_SMS: &str = "INSERT INTO shop.sms
        (sms_id, mobile_number, order_id, kind, sequence, status, created_at, updated_at)
    VALUES ($1, $2, $3, $4, $5, 'queued', now(), now())
    ON CONFLICT (order_id, kind, sequence) DO NOTHING";

const EMAIL_OF_EVENT: &str = concat!(
    "SELECT ",
    email_columns!(),
    " FROM shop.emails e WHERE e.order_id = $1 AND e.kind = $2 AND e.sequence = $3"
);

const SMS_OF_EVENT: &str = concat!(
    "SELECT ",
    sms_columns!(),
    " FROM shop.sms s WHERE s.order_id = $1 AND s.kind = $2 AND s.sequence = $3"
);

struct Queue(NewNotifications);

impl Work for Queue {
    type Output = QueuedNotifications;
    const OPERATION: &'static str = "queue an order's notifications";

    async fn run(&self, conn: &mut PgConnection) -> Result<QueuedNotifications, Refusal> {
        let new = &self.0;
        let position = new.order_id.position();
        let mut queued = QueuedNotifications { email: None, sms: None };
        if let Some(address) = &new.email_address {
            sqlx::query(QUEUE_EMAIL)
                .bind(EmailId::generate(position).uuid())
                .bind(address)
                .bind(new.order_id.uuid())
                .bind(new.invoice_id.map(row_id::InvoiceId::uuid))
                .bind(new.kind.as_str())
                .bind(new.sequence)
                .execute(&mut *conn)
                .await?;
            queued.email = email_from(&self.of_event(conn, EMAIL_OF_EVENT).await?).map_err(Refusal::BadRow)?;
        }
        if let Some(number) = &new.mobile_number {
            sqlx::query(QUEUE_SMS)
                .bind(SmsId::generate(position).uuid())
                .bind(number)
                .bind(new.order_id.uuid())
                .bind(new.kind.as_str())
                .bind(new.sequence)
                .execute(&mut *conn)
                .await?;
            queued.sms = sms_from(&self.of_event(conn, SMS_OF_EVENT).await?).map_err(Refusal::BadRow)?;
        }
        // Rows that were only found are acted on like those just made.
        confirm(conn).await?;
        Ok(queued)
    }
}

impl Queue {
    async fn of_event(&self, conn: &mut PgConnection, sql: &'static str) -> Result<PgRow, sqlx::Error> {
        sqlx::query(sql)
            .bind(self.0.order_id.uuid())
            .bind(self.0.kind.as_str())
            .bind(self.0.sequence)
            .fetch_one(conn)
            .await
    }
}

impl Store {
    /// Makes the rows of an event, or finds those made before: unique per order, kind and sequence.
    ///
    /// # Errors
    /// What every write can meet; [`StoreError::Database`] if the order or invoice does not exist.
    pub async fn queue_notifications(&self, new: NewNotifications) -> Result<QueuedNotifications, StoreError> {
        let place = Place::Key(new.order_id.uuid());
        Ok(self.inner.write(place, Queue(new)).await?.value)
    }
}
