//! From an invoice as it is stored to the document it prints: one mapping, so that the customer's email and the shop's
//! download are the same page.

use chrono::{DateTime, Utc};
use iso_currency::Currency;
use serde::Deserialize;

use crate::{Customer, InvoiceDocument, InvoiceLine, Seller};

/// The layout of the stored details that this version reads.
const FORMAT: u32 = 1;
/// Who sells, on an invoice that does not say.
const UNNAMED_SELLER: &str = "Ringwright";

/// Why a stored invoice cannot become a document.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// Not of the layout this version reads.
    #[error("the details of invoice {number} cannot be read: {source}")]
    Unreadable {
        /// The invoice's number.
        number: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// Written by a newer version.
    #[error("the details of invoice {number} have format {format}, this program reads format {FORMAT}: update it")]
    UnknownFormat {
        /// The invoice's number.
        number: String,
        /// What they have.
        format: u32,
    },
    /// A code that ISO 4217 does not know.
    #[error("invoice {number} is in {currency:?}, which is no currency")]
    UnknownCurrency {
        /// The invoice's number.
        number: String,
        /// What it says.
        currency: String,
    },
}

/// The stored details, as far as the page shows them.
#[derive(Deserialize)]
struct Details {
    order_id: String,
    currency: String,
    total_minor: i64,
    lines: Vec<InvoiceLineDetails>,
    customer: CustomerDetails,
    seller: Option<Seller>,
    reference: Option<String>,
    note: Option<String>,
}

#[derive(Deserialize)]
struct InvoiceLineDetails {
    sku: Option<String>,
    description: String,
    quantity: i64,
    unit_price_minor: i64,
}

#[derive(Deserialize)]
struct CustomerDetails {
    first_name: String,
    last_name: String,
    /// The date of issue is that of the customer's calendar.
    time_zone: String,
}

#[derive(Deserialize)]
struct Layout {
    format: u32,
}

/// The document of an invoice, from its number, the time it was generated, and its stored details.
///
/// # Errors
/// When the details are not of a layout that this version reads.
pub fn stored(
    number: &str,
    created_at: DateTime<Utc>,
    details: &serde_json::Value,
) -> Result<InvoiceDocument, StoredError> {
    let unreadable = |source| StoredError::Unreadable {
        number: number.to_owned(),
        source,
    };
    let Layout { format } = Layout::deserialize(details).map_err(unreadable)?;
    if format != FORMAT {
        return Err(StoredError::UnknownFormat {
            number: number.to_owned(),
            format,
        });
    }
    let details = Details::deserialize(details).map_err(unreadable)?;
    let currency = Currency::from_code(&details.currency).ok_or_else(|| StoredError::UnknownCurrency {
        number: number.to_owned(),
        currency: details.currency.clone(),
    })?;
    let zone: chrono_tz::Tz = details.customer.time_zone.parse().unwrap_or(chrono_tz::UTC);
    let Details { customer, lines, .. } = details;
    Ok(InvoiceDocument {
        number: number.to_owned(),
        issued_on: created_at.with_timezone(&zone).date_naive(),
        order_reference: details.reference.unwrap_or(details.order_id),
        seller: details.seller.unwrap_or(Seller {
            name: UNNAMED_SELLER.to_owned(),
            address: vec![],
            tax_id: None,
        }),
        customer: Customer {
            name: format!("{} {}", customer.first_name, customer.last_name),
            address: vec![],
        },
        currency,
        lines: lines.into_iter().map(InvoiceLine::from).collect(),
        total_minor: details.total_minor,
        note: details.note,
    })
}

impl From<InvoiceLineDetails> for InvoiceLine {
    fn from(line: InvoiceLineDetails) -> Self {
        let InvoiceLineDetails {
            sku,
            description,
            quantity,
            unit_price_minor,
        } = line;
        Self {
            description,
            sku: sku.filter(|sku| !sku.is_empty()),
            quantity,
            unit_price_minor,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn details() -> serde_json::Value {
        json!({
            "format": 1, "order_id": "01234567-89ab-8def-8123-456789abcdef", "ordered_at": "2026-01-01T10:00:00Z",
            "currency": "EUR", "total_minor": 3998,
            "lines": [{
                "sku": "TEA-1", "description": "Teapot", "quantity": 2, "unit_price_minor": 1999, "amount_minor": 3998,
            }],
            "customer": {
                "first_name": "Ada", "last_name": "Lovelace", "email_address": "ada@example.com", "locale": "de",
                "time_zone": "Asia/Tokyo",
            },
        })
    }

    fn made(details: &serde_json::Value) -> Result<InvoiceDocument, StoredError> {
        stored("0-7", "2026-01-01T23:30:00Z".parse().unwrap(), details)
    }

    #[test]
    fn a_stored_invoice_prints() {
        let document = made(&details()).unwrap();
        assert_eq!(document.issued_on.to_string(), "2026-01-02", "the customer's calendar");
        assert_eq!(document.customer.name, "Ada Lovelace");
        assert_eq!(document.order_reference, "01234567-89ab-8def-8123-456789abcdef");
        assert!(crate::render(&document).unwrap().starts_with(b"%PDF"));
    }

    #[test]
    fn the_shops_own_words_are_shown() {
        let mut details = details();
        details["reference"] = "A-1".into();
        details["note"] = "Thank you.".into();
        details["seller"] = json!({"name": "The Tea Shop", "address": ["1 Quay Street"]});
        let document = made(&details).unwrap();
        assert_eq!(document.order_reference, "A-1");
        assert_eq!(document.note.as_deref(), Some("Thank you."));
        assert_eq!(document.seller.address, ["1 Quay Street"]);
    }

    #[test]
    fn other_layouts_are_refused() {
        let with = |key: &str, value: serde_json::Value| {
            let mut details = details();
            details[key] = value;
            made(&details).unwrap_err()
        };
        assert!(matches!(
            with("format", 2.into()),
            StoredError::UnknownFormat { format: 2, .. }
        ));
        assert!(matches!(with("lines", "none".into()), StoredError::Unreadable { .. }));
        assert!(matches!(
            with("currency", "QQQ".into()),
            StoredError::UnknownCurrency { .. }
        ));
    }
}
