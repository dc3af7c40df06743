//! What an invoice shows, fixed when it is generated: a later change of the user does not change it.

use chrono::{DateTime, Utc};
use row_id::OrderId;
use serde::{Deserialize, Serialize};
use store::orders::Order;
use store::users::User;
use utoipa::ToSchema;

use crate::orders::details::OrderDetails;

/// The layout of [`InvoiceDetails`]; the notifier reads it too.
const FORMAT: u32 = 1;

/// What an invoice shows, beside its number and date.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct InvoiceDetails {
    /// Version of this layout.
    #[schema(example = 1)]
    pub format: u32,
    /// The order it bills.
    #[schema(value_type = uuid::Uuid)]
    pub order_id: OrderId,
    /// When that was placed.
    pub ordered_at: DateTime<Utc>,
    /// ISO 4217 code.
    #[schema(example = "EUR")]
    pub currency: String,
    /// The sum of the lines in minor units.
    pub total_minor: i64,
    /// The lines.
    pub lines: Vec<InvoiceLine>,
    /// Who is billed.
    pub customer: Customer,
    /// The shop's own name for the order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub reference: Option<String>,
    /// A word of the customer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub note: Option<String>,
}

/// One line of an invoice.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct InvoiceLine {
    /// The shop's number of the article.
    pub sku: String,
    /// Its name.
    pub description: String,
    /// How many pieces.
    pub quantity: i64,
    /// The price of one piece in minor units.
    pub unit_price_minor: i64,
    /// The price of them all.
    pub amount_minor: i64,
}

/// Who is billed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Customer {
    /// Given name.
    pub first_name: String,
    /// Family name.
    pub last_name: String,
    /// Email address.
    pub email_address: String,
    /// Language tag.
    pub locale: String,
    /// IANA time zone.
    pub time_zone: String,
}

impl InvoiceDetails {
    /// The details of the invoice of `order` for `user`.
    ///
    /// # Errors
    /// When the stored order is not of the layout that this version reads.
    pub fn new(order: &Order, user: &User) -> Result<Self, serde_json::Error> {
        let OrderDetails { lines, reference, note } = OrderDetails::deserialize(&order.order_details)?;
        let lines = lines.into_iter().map(|line| InvoiceLine {
            // Placed orders were checked: their amounts fit.
            amount_minor: line.amount_minor().unwrap_or(i64::MAX),
            sku: line.sku,
            description: line.description,
            quantity: line.quantity,
            unit_price_minor: line.unit_price_minor,
        });
        Ok(Self {
            format: FORMAT,
            order_id: order.order_id,
            ordered_at: order.created_at,
            currency: order.currency.to_string(),
            total_minor: order.total_minor,
            lines: lines.collect(),
            customer: Customer {
                first_name: user.first_name.clone(),
                last_name: user.last_name.clone(),
                email_address: user.email_address.clone(),
                locale: user.locale.clone(),
                time_zone: user.time_zone.clone(),
            },
            reference,
            note,
        })
    }
}
