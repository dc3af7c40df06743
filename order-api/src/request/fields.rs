//! Checks of body fields. Raw strings and numbers end here; what comes out is normalised.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use chrono_tz::Tz;
use email_address::{EmailAddress, Options};
use iso_currency::Currency;
use unic_langid::LanguageIdentifier;

use super::body::push_segment;
use crate::problem::{FieldError, Problem};

/// The largest amount of money of one order, in minor units. Below 2^53, so that every JSON parser reads it exactly.
pub const MAX_AMOUNT_MINOR: i64 = 1_000_000_000_000_000;
/// The largest price of one piece, in minor units.
pub const MAX_UNIT_PRICE_MINOR: i64 = 1_000_000_000_000;
/// The largest quantity of one line.
pub const MAX_QUANTITY: i64 = 1_000_000;

/// Collects what is wrong, so that one answer names every field.
#[derive(Debug, Default)]
pub struct Fields {
    errors: Vec<FieldError>,
    at: String,
}

impl Fields {
    /// Runs `checks` with pointers below `segment`.
    pub fn within<T>(&mut self, segment: &str, checks: impl FnOnce(&mut Self) -> T) -> T {
        let outer = self.at.len();
        push_segment(&mut self.at, segment);
        let result = checks(self);
        self.at.truncate(outer);
        result
    }

    /// Notes that `field` is wrong; always `None`, so that a check can end with it.
    pub fn refuse<T>(&mut self, field: &str, detail: impl Into<Cow<'static, str>>) -> Option<T> {
        let mut pointer = format!("#{}", self.at);
        push_segment(&mut pointer, field);
        self.errors.push(FieldError {
            pointer,
            detail: detail.into(),
        });
        None
    }

