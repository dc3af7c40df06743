//! How much a shard holds.

use sqlx::{PgConnection, Row};

use super::{AdminError, failed};

/// How much a shard holds, as Postgres estimates it without counting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Bytes of the database on disk.
    pub bytes: u64,
    /// Rows of all tables whose rows belong to users.
    pub rows: u64,
}

/// A table that was never analysed has -1 rows.
const SIZE: &str = "SELECT pg_database_size(current_database()),
    (SELECT coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint FROM pg_class c
     WHERE c.oid IN ('shop.users'::regclass, 'shop.orders'::regclass, 'shop.invoices'::regclass,
                     'shop.emails'::regclass, 'shop.sms'::regclass, 'ringwright.outbox'::regclass,
                     'ringwright.idempotency_keys'::regclass, 'ringwright.contact_claims'::regclass))";

/// How much the shard holds.
pub async fn size(conn: &mut PgConnection) -> Result<Size, AdminError> {
    let operation = || "tell how much the shard holds".to_owned();
    let row = sqlx::query(SIZE).fetch_one(conn).await.map_err(failed(operation))?;
    let number = |column| {
        row.try_get::<i64, _>(column)
            .map(|number| number.max(0).cast_unsigned())
            .map_err(failed(operation))
    };
    Ok(Size {
        bytes: number(0)?,
        rows: number(1)?,
    })
}
