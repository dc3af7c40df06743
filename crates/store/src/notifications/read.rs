//! Reading what is sent and what it tells of.

use row_id::OrderId;
use sqlx::postgres::PgRow;

use super::{Email, OrderContext, OrderNotifications, Sms, email_columns, email_from, sms_columns, sms_from};
use crate::error::StoreError;
use crate::invoices::{invoice_columns, invoice_from};
use crate::orders::{order_columns, order_from};
use crate::reading::{Answer, ReadAt};
use crate::store::Store;
use crate::store::query::{Query, look};
use crate::users::{user_columns, user_from};

const CONTEXT: &str = look!(one
    concat!(order_columns!(), ", ", user_columns!(), ", ", invoice_columns!()),
    "(shop.orders o JOIN shop.users u ON u.user_id = o.user_id LEFT JOIN shop.invoices i ON i.order_id = o.order_id)
         ON o.order_id = $1");

/// A row is an email or a text message; one row with neither where the order has none.
const OF_ORDER: &str = look!(one
    concat!(email_columns!(), ", ", sms_columns!()),
    "((SELECT * FROM shop.emails WHERE order_id = $1) e
         FULL JOIN (SELECT * FROM shop.sms WHERE order_id = $1) s ON false) ON true
     ORDER BY e.email_id, s.sms_id");

impl Store {
    /// Reads an order with its user and invoice on the master.
    ///
    /// # Errors
    /// What every read can meet.
    pub async fn order_context(&self, order: OrderId) -> Result<Option<OrderContext>, StoreError> {
        let query = Query::new("read an order with its user and invoice", CONTEXT).id(order.uuid());
        Ok(self
            .inner
            .read_one(order.uuid(), &ReadAt::strong(), query, decode_context)
            .await?
            .value)
    }

    /// Reads all notifications of an order.
    ///
    /// # Errors
    /// What every read can meet.
    pub async fn order_notifications(
        &self,
        order: OrderId,
        at: &ReadAt,
    ) -> Result<Answer<OrderNotifications>, StoreError> {
        let query = Query::new("read an order's notifications", OF_ORDER).id(order.uuid());
        self.inner.read_one(order.uuid(), at, query, decode_all).await
    }
}

fn decode_context(rows: &[PgRow]) -> Result<Option<OrderContext>, String> {
    let Some(row) = rows.first() else { return Ok(None) };
    Ok(match (order_from(row)?, user_from(row)?) {
        (Some(order), Some(user)) => Some(OrderContext {
            order,
            user,
            invoice: invoice_from(row)?,
        }),
        _ => None,
    })
}

fn decode_all(rows: &[PgRow]) -> Result<OrderNotifications, String> {
    let emails: Result<Vec<Email>, String> = rows.iter().filter_map(|row| email_from(row).transpose()).collect();
    let sms: Result<Vec<Sms>, String> = rows.iter().filter_map(|row| sms_from(row).transpose()).collect();
    Ok(OrderNotifications {
        emails: emails?,
        sms: sms?,
    })
}
