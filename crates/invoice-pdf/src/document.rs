use chrono::NaiveDate;
use iso_currency::Currency;
use serde::{Deserialize, Serialize};

/// All that an invoice says. It is stored as it was issued, so that it prints the same for ever, whatever becomes of
/// the user, the order and the seller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InvoiceDocument {
    /// The invoice's number.
    pub number: String,
    /// The date of issue.
    pub issued_on: NaiveDate,
    /// The order it is for, as the customer knows it.
    pub order_reference: String,
    /// Who sells.
    pub seller: Seller,
    /// Who buys.
    pub customer: Customer,
    /// ISO 4217 code of all amounts.
    pub currency: Currency,
    /// What was bought.
    pub lines: Vec<InvoiceLine>,
    /// What is to be paid, in minor units: the sum of the lines.
    pub total_minor: i64,
    /// A last word under the total, such as terms of payment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Who sells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seller {
    /// Name of the shop or company.
    pub name: String,
    /// Lines of the postal address.
    #[serde(default)]
    pub address: Vec<String>,
    /// Number by which the tax office knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tax_id: Option<String>,
}

/// Who buys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Customer {
    /// The name in full.
    pub name: String,
    /// Lines of the postal address, if it is known.
    #[serde(default)]
    pub address: Vec<String>,
}

/// One thing that was bought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InvoiceLine {
    /// What it is.
    pub description: String,
    /// The shop's number of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sku: Option<String>,
    /// How many.
    pub quantity: i64,
    /// What one costs, in minor units; negative for a discount.
    pub unit_price_minor: i64,
}

impl InvoiceLine {
    /// What the line costs, in minor units.
    pub fn amount_minor(&self) -> i128 {
        i128::from(self.quantity) * i128::from(self.unit_price_minor)
    }
}
