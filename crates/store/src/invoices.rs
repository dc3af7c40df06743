//! Invoices: one an order.

use chrono::{DateTime, Utc};
use row_id::{InvoiceId, OrderId};

use crate::error::StoreError;
use crate::idempotency::{IdempotencyKey, StoredResponse, Written};
use crate::orders::Order;
use crate::reading::{Answer, ReadAt};
use crate::store::Store;
use crate::users::User;

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

impl Store {
    /// Generates the one invoice of an order; `details` turns the order and its user into what the invoice shows.
    pub async fn generate_invoice(
        &self,
        key: IdempotencyKey,
        order: OrderId,
        details: impl Fn(&Order, &User) -> serde_json::Value + Send + Sync + 'static,
        render: impl Fn(&Invoice) -> StoredResponse + Send + Sync + 'static,
    ) -> Result<Written, StoreError> {
        let _ = (key, order, details, render);
        unimplemented!()
    }

    /// Reads one invoice with its order and user.
    pub async fn get_invoice(&self, id: InvoiceId, at: &ReadAt) -> Result<Answer<Option<FullInvoice>>, StoreError> {
        let _ = (id, at);
        unimplemented!()
    }

    /// Reads an order's invoice with its order and user.
    pub async fn get_invoice_of_order(
        &self,
        order: OrderId,
        at: &ReadAt,
    ) -> Result<Answer<Option<FullInvoice>>, StoreError> {
        let _ = (order, at);
        unimplemented!()
    }
}
