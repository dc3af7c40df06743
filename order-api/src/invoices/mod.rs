//! Invoices: one an order.

pub mod details;
pub mod generate;
pub mod get;
pub mod pdf;

use chrono::{DateTime, Utc};
use row_id::{InvoiceId, OrderId};
use serde::Serialize;
use store::invoices::Invoice;
use utoipa::ToSchema;

/// An invoice.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Invoice)]
pub struct InvoiceView {
    /// Its id; begins with its user's position.
    #[schema(value_type = uuid::Uuid)]
    pub invoice_id: InvoiceId,
    /// The order it bills.
    #[schema(value_type = uuid::Uuid)]
    pub order_id: OrderId,
    /// The number on the invoice: unique, rising on each shard.
    #[schema(example = "0-1042")]
    pub number: String,
    /// What the invoice shows, as it was when it was generated.
    #[schema(value_type = details::InvoiceDetails)]
    pub invoice_details: serde_json::Value,
    /// Counted up by each change; the ETag is made of it.
    pub version: i64,
    /// When it was generated.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

impl From<&Invoice> for InvoiceView {
    fn from(invoice: &Invoice) -> Self {
        Self {
            invoice_id: invoice.invoice_id,
            order_id: invoice.order_id,
            number: invoice.number.clone(),
            invoice_details: invoice.invoice_details.clone(),
            version: invoice.version,
            created_at: invoice.created_at,
            updated_at: invoice.updated_at,
        }
    }
}