    /// The value when nothing was wrong, else the problem that lists it all.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Problem> {
        match value {
            Some(value) if self.errors.is_empty() => Ok(value),
            _ => Err(Problem::fields(self.errors)),
        }
    }

    /// One line of text without control characters, trimmed.
    pub fn line(&mut self, field: &str, value: &str, length: RangeInclusive<usize>) -> Option<String> {
        self.text(field, value, length, |c| c.is_control())
    }

    /// Text that may have several lines.
    pub fn paragraph(&mut self, field: &str, value: &str, length: RangeInclusive<usize>) -> Option<String> {
        self.text(field, value, length, |c| c.is_control() && c != '\n' && c != '\t')
    }

    fn text(
        &mut self,
        field: &str,
        value: &str,
        length: RangeInclusive<usize>,
        refused: impl Fn(char) -> bool,
    ) -> Option<String> {
        let value = value.trim();
        // PostgreSQL stores no NUL, and control characters have no place on an invoice.
        if value.contains(refused) {
            return self.refuse(field, "must not contain control characters");
        }
        if !length.contains(&value.chars().count()) {
            return self.refuse(
                field,
                format!("must have {} to {} characters", length.start(), length.end()),
            );
        }
        Some(value.to_owned())
    }

    /// A whole number within bounds.
    pub fn integer(&mut self, field: &str, value: i64, bounds: RangeInclusive<i64>) -> Option<i64> {
        if !bounds.contains(&value) {
            return self.refuse(
                field,
                format!("must be between {} and {}", bounds.start(), bounds.end()),
            );
        }
        Some(value)
    }

    /// An email address that mail can be sent to; the domain in lower case.
    pub fn email(&mut self, field: &str, value: &str) -> Option<String> {
        let value = value.trim();
        let options = Options::default()
            .without_display_text()
            .without_domain_literal()
            .with_required_tld();
        if value.len() > 254 || value.chars().any(char::is_control) {
            return self.refuse(field, "must be an email address of at most 254 bytes");
        }
        match EmailAddress::parse_with_options(value, options) {
            Ok(address) => Some(format!("{}@{}", address.local_part(), address.domain().to_lowercase())),
            Err(error) => self.refuse(field, format!("must be an email address: {error}")),
        }
    }

    /// A telephone number in international form; E.164 comes out.
    pub fn mobile_number(&mut self, field: &str, value: &str) -> Option<String> {
        let value = value.trim();
        let plain = value.len() <= 32 && value.bytes().all(|b| b.is_ascii_digit() || b"+ ()-./".contains(&b));
        // Without the country there is no telling whose number it is, so a national form is not guessed at.
        if !plain || !value.starts_with('+') {
            return self.refuse(
                field,
                "must be a telephone number in international form, such as +491701234567",
            );
        }
        match phonenumber::parse(None, value) {
            Ok(number) if number.is_valid() => Some(number.format().mode(phonenumber::Mode::E164).to_string()),
            _ => self.refuse(field, "is not a number that can exist in its country's numbering plan"),
        }
    }

    /// A language tag (BCP 47), in its canonical form.
    pub fn locale(&mut self, field: &str, value: &str) -> Option<String> {
        match value.parse::<LanguageIdentifier>() {
            Ok(locale) if value.len() <= 35 => Some(locale.to_string()),
            _ => self.refuse(field, "must be a language tag such as en or de-AT"),
        }
    }

    /// A time zone of the IANA database.
    pub fn time_zone(&mut self, field: &str, value: &str) -> Option<String> {
        match value.parse::<Tz>() {
            Ok(zone) => Some(zone.name().to_owned()),
            Err(_) => self.refuse(field, "must be a time zone of the IANA database, such as Europe/Vienna"),
        }
    }

    /// A currency that goods are sold in: ISO 4217, neither a fund, a metal, a test code nor one that was replaced.
    pub fn currency(&mut self, field: &str, value: &str) -> Option<Currency> {
        match Currency::from_code(value) {
            Some(currency)
                if currency.code() == value
                    && !currency.is_fund()
                    && !currency.is_special()
                    && currency.is_superseded().is_none() =>
            {
                Some(currency)
            }
            _ => self.refuse(field, "must be the ISO 4217 code of a current currency, such as EUR"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T>(run: impl FnOnce(&mut Fields) -> Option<T>) -> Result<T, Vec<FieldError>> {
        let mut fields = Fields::default();
        let value = run(&mut fields);
        fields.finish(value).map_err(|problem| problem.into_body().errors)
    }

    #[test]
    fn an_email_address_keeps_its_local_part_and_lowers_its_domain() {
        assert_eq!(
            check(|f| f.email("e", " Ada.L@Example.ORG ")).unwrap(),
            "Ada.L@example.org"
        );
    }

    #[test]
    fn what_mail_cannot_be_sent_to_is_refused() {
        let long = format!("{}@example.org", "a".repeat(250));
        for bad in [
            "",
            "a",
            "a@",
            "@b.org",
            "a@localhost",
            "a@[127.0.0.1]",
            "Ada <a@b.org>",
            "a\0@b.org",
            "a@b.org\r\nBcc: c@d.org",
            &long,
        ] {
            assert!(check(|f| f.email("e", bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_mobile_number_comes_out_as_e164() {
        assert_eq!(
            check(|f| f.mobile_number("m", "+49 (170) 123-4567")).unwrap(),
            "+491701234567"
        );
        assert_eq!(
            check(|f| f.mobile_number("m", "+1 202-555-0143")).unwrap(),
            "+12025550143"
        );
        // The normal form is a fixed point: a client may send back what it got.
        assert_eq!(
            check(|f| f.mobile_number("m", "+491701234567")).unwrap(),
            "+491701234567"
        );
    }

    #[test]
    fn numbers_that_cannot_exist_are_refused() {
        for bad in [
            "",
            "+",
            "0170 1234567",
            "+49",
            "+999123456789",
            "+1 555 12",
            "+49170123456789012345",
            "+4917012\u{0}34567",
            "+49１70",
        ] {
            assert!(check(|f| f.mobile_number("m", bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn locales_zones_and_currencies_are_those_of_their_registers() {
        assert_eq!(check(|f| f.locale("l", "de_at")).unwrap(), "de-AT");
        assert!(check(|f| f.locale("l", "german please")).is_err());
        assert_eq!(check(|f| f.time_zone("t", "Europe/Vienna")).unwrap(), "Europe/Vienna");
        assert!(check(|f| f.time_zone("t", "Mars/Olympus")).is_err());
        assert_eq!(check(|f| f.currency("c", "EUR")).unwrap(), Currency::EUR);
        for bad in ["eur", "XXX", "XAU", "EURO", ""] {
            assert!(check(|f| f.currency("c", bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn text_is_trimmed_counted_in_characters_and_free_of_controls() {
        assert_eq!(check(|f| f.line("t", "  Žofie ", 1..=5)).unwrap(), "Žofie");
        assert!(check(|f| f.line("t", "   ", 1..=5)).is_err());
        assert!(check(|f| f.line("t", "a\0b", 1..=5)).is_err());
        assert!(check(|f| f.line("t", "a\nb", 1..=5)).is_err());
        assert!(check(|f| f.paragraph("t", "a\nb", 1..=5)).is_ok());
    }

    #[test]
    fn every_wrong_field_is_named_with_its_place() {
        let errors = check(|f| {
            f.within("lines", |f| f.within("3", |f| f.integer("quantity", 0, 1..=5)));
            f.currency("currency", "?")
        })
        .unwrap_err();
        let pointers: Vec<_> = errors.iter().map(|e| e.pointer.as_str()).collect();
        assert_eq!(pointers, ["#/lines/3/quantity", "#/currency"]);
    }
}
