//! What an order is made of, as the API takes it and the shard keeps it.

use serde::{Deserialize, Serialize};
use store::CurrencyCode;
use utoipa::ToSchema;

use crate::problem::Problem;
use crate::request::fields::{Fields, MAX_AMOUNT_MINOR, MAX_QUANTITY, MAX_UNIT_PRICE_MINOR};

/// Most lines of an order.
const MAX_LINES: usize = 200;

/// An order to be placed.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateOrder {
    /// ISO 4217 code of the currency of all prices.
    #[schema(example = "EUR", min_length = 3, max_length = 3)]
    pub currency: String,
    /// What the client takes the total to be, in minor units. When given it has to be the sum of the lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 0, example = 3998)]
    pub total_minor: Option<i64>,
    /// What is ordered.
    pub order_details: OrderDetails,
}

/// What is ordered.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderDetails {
    /// The lines, in the order of the invoice.
    #[schema(min_items = 1, max_items = 200)]
    pub lines: Vec<OrderLine>,
    /// The shop's own name for the order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, max_length = 100, example = "web-2041")]
    pub reference: Option<String>,
    /// A word of the customer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, max_length = 1000)]
    pub note: Option<String>,
}

/// One line of an order.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderLine {
    /// The shop's number of the article.
    #[schema(min_length = 1, max_length = 64, example = "TEA-1")]
    pub sku: String,
    /// What the invoice calls it.
    #[schema(min_length = 1, max_length = 200, example = "Teapot")]
    pub description: String,
    /// How many pieces.
    #[schema(minimum = 1, maximum = 1_000_000, example = 2)]
    pub quantity: i64,
    /// The price of one piece in minor units.
    #[schema(minimum = 0, maximum = 1_000_000_000_000i64, example = 1999)]
    pub unit_price_minor: i64,
}

/// A checked order, still without its user.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckedOrder {
    /// The currency.
    pub currency: CurrencyCode,
    /// The sum of the lines.
    pub total_minor: i64,
    /// The normalised details as they are kept.
    pub order_details: serde_json::Value,
}

impl CreateOrder {
    /// Checks every field and the sum.
    pub fn validated(&self) -> Result<CheckedOrder, Problem> {
        let mut check = Fields::default();
        let currency = check.currency("currency", &self.currency);
        let currency = currency.and_then(|currency| currency.code().parse::<CurrencyCode>().ok());
        let details = check.within("order_details", |check| self.order_details.checked(check));
        let total = details
            .as_ref()
            .and_then(|details| self.checked_total(&mut check, details));
        let order = match (currency, total, details) {
            (Some(currency), Some(total_minor), Some(details)) => {
                serde_json::to_value(details).ok().map(|order_details| CheckedOrder {
                    currency,
                    total_minor,
                    order_details,
                })
            }
            _ => None,
        };
        check.finish(order)
    }

    fn checked_total(&self, check: &mut Fields, details: &OrderDetails) -> Option<i64> {
        let sum = details
            .lines
            .iter()
            .try_fold(0_i64, |sum, line| sum.checked_add(line.amount_minor()?));
        let Some(sum) = sum.filter(|sum| *sum <= MAX_AMOUNT_MINOR) else {
            return check.within("order_details", |check| {
                check.refuse(
                    "lines",
                    format!("must come to at most {MAX_AMOUNT_MINOR} minor units in all"),
                )
            });
        };
        match self.total_minor {
            Some(claimed) if claimed != sum => check.refuse(
                "total_minor",
                format!("must be the sum of the lines, {sum}, or be left out"),
            ),
            _ => Some(sum),
        }
    }
}

impl OrderDetails {
    fn checked(&self, check: &mut Fields) -> Option<Self> {
        let lines = check.within("lines", |check| {
            let lines = self.lines.iter().enumerate();
            lines
                .map(|(index, line)| check.within(&index.to_string(), |check| line.checked(check)))
                .collect::<Vec<_>>()
        });
        if !(1..=MAX_LINES).contains(&lines.len()) {
            return check.refuse("lines", format!("must have 1 to {MAX_LINES} entries"));
        }
        Some(Self {
            lines: lines.into_iter().collect::<Option<_>>()?,
            reference: self
                .reference
                .as_deref()
                .and_then(|reference| check.line("reference", reference, 1..=100)),
            note: self
                .note
                .as_deref()
                .and_then(|note| check.paragraph("note", note, 1..=1000)),
        })
    }
}

impl OrderLine {
    /// Quantity times price; `None` beyond what 64 bits hold, which checked lines never reach.
    pub fn amount_minor(&self) -> Option<i64> {
        self.quantity.checked_mul(self.unit_price_minor)
    }

    fn checked(&self, check: &mut Fields) -> Option<Self> {
        let sku = check.line("sku", &self.sku, 1..=64);
        let description = check.line("description", &self.description, 1..=200);
        let quantity = check.integer("quantity", self.quantity, 1..=MAX_QUANTITY);
        let unit_price_minor = check.integer("unit_price_minor", self.unit_price_minor, 0..=MAX_UNIT_PRICE_MINOR);
        Some(Self {
            sku: sku?,
            description: description?,
            quantity: quantity?,
            unit_price_minor: unit_price_minor?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(lines: &[(i64, i64)]) -> CreateOrder {
        let lines = lines.iter().map(|&(quantity, unit_price_minor)| OrderLine {
            sku: " TEA-1 ".into(),
            description: "Teapot".into(),
            quantity,
            unit_price_minor,
        });
        CreateOrder {
            currency: "EUR".into(),
            total_minor: None,
            order_details: OrderDetails {
                lines: lines.collect(),
                reference: None,
                note: None,
            },
        }
    }

    fn pointers(order: &CreateOrder) -> Vec<String> {
        order
            .validated()
            .unwrap_err()
            .into_body()
            .errors
            .into_iter()
            .map(|error| error.pointer)
            .collect()
    }

    #[test]
    fn the_total_is_the_sum_of_the_lines() {
        let checked = order(&[(2, 1999), (1, 1)]).validated().unwrap();
        assert_eq!((checked.total_minor, checked.currency.as_str()), (3999, "EUR"));
        assert_eq!(checked.order_details["lines"][0]["sku"], "TEA-1");
    }

    #[test]
    fn a_total_that_is_not_the_sum_is_refused() {
        assert!(
            CreateOrder {
                total_minor: Some(3998),
                ..order(&[(2, 1999)])
            }
            .validated()
            .is_ok()
        );
        assert_eq!(
            pointers(&CreateOrder {
                total_minor: Some(3997),
                ..order(&[(2, 1999)])
            }),
            ["#/total_minor"]
        );
    }

    #[test]
    fn sums_beyond_every_bound_are_refused_and_never_wrap() {
        let most = (MAX_QUANTITY, MAX_UNIT_PRICE_MINOR);
        assert_eq!(pointers(&order(&[most])), ["#/order_details/lines"]);
        assert_eq!(pointers(&order(&vec![most; MAX_LINES])), ["#/order_details/lines"]);
        let extreme = pointers(&order(&[(i64::MAX, i64::MIN)]));
        assert_eq!(
            extreme,
            [
                "#/order_details/lines/0/quantity",
                "#/order_details/lines/0/unit_price_minor"
            ]
        );
    }

    #[test]
    fn an_order_has_lines_and_not_too_many() {
        assert_eq!(pointers(&order(&[])), ["#/order_details/lines"]);
        assert_eq!(
            pointers(&order(&vec![(1, 1); MAX_LINES + 1])),
            ["#/order_details/lines"]
        );
    }
}
