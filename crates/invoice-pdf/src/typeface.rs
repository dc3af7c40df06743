//! Measuring and setting text. Latin, Greek and Cyrillic need no shaping: a character is a glyph.

use krilla::text::{Font, GlyphId, KrillaGlyph};
use skrifa::charmap::Charmap;
use skrifa::instance::{LocationRef, Size};
use skrifa::metrics::GlyphMetrics;
use skrifa::{FontRef, MetadataProvider};

use crate::PdfError;

/// How a text looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Style {
    pub(crate) size: f32,
    pub(crate) bold: bool,
    /// 0 is black, 255 is white.
    pub(crate) lightness: u8,
}

/// One of the two weights.
pub(crate) struct Typeface {
    pub(crate) font: Font,
    charmap: Charmap<'static>,
    metrics: GlyphMetrics<'static>,
    units_per_em: f32,
}

pub(crate) struct Typefaces {
    regular: Typeface,
    bold: Typeface,
}

impl Typefaces {
    pub(crate) fn load() -> Result<Self, PdfError> {
        let regular = Typeface::load(dejavu::sans::regular()).ok_or(PdfError::Typeface)?;
        let bold = Typeface::load(dejavu::sans::bold()).ok_or(PdfError::Typeface)?;
        Ok(Self { regular, bold })
    }

    pub(crate) fn of(&self, style: Style) -> &Typeface {
        if style.bold { &self.bold } else { &self.regular }
    }

    /// The width of a text in points.
    pub(crate) fn width(&self, text: &str, style: Style) -> f32 {
        let typeface = self.of(style);
        text.chars().map(|character| typeface.advance(character)).sum::<f32>() * style.size
    }

    /// Breaks a text into lines that fit into `width`: between words, and within a word that is too long for a line.
    pub(crate) fn wrap(&self, text: &str, style: Style, width: f32) -> Vec<String> {
        let mut lines = Vec::new();
        let mut line = String::new();
        for word in text.split_whitespace() {
            let longer = if line.is_empty() {
                word.to_owned()
            } else {
                format!("{line} {word}")
            };
            if self.width(&longer, style) <= width {
                line = longer;
                continue;
            }
            if !line.is_empty() {
                lines.push(std::mem::take(&mut line));
            }
            for character in word.chars() {
                line.push(character);
                if self.width(&line, style) > width && line.chars().count() > 1 {
                    line.pop();
                    lines.push(std::mem::replace(&mut line, character.to_string()));
                }
            }
        }
        lines.push(line);
        lines
    }
}

impl Typeface {
    fn load(data: &'static [u8]) -> Option<Self> {
        let reference = FontRef::new(data).ok()?;
        let font = Font::new(data.into(), 0)?;
        let charmap = reference.charmap();
        let metrics = reference.glyph_metrics(Size::unscaled(), LocationRef::default());
        Some(Self {
            units_per_em: font.units_per_em(),
            font,
            charmap,
            metrics,
        })
    }

    pub(crate) fn glyphs(&self, text: &str) -> Vec<KrillaGlyph> {
        let glyph = |(start, character): (usize, char)| {
            let id = GlyphId::new(self.glyph(character).to_u32());
            let range = start..start + character.len_utf8();
            KrillaGlyph::new(id, self.advance(character), 0.0, 0.0, 0.0, range, None)
        };
        text.char_indices().map(glyph).collect()
    }

    /// The glyph of a character; one that is missing has that of the empty box.
    fn glyph(&self, character: char) -> skrifa::GlyphId {
        self.charmap.map(character).unwrap_or(skrifa::GlyphId::NOTDEF)
    }

    /// The width of a character, in parts of the size.
    fn advance(&self, character: char) -> f32 {
        self.metrics.advance_width(self.glyph(character)).unwrap_or_default() / self.units_per_em
    }
}
