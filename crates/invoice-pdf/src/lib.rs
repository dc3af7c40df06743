//! Invoices as PDF: A4, as many pages as it takes, the same bytes for the same document.
//!
//! The typeface is DejaVu Sans (free licence), which covers Latin, Greek and Cyrillic among others; of it only what an
//! invoice uses is embedded. A character that it lacks is shown as an empty box, and is still there for searching and
//! copying. Text runs from left to right.

mod document;
mod layout;
mod money;
mod stored;
mod typeface;

use chrono::Datelike;
use krilla::Document;
use krilla::color::luma;
use krilla::error::KrillaError;
use krilla::geom::{PathBuilder, Point, Rect};
use krilla::metadata::{DateTime, Metadata};
use krilla::page::PageSettings;
use krilla::paint::Fill;
use krilla::surface::Surface;

pub use document::{Customer, InvoiceDocument, InvoiceLine, Seller};
pub use iso_currency::Currency;
use layout::{A4, Element, lay_out};
pub use money::format_minor;
pub use stored::{StoredError, stored};
use typeface::Typefaces;

/// Why a document cannot be printed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PdfError {
    /// The total is not what the lines add up to; whoever made the document has to mend it.
    #[error("invoice {number} says a total of {total_minor}, but its lines add up to {sum_minor} (minor units)")]
    Total {
        /// The invoice's number.
        number: String,
        /// What the document says.
        total_minor: i64,
        /// What the lines add up to.
        sum_minor: i128,
    },
    /// Not a currency in which something can be paid, such as gold.
    #[error("{0} has no minor unit, so amounts in it cannot be written")]
    Currency(&'static str),
    /// The embedded typeface is not readable: the program was built wrongly.
    #[error("the embedded typeface cannot be read")]
    Typeface,
    /// The writer of PDF refused the document.
    #[error("the PDF of invoice {number} cannot be written: {source}")]
    Write {
        /// The invoice's number.
        number: String,
        /// What the writer says.
        source: Box<KrillaError>,
    },
}

/// Prints an invoice.
///
/// # Errors
/// If its total is not that of its lines, or its currency has no minor unit.
pub fn render(invoice: &InvoiceDocument) -> Result<Vec<u8>, PdfError> {
    let typefaces = Typefaces::load()?;
    let pages = lay_out(invoice, &typefaces)?;
    let mut document = Document::new();
    document.set_metadata(metadata(invoice));
    let (width, height) = A4;
    for elements in &pages {
        let settings = PageSettings::from_wh(width, height).unwrap_or_default();
        let mut page = document.start_page_with(settings);
        let mut surface = page.surface();
        for element in elements {
            draw(&mut surface, element, &typefaces);
        }
        surface.finish();
        page.finish();
    }
    document.finish().map_err(|source| PdfError::Write {
        number: invoice.number.clone(),
        source: Box::new(source),
    })
}

/// Dates are those of the invoice, never of the printing: the same document gives the same bytes.
fn metadata(invoice: &InvoiceDocument) -> Metadata {
    let issued = invoice.issued_on;
    let date = DateTime::new(issued.year().clamp(0, 9_999) as u16)
        .month(issued.month() as u8)
        .day(issued.day() as u8);
    Metadata::new()
        .title(format!("Invoice {}", invoice.number))
        .authors(vec![invoice.seller.name.clone()])
        .creation_date(date)
        .language("en".to_owned())
}

fn draw(surface: &mut Surface<'_>, element: &Element, typefaces: &Typefaces) {
    let grey = |lightness| Fill {
        paint: luma::Color::new(lightness).into(),
        ..Fill::default()
    };
    match element {
        Element::Text { x, y, text, style } => {
            surface.set_fill(Some(grey(style.lightness)));
            let typeface = typefaces.of(*style);
            let glyphs = typeface.glyphs(text);
            let start = Point::from_xy(*x, *y);
            surface.draw_glyphs(start, &glyphs, typeface.font.clone(), text, style.size, false);
        }
        Element::Rule { x, y, width } => {
            surface.set_fill(Some(grey(150)));
            let mut path = PathBuilder::new();
            if let Some(rectangle) = Rect::from_xywh(*x, *y, *width, 0.6) {
                path.push_rect(rectangle);
            }
            if let Some(path) = path.finish() {
                surface.draw_path(&path);
            }
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
