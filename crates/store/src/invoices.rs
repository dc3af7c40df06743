//! Invoices: one an order.

use chrono::{DateTime, Utc};
use row_id::{EventId, InvoiceId, OrderId};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::error::StoreError;
use crate::idempotency::{IdempotencyKey, Keyed, StoredResponse, Written, bind_key, repeat, with_key};
use crate::orders::{Order, OrderStatus, lock_order, now_after, order_columns, order_from};
use crate::outbox::{EventKind, OutboxEvent, WRITER_HOLDS};
use crate::reading::{Answer, ReadAt};
use crate::store::Store;
use crate::store::fault::Refusal;
use crate::store::query::{Query, look};
use crate::store::write::{Place, Work};
use crate::users::{User, user_columns, user_from};

/// A row of `shop.invoices`.
#[derive(Debug, Clone, PartialEq)]
pub struct Invoice {
    /// Begins with its user's position.
    pub invoice_id: InvoiceId,
    /// The order it bills.
    pub order_id: OrderId,
    /// `<shard ordinal>-<count on that shard>`: unique, rising on each shard, with gaps where a transaction failed.
    pub number: String,
    /// What the invoice shows, fixed when it was generated; a JSON object.
    pub invoice_details: serde_json::Value,
    /// Counted up by each update.
    pub version: i64,
    /// When it was generated.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

/// An invoice with what a page of it shows.
#[derive(Debug, Clone, PartialEq)]
pub struct FullInvoice {
    /// The invoice.
    pub invoice: Invoice,
    /// The order it bills.
    pub order: Order,
    /// Whose order it is.
    pub user: User,
}

/// The columns of an invoice, aliased `i`, in every statement that reads one.
macro_rules! invoice_columns {
    () => {
        "i.invoice_id AS i_invoice_id, i.order_id AS i_order_id, i.number AS i_number, \
         i.invoice_details AS i_invoice_details, i.version AS i_version, i.created_at AS i_created_at, \
         i.updated_at AS i_updated_at"
    };
}
pub(crate) use invoice_columns;

/// Reads the columns of [`invoice_columns!`]; `None` where the row was not there.
pub(crate) fn invoice_from(row: &PgRow) -> Result<Option<Invoice>, String> {
    let broken = |error: sqlx::Error| error.to_string();
    let Some(id) = row.try_get::<Option<Uuid>, _>("i_invoice_id").map_err(broken)? else {
        return Ok(None);
    };
    let order: Uuid = row.try_get("i_order_id").map_err(broken)?;
    Ok(Some(Invoice {
        invoice_id: InvoiceId::from_uuid(id).map_err(|error| error.to_string())?,
        order_id: OrderId::from_uuid(order).map_err(|error| error.to_string())?,
        number: row.try_get("i_number").map_err(broken)?,
        invoice_details: row.try_get("i_invoice_details").map_err(broken)?,
        version: row.try_get("i_version").map_err(broken)?,
        created_at: row.try_get("i_created_at").map_err(broken)?,
        updated_at: row.try_get("i_updated_at").map_err(broken)?,
    }))
}

const EXISTING: &str = "SELECT invoice_id FROM shop.invoices WHERE order_id = $1";

/// What an invoice is made of beside its order. The number leaves a gap if the transaction fails.
const INGREDIENTS: &str = concat!(
    "SELECT ",
    user_columns!(),
    ", ringwright.next_invoice_number() AS number FROM shop.users u WHERE u.user_id = $1"
);

/// The key with its answer, the invoice, the order's next event number and the event, in one statement.
const GENERATE: &str = with_key!(
    "generated AS (
         INSERT INTO shop.invoices (invoice_id, order_id, number, invoice_details, version, created_at, updated_at)
         SELECT $7, $8, $9, $10, 1, $11, $11 FROM key RETURNING order_id),
     told AS (
         UPDATE shop.orders SET event_seq = $12, version = version + 1, updated_at = $11
         WHERE order_id IN (SELECT order_id FROM generated) RETURNING order_id, user_id),
     event AS (
         INSERT INTO ringwright.outbox
             (event_id, kind, sequence, user_id, order_id, invoice_id, occurred_at, held_until)
         SELECT $13, 'invoice.generated', $12, user_id, order_id, $7, $11, now() + make_interval(secs => $14)
         FROM told)
     SELECT count(*) AS told FROM told"
);

macro_rules! full_invoice {
    ($condition:expr) => {
        look!(one
            concat!(invoice_columns!(), ", ", order_columns!(), ", ", user_columns!()),
            concat!(
                "(shop.invoices i JOIN shop.orders o ON o.order_id = i.order_id JOIN shop.users u ON u.user_id = o.user_id) ON ",
                $condition
            ))
    };
}

const FULL: &str = full_invoice!("i.invoice_id = $1");
const FULL_OF_ORDER: &str = full_invoice!("i.order_id = $1");

struct Generate<D, R> {
    key: IdempotencyKey,
    order: OrderId,
    details: D,
    render: R,
}

