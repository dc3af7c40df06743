//! Where everything goes on the pages. Pure: it draws nothing.

use crate::PdfError;
use crate::document::{InvoiceDocument, InvoiceLine};
use crate::money::format_minor;
use crate::typeface::{Style, Typefaces};

/// Width and height of a page, in points.
pub(crate) const A4: (f32, f32) = (595.28, 841.89);

const LEFT: f32 = 56.0;
const RIGHT: f32 = A4.0 - 56.0;
const TOP: f32 = 72.0;
/// Nothing of the table is printed below this; the foot of the page is.
const BOTTOM: f32 = A4.1 - 84.0;
const FOOT: f32 = A4.1 - 48.0;
const LEADING: f32 = 13.0;
const ROW_GAP: f32 = 6.0;

/// Right edges of the columns of numbers; the description takes what is left of them.
const QUANTITY: f32 = RIGHT - 180.0;
const UNIT_PRICE: f32 = RIGHT - 95.0;
const DESCRIPTION_WIDTH: f32 = QUANTITY - 60.0 - LEFT;

const BODY: Style = Style {
    size: 9.5,
    bold: false,
    lightness: 20,
};
const STRONG: Style = Style { bold: true, ..BODY };
const SMALL: Style = Style {
    size: 8.0,
    bold: false,
    lightness: 100,
};
const TITLE: Style = Style {
    size: 20.0,
    bold: true,
    lightness: 20,
};

/// Something on a page. `x` and `y` are points from the upper left corner; of a text, to the start of its base line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Element {
    Text { x: f32, y: f32, text: String, style: Style },
    Rule { x: f32, y: f32, width: f32 },
}

/// Puts an invoice on pages; there is at least one.
pub(crate) fn lay_out(invoice: &InvoiceDocument, typefaces: &Typefaces) -> Result<Vec<Vec<Element>>, PdfError> {
    check_total(invoice)?;
    let mut sheet = Sheet {
        typefaces,
        pages: vec![Vec::new()],
        y: TOP,
    };
    sheet.head(invoice);
    sheet.table_head();
    for line in &invoice.lines {
        sheet.row(line, invoice)?;
    }
    sheet.total(invoice)?;
    sheet.note(invoice);
    sheet.feet(invoice);
    Ok(sheet.pages)
}

fn check_total(invoice: &InvoiceDocument) -> Result<(), PdfError> {
    // The sum of what fits into memory cannot overflow: an amount is below 2^126, and most are tiny.
    let sum_minor = invoice
        .lines
        .iter()
        .map(InvoiceLine::amount_minor)
        .fold(0, i128::saturating_add);
    if sum_minor == i128::from(invoice.total_minor) {
        return Ok(());
    }
    Err(PdfError::Total {
        number: invoice.number.clone(),
        total_minor: invoice.total_minor,
        sum_minor,
    })
}

/// The first lines of what has a fixed place and is short, unless somebody numbers invoices with a novel.
fn shortened(mut lines: Vec<String>, most: usize) -> Vec<String> {
    if lines.len() > most {
        lines.truncate(most);
        if let Some(last) = lines.last_mut() {
            last.push('…');
        }
    }
    lines
}

/// The pages so far, and how far down the last one is filled.
struct Sheet<'t> {
    typefaces: &'t Typefaces,
    pages: Vec<Vec<Element>>,
    y: f32,
}

