//! Prints an invoice of two pages to standard output, to look at: `cargo run -p invoice-pdf --example sample > sample.pdf`.

use std::io::Write;

use chrono::NaiveDate;
use invoice_pdf::{Customer, InvoiceDocument, InvoiceLine, Seller, render};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let line = |description: &str, sku: String| InvoiceLine {
        description: description.into(),
        sku: Some(sku),
        quantity: 2,
        unit_price_minor: 1_999,
    };
    let mut lines = vec![line(
        "A teapot of blue china with a lid that stays on when tea is poured from it",
        "POT-1".into(),
    )];
    lines.extend((1..=30).map(|number| line("Κύπελλο / Чашка / Tasse", format!("CUP-{number}"))));
    let invoice = InvoiceDocument {
        number: "2025-000042".into(),
        issued_on: NaiveDate::from_ymd_opt(2025, 3, 23).ok_or("no such day")?,
        order_reference: "8a3c01f2-0195-8c3e-a292-d7ffffffffff".into(),
        seller: Seller {
            name: "The Tea Shop".into(),
            address: vec!["1 Quay Street".into(), "Dublin".into()],
            tax_id: Some("IE1234567X".into()),
        },
        customer: Customer {
            name: "Ελένη Шевченко-Müller".into(),
            address: vec![],
        },
        currency: "EUR".parse()?,
        total_minor: 2 * 1_999 * lines.len() as i64,
        lines,
        note: Some("Payable within 14 days. Thank you for your order.".into()),
    };
    std::io::stdout().write_all(&render(&invoice)?)?;
    Ok(())
}
