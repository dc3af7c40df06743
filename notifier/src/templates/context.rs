//! What a template may show of an order.

use chrono::{DateTime, TimeZone, Utc};
use minijinja::{Value, value::Serde};
use serde::{Deserialize, Serialize};

use super::Occasion;

/// Everything a message may show, independent of its language.
#[derive(Clone, Debug)]
pub struct Context {
    /// The customer.
    pub user: UserFacts,
    /// Their time zone; times are shown in it.
    pub time_zone: chrono_tz::Tz,
    /// The order.
    pub order: OrderFacts,
    /// Its invoice, once it has been generated.
    pub invoice: Option<InvoiceFacts>,
}

/// The customer.
#[derive(Clone, Debug, Serialize)]
pub struct UserFacts {
    /// Given name.
    pub first_name: String,
    /// Family name.
    pub last_name: String,
}

/// The order.
#[derive(Clone, Debug, Serialize)]
pub struct OrderFacts {
    /// Its id.
    pub id: String,
    /// What the customer knows it by.
    pub reference: String,
    /// When it was placed.
    pub placed_at: DateTime<Utc>,
    /// ISO 4217.
    pub currency: String,
    /// Minor units.
    pub total_minor: i64,
    /// What was ordered.
    pub lines: Vec<Line>,
}

/// One line of an order.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// The shop's name of the thing.
    pub sku: String,
    /// For people.
    pub description: String,
    /// How many.
    pub quantity: i64,
    /// For all of them, minor units.
    pub amount_minor: i64,
}

/// The invoice.
#[derive(Clone, Debug, Serialize)]
pub struct InvoiceFacts {
    /// Its number.
    pub number: String,
    /// When it was generated.
    pub issued_at: DateTime<Utc>,
}

#[derive(Serialize)]
struct Names<'a> {
    language: &'a str,
    /// Absent, not empty, where there is none: a template that asks for it is then refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    user: &'a UserFacts,
    time_zone: &'a str,
    order: &'a OrderFacts,
    invoice: Option<&'a InvoiceFacts>,
}

/// The part of `order_details` that messages show. The shop may keep more there.
#[derive(Debug, Default, Deserialize)]
struct Details {
    #[serde(default)]
    lines: Vec<DetailLine>,
    reference: Option<String>,
}

#[derive(Debug, Deserialize)]
struct DetailLine {
    #[serde(default)]
    sku: String,
    description: String,
    quantity: i64,
    unit_price_minor: i64,
}

impl Context {
    /// What messages show of these rows.
    #[must_use]
    pub fn of(rows: &store::notifications::OrderContext) -> Self {
        let store::notifications::OrderContext { order, user, invoice } = rows;
        // Details of another shape than ours cost the list of lines, not the message.
        let details = Details::deserialize(&order.order_details).unwrap_or_default();
        let id = order.order_id.to_string();
        let short = || id.split('-').next().unwrap_or_default().to_owned();
        let reference = details
            .reference
            .filter(|reference| !reference.trim().is_empty())
            .unwrap_or_else(short);
        Self {
            user: UserFacts {
                first_name: user.first_name.clone(),
                last_name: user.last_name.clone(),
            },
            time_zone: user.time_zone.parse().unwrap_or(chrono_tz::UTC),
            order: OrderFacts {
                reference,
                id,
                placed_at: order.created_at,
                currency: order.currency.as_str().to_owned(),
                total_minor: order.total_minor,
                lines: details.lines.into_iter().map(Line::from).collect(),
            },
            invoice: invoice.as_ref().map(|invoice| InvoiceFacts {
                number: invoice.number.clone(),
                issued_at: invoice.created_at,
            }),
        }
    }

    /// The names a template knows.
    pub(super) fn values(&self, language: &str, subject: Option<&str>) -> Value {
        Value::from(Serde(Names {
            language,
            subject,
            user: &self.user,
            time_zone: self.time_zone.name(),
            order: &self.order,
            invoice: self.invoice.as_ref(),
        }))
    }

    /// What every template must be able to show: an order with lines and without, with an invoice and, where that may
    /// be, without.
    pub(super) fn samples(occasion: Occasion) -> Vec<Self> {
        let line = Line {
            sku: "TEA-1".to_owned(),
            description: "Teapot <large> & \"lid\"".to_owned(),
            quantity: 2,
            amount_minor: 123_456,
        };
        let at = Utc.timestamp_nanos(1_767_225_600_000_000_000);
        let full = Self {
            user: UserFacts {
                first_name: "Ada".to_owned(),
                last_name: "Lovelace".to_owned(),
            },
            time_zone: chrono_tz::Europe::Berlin,
            order: OrderFacts {
                id: "01234567-89ab-8def-8123-456789abcdef".to_owned(),
                reference: "01234567".to_owned(),
                placed_at: at,
                currency: "EUR".to_owned(),
                total_minor: 123_456,
                lines: vec![line],
            },
            invoice: Some(InvoiceFacts {
                number: "0-1".to_owned(),
                issued_at: at,
            }),
        };
        let mut bare = full.clone();
        bare.order.lines.clear();
        if occasion == Occasion::OrderProcessed {
            bare.invoice = None;
        }
        vec![full, bare]
    }
}

impl From<DetailLine> for Line {
    fn from(line: DetailLine) -> Self {
        Self {
            sku: line.sku,
            description: line.description,
            quantity: line.quantity,
            amount_minor: line.quantity.saturating_mul(line.unit_price_minor),
        }
    }
}