impl Sheet<'_> {
    /// Seller on the left, title and what identifies the invoice on the right, then the customer.
    fn head(&mut self, invoice: &InvoiceDocument) {
        self.right(RIGHT, TOP, "Invoice", TITLE);
        let facts = [
            ("Number", invoice.number.clone()),
            ("Date", invoice.issued_on.format("%Y-%m-%d").to_string()),
            ("Order", invoice.order_reference.clone()),
        ];
        let mut right_y = TOP + 2.0 * LEADING;
        for (name, value) in &facts {
            for line in shortened(self.typefaces.wrap(value, BODY, 190.0), 3) {
                self.right(RIGHT, right_y, &line, BODY);
                right_y += LEADING;
            }
            self.text(RIGHT - 240.0, right_y - LEADING, name, SMALL);
        }
        let tax_id = invoice.seller.tax_id.iter().map(|id| format!("Tax ID {id}"));
        let seller: Vec<String> = invoice.seller.address.iter().cloned().chain(tax_id).collect();
        self.y = TOP;
        self.block(&invoice.seller.name, &seller);
        self.y = self.y.max(right_y) + 2.0 * LEADING;
        self.text(LEFT, self.y, "Billed to", SMALL);
        self.y += LEADING;
        self.block(&invoice.customer.name, &invoice.customer.address);
        self.y += 2.0 * LEADING;
    }

    /// A name in bold and lines under it, in the left half of the page.
    fn block(&mut self, name: &str, lines: &[String]) {
        let styled = std::iter::once((name, STRONG)).chain(lines.iter().map(|line| (line.as_str(), BODY)));
        for (text, style) in styled {
            for line in self.typefaces.wrap(text, style, 230.0) {
                self.make_room(LEADING);
                self.text(LEFT, self.y, &line, style);
                self.y += LEADING;
            }
        }
    }

    fn table_head(&mut self) {
        self.make_room(3.0 * LEADING);
        self.text(LEFT, self.y, "Description", SMALL);
        self.right(QUANTITY, self.y, "Quantity", SMALL);
        self.right(UNIT_PRICE, self.y, "Unit price", SMALL);
        self.right(RIGHT, self.y, "Amount", SMALL);
        self.rule(LEFT, self.y + 5.0);
        self.y += LEADING + ROW_GAP;
    }

    /// One row, which is not broken over pages unless it is longer than one.
    fn row(&mut self, line: &InvoiceLine, invoice: &InvoiceDocument) -> Result<(), PdfError> {
        let description = self.typefaces.wrap(&line.description, BODY, DESCRIPTION_WIDTH);
        let sku = line
            .sku
            .iter()
            .flat_map(|sku| self.typefaces.wrap(sku, SMALL, DESCRIPTION_WIDTH));
        let texts: Vec<(String, Style)> = description
            .into_iter()
            .map(|text| (text, BODY))
            .chain(sku.map(|text| (text, SMALL)))
            .collect();
        let height = texts.len() as f32 * LEADING;
        if self.y + height > BOTTOM {
            self.new_page();
            self.table_head();
        }
        self.right(QUANTITY, self.y, &line.quantity.to_string(), BODY);
        self.right(
            UNIT_PRICE,
            self.y,
            &format_minor(line.unit_price_minor.into(), invoice.currency)?,
            BODY,
        );
        self.right(
            RIGHT,
            self.y,
            &format_minor(line.amount_minor(), invoice.currency)?,
            BODY,
        );
        for (text, style) in texts {
            if self.y > BOTTOM {
                self.new_page();
                self.table_head();
            }
            self.text(LEFT, self.y, &text, style);
            self.y += LEADING;
        }
        self.y += ROW_GAP;
        Ok(())
    }

    fn total(&mut self, invoice: &InvoiceDocument) -> Result<(), PdfError> {
        self.make_room(3.0 * LEADING);
        self.rule(LEFT, self.y - LEADING + 2.0);
        self.y += ROW_GAP;
        let total = format_minor(invoice.total_minor.into(), invoice.currency)?;
        self.text(UNIT_PRICE - 85.0, self.y, "Total", STRONG);
        self.right(RIGHT, self.y, &format!("{total} {}", invoice.currency.code()), STRONG);
        self.y += 3.0 * LEADING;
        Ok(())
    }

    fn note(&mut self, invoice: &InvoiceDocument) {
        let Some(note) = &invoice.note else { return };
        for line in self.typefaces.wrap(note, BODY, RIGHT - LEFT) {
            self.make_room(LEADING);
            self.text(LEFT, self.y, &line, BODY);
            self.y += LEADING;
        }
    }

    /// The foot of each page, once it is known how many there are.
    fn feet(&mut self, invoice: &InvoiceDocument) {
        let count = self.pages.len();
        let half = (RIGHT - LEFT) / 2.0;
        for number in 1..=count {
            let text = format!("Page {number} of {count}");
            let x = RIGHT - self.typefaces.width(&text, SMALL);
            let name = self.typefaces.wrap(&format!("Invoice {}", invoice.number), SMALL, half);
            let page = &mut self.pages[number - 1];
            page.push(Element::Text {
                x: LEFT,
                y: FOOT,
                text: shortened(name, 1).concat(),
                style: SMALL,
            });
            page.push(Element::Text {
                x,
                y: FOOT,
                text,
                style: SMALL,
            });
        }
    }

    fn make_room(&mut self, height: f32) {
        if self.y + height > BOTTOM {
            self.new_page();
        }
    }

    fn new_page(&mut self) {
        self.pages.push(Vec::new());
        self.y = TOP;
    }

    fn text(&mut self, x: f32, y: f32, text: &str, style: Style) {
        self.put(Element::Text {
            x,
            y,
            text: text.to_owned(),
            style,
        });
    }

    /// A text that ends at `x`.
    fn right(&mut self, x: f32, y: f32, text: &str, style: Style) {
        self.text(x - self.typefaces.width(text, style), y, text, style);
    }

    fn rule(&mut self, x: f32, y: f32) {
        self.put(Element::Rule { x, y, width: RIGHT - x });
    }

    fn put(&mut self, element: Element) {
        if let Some(page) = self.pages.last_mut() {
            page.push(element);
        }
    }
}
