use iso_currency::Currency;

use super::*;

fn line(description: &str, quantity: i64, unit_price_minor: i64) -> InvoiceLine {
    InvoiceLine {
        description: description.into(),
        sku: None,
        quantity,
        unit_price_minor,
    }
}

fn invoice(lines: Vec<InvoiceLine>) -> InvoiceDocument {
    let total_minor = lines.iter().map(InvoiceLine::amount_minor).sum::<i128>() as i64;
    InvoiceDocument {
        number: "2025-000042".into(),
        issued_on: "2025-03-23".parse().unwrap(),
        order_reference: "8a3c01f2-0195-8c3e-a292-d7ffffffffff".into(),
        seller: Seller {
            name: "The Tea Shop".into(),
            address: vec!["1 Quay Street".into(), "Dublin".into()],
            tax_id: Some("IE1234567X".into()),
        },
        customer: Customer {
            name: "Ελένη Παπαδοπούλου-Шевченко".into(),
            address: vec![],
        },
        currency: Currency::EUR,
        lines,
        total_minor,
        note: Some("Thank you.".into()),
    }
}

fn pages(invoice: &InvoiceDocument) -> Vec<Vec<Element>> {
    lay_out(invoice, &Typefaces::load().unwrap()).unwrap()
}

fn texts(elements: &[Element]) -> Vec<&str> {
    let mut texts = Vec::new();
    for element in elements {
        if let Element::Text { text, .. } = element {
            texts.push(text.as_str());
        }
    }
    texts
}

#[test]
fn a_short_invoice_has_all_it_must_say_on_one_page() {
    let pages = pages(&invoice(vec![line("Teapot", 2, 1_999), line("Discount", 1, -500)]));
    assert_eq!(pages.len(), 1);
    let texts = texts(&pages[0]);
    for wanted in [
        "Invoice",
        "2025-000042",
        "2025-03-23",
        "The Tea Shop",
        "Dublin",
        "Tax ID IE1234567X",
        "Ελένη Παπαδοπούλου-Шевченко",
        "Teapot",
        "2",
        "19.99",
        "39.98",
        "-5.00",
        "34.98 EUR",
        "Thank you.",
        "Page 1 of 1",
    ] {
        assert!(texts.contains(&wanted), "{wanted} in {texts:?}");
    }
}

#[test]
fn a_long_invoice_goes_on_over_pages_with_a_head_and_a_number_each() {
    let lines = (0..100).map(|number| line(&format!("Cup {number}"), 1, 100)).collect();
    let pages = pages(&invoice(lines));
    assert!(pages.len() > 2);
    for (number, page) in (1..).zip(&pages) {
        let texts = texts(page);
        assert!(texts.contains(&"Unit price"), "page {number} has the head of the table");
        assert!(texts.contains(&format!("Page {number} of {}", pages.len()).as_str()));
    }
    let all: Vec<&str> = pages.iter().flat_map(|page| texts(page)).collect();
    assert!((0..100).all(|number| all.iter().filter(|text| **text == format!("Cup {number}")).count() == 1));
}

#[test]
fn nothing_is_printed_outside_the_page_however_long_it_is() {
    let long = "Donaudampfschifffahrtsgesellschaft".repeat(200);
    let mut invoice = invoice(vec![
        line(&long, i64::from(i32::MAX), i64::from(i32::MAX)),
        line("Ω я ß", 1, 1),
    ]);
    invoice.customer.name = long.clone();
    invoice.seller.name = long.clone();
    invoice.number = long;
    let typefaces = Typefaces::load().unwrap();
    for element in pages(&invoice).iter().flatten() {
        if let Element::Text { x, y, text, style } = element {
            assert!(*x >= 0.0 && *x + typefaces.width(text, *style) <= A4.0, "{text} at {x}");
            assert!(*y > 0.0 && *y < A4.1, "{text} at {y}");
        }
    }
}

#[test]
fn a_total_that_is_not_that_of_the_lines_is_refused() {
    let mut wrong = invoice(vec![line("Teapot", 2, 1_999)]);
    wrong.total_minor += 1;
    let error = render(&wrong).unwrap_err().to_string();
    assert_eq!(
        error,
        "invoice 2025-000042 says a total of 3999, but its lines add up to 3998 (minor units)"
    );
    let huge = InvoiceDocument {
        lines: vec![line("Tea", i64::MAX, i64::MAX); 3],
        ..wrong
    };
    assert!(matches!(render(&huge), Err(PdfError::Total { .. })));
}

#[test]
fn the_same_document_gives_the_same_bytes() {
    let document = invoice((0..60).map(|number| line(&format!("Чай {number}"), 3, 450)).collect());
    let pdf = render(&document).unwrap();
    assert!(pdf.starts_with(b"%PDF-1."));
    assert!(pdf.trim_ascii_end().ends_with(b"%%EOF"));
    assert!((1..5).all(|_| render(&document).unwrap() == pdf));
    // Two typefaces in full would be 1.4 MB.
    assert!(pdf.len() < 60_000, "{} bytes", pdf.len());
}

#[test]
fn the_pdf_has_as_many_pages_as_the_layout() {
    let document = invoice((0..100).map(|number| line(&format!("Cup {number}"), 1, 100)).collect());
    let pdf = String::from_utf8_lossy(&render(&document).unwrap()).into_owned();
    assert!(
        pdf.contains(&format!("/Count {}", pages(&document).len())),
        "in the tree of pages"
    );
}

#[test]
fn characters_the_typeface_lacks_do_not_stop_an_invoice() {
    let mut document = invoice(vec![line("茶 \u{7} \n🍵", 1, 100)]);
    document.customer.name = "\u{0}".into();
    assert!(render(&document).is_ok());
}

#[test]
fn a_document_survives_being_stored_and_unknown_fields_are_refused() {
    let document = invoice(vec![line("Teapot", 2, 1_999)]);
    let mut json = serde_json::to_value(&document).unwrap();
    assert_eq!(json["currency"], "EUR");
    assert_eq!(
        serde_json::from_value::<InvoiceDocument>(json.clone()).unwrap(),
        document
    );
    json["discount"] = 5.into();
    assert!(serde_json::from_value::<InvoiceDocument>(json).is_err());
}
