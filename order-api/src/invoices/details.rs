//! What an invoice shows, fixed when it is generated: a later change of the user does not change it.

use chrono::{DateTime, Utc};
use row_id::OrderId;
use serde::{Deserialize, Serialize};
use store::orders::Order;
use store::users::User;
use utoipa::ToSchema;

use crate::orders::details::{OrderDetails, OrderLine};

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
    /// Who sells.
    pub seller: Seller,
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

/// Who sells.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Seller {
    /// Name of the shop or company.
    pub name: String,
    /// Lines of the postal address.
    #[serde(default)]
    pub address: Vec<String>,
    /// Number by which the tax office knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub tax_id: Option<String>,
}

impl Customer {
    fn of(user: &User) -> Self {
        Self {
            first_name: user.first_name.clone(),
            last_name: user.last_name.clone(),
            email_address: user.email_address.clone(),
            locale: user.locale.clone(),
            time_zone: user.time_zone.clone(),
        }
    }
}

impl InvoiceDetails {
    /// The details of the invoice of `order` for `user`.
    pub fn new(order: &Order, user: &User, seller: &Seller) -> Self {
        let OrderDetails { lines, reference, note } =
            OrderDetails::deserialize(&order.order_details).unwrap_or_else(|error| {
                // Only an order that a later version has placed: one line then says what is certain, its total.
                tracing::error!(%error, order = %order.order_id, "the order's details are not of a known layout");
                in_one_line(order)
            });
        let lines = lines.into_iter().map(|line| InvoiceLine {
            // Placed orders were checked: their amounts fit.
            amount_minor: line.amount_minor().unwrap_or(i64::MAX),
            sku: line.sku,
            description: line.description,
            quantity: line.quantity,
            unit_price_minor: line.unit_price_minor,
        });
        Self {
            format: FORMAT,
            order_id: order.order_id,
            ordered_at: order.created_at,
            currency: order.currency.to_string(),
            total_minor: order.total_minor,
            lines: lines.collect(),
            customer: Customer::of(user),
            seller: seller.clone(),
            reference,
            note,
        }
    }
}

fn in_one_line(order: &Order) -> OrderDetails {
    let line = OrderLine {
        sku: order.order_id.to_string(),
        description: "Order".to_owned(),
        quantity: 1,
        unit_price_minor: order.total_minor,
    };
    OrderDetails {
        lines: vec![line],
        reference: None,
        note: None,
    }
}