impl<D, R> Work for Generate<D, R>
where
    D: Fn(&Order, &User) -> serde_json::Value + Send + Sync + 'static,
    R: Fn(&Invoice) -> StoredResponse + Send + Sync + 'static,
{
    type Output = Keyed;
    const OPERATION: &'static str = "generate an invoice";

    async fn run(&self, conn: &mut PgConnection) -> Result<Keyed, Refusal> {
        let order = lock_order(conn, self.order).await?;
        let key_id = self.key.id_at(self.order.position());
        // After the lock: a first request with this key may just have committed, and its repeat is no conflict.
        if let Some(first) = repeat(conn, key_id, self.key.request).await? {
            return Ok(Keyed::repeated(first));
        }
        if order.status == OrderStatus::Cancelled {
            return Err(StoreError::OrderCancelled(self.order).into());
        }
        if let Some(row) = sqlx::query(EXISTING)
            .bind(self.order.uuid())
            .fetch_optional(&mut *conn)
            .await?
        {
            let invoice = InvoiceId::from_uuid(row.try_get("invoice_id")?);
            let invoice = invoice.map_err(|error| Refusal::BadRow(error.to_string()))?;
            return Err(StoreError::InvoiceExists {
                order: self.order,
                invoice,
            }
            .into());
        }
        let ingredients = sqlx::query(INGREDIENTS)
            .bind(order.user_id.uuid())
            .fetch_one(&mut *conn)
            .await?;
        let user = user_from(&ingredients).map_err(Refusal::BadRow)?;
        let user = user.ok_or_else(|| Refusal::BadRow("an order without its user".to_owned()))?;
        let invoice = self.invoice(&order, &user, ingredients.try_get("number")?);
        self.store(conn, &order, invoice).await
    }
}

impl<D, R> Generate<D, R>
where
    D: Fn(&Order, &User) -> serde_json::Value,
    R: Fn(&Invoice) -> StoredResponse,
{
    fn invoice(&self, order: &Order, user: &User, number: String) -> Invoice {
        let created_at = now_after(order.updated_at);
        Invoice {
            invoice_id: InvoiceId::generate(self.order.position()),
            order_id: self.order,
            number,
            invoice_details: (self.details)(order, user),
            version: 1,
            created_at,
            updated_at: created_at,
        }
    }

    async fn store(&self, conn: &mut PgConnection, order: &Order, invoice: Invoice) -> Result<Keyed, Refusal> {
        let event = OutboxEvent {
            event_id: EventId::generate(self.order.position()),
            kind: EventKind::InvoiceGenerated,
            sequence: order.event_seq + 1,
            user_id: order.user_id,
            order_id: self.order,
            invoice_id: Some(invoice.invoice_id),
            occurred_at: invoice.created_at,
        };
        let response = (self.render)(&invoice);
        let row = bind_key(
            sqlx::query(GENERATE),
            self.key.id_at(self.order.position()),
            &self.key,
            &response,
        )
        .bind(invoice.invoice_id.uuid())
        .bind(self.order.uuid())
        .bind(&invoice.number)
        .bind(&invoice.invoice_details)
        .bind(invoice.created_at)
        .bind(event.sequence)
        .bind(event.event_id.uuid())
        .bind(WRITER_HOLDS.as_secs_f64())
        .fetch_one(conn)
        .await?;
        if row.try_get::<i64, _>("told")? == 0 {
            return Err(Refusal::Again("another request used the key meanwhile"));
        }
        Ok(Keyed {
            response,
            repeated: false,
            events: vec![event],
        })
    }
}

impl Store {
    /// Generates the one invoice of an order; `details` turns the order and its user into what the invoice shows.
    ///
    /// # Errors
    /// [`StoreError::OrderNotFound`], [`StoreError::OrderCancelled`], [`StoreError::InvoiceExists`],
    /// [`StoreError::KeyReuse`], and what every write can meet.
    pub async fn generate_invoice(
        &self,
        key: IdempotencyKey,
        order: OrderId,
        details: impl Fn(&Order, &User) -> serde_json::Value + Send + Sync + 'static,
        render: impl Fn(&Invoice) -> StoredResponse + Send + Sync + 'static,
    ) -> Result<Written, StoreError> {
        let work = Generate {
            key,
            order,
            details,
            render,
        };
        let committed = self.inner.write(Place::Key(order.uuid()), work).await?;
        Ok(committed.value.written(committed.token))
    }

    /// Reads one invoice with its order and user.
    ///
    /// # Errors
    /// What every read can meet.
    pub async fn get_invoice(&self, id: InvoiceId, at: &ReadAt) -> Result<Answer<Option<FullInvoice>>, StoreError> {
        let query = Query::new("read an invoice", FULL).id(id.uuid());
        self.inner.read_one(id.uuid(), at, query, decode).await
    }

    /// Reads an order's invoice with its order and user.
    ///
    /// # Errors
    /// What every read can meet.
    pub async fn get_invoice_of_order(
        &self,
        order: OrderId,
        at: &ReadAt,
    ) -> Result<Answer<Option<FullInvoice>>, StoreError> {
        let query = Query::new("read an order's invoice", FULL_OF_ORDER).id(order.uuid());
        self.inner.read_one(order.uuid(), at, query, decode).await
    }
}

fn decode(rows: &[PgRow]) -> Result<Option<FullInvoice>, String> {
    let Some(row) = rows.first() else { return Ok(None) };
    let parts = (invoice_from(row)?, order_from(row)?, user_from(row)?);
    Ok(match parts {
        (Some(invoice), Some(order), Some(user)) => Some(FullInvoice { invoice, order, user }),
        _ => None,
    })
}
