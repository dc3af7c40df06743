//! How templates show times and amounts.

use std::fmt::Write;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use iso_currency::Currency;
use minijinja::{Environment, Error, ErrorKind, State, value::Kwargs};

pub(super) fn register(environment: &mut Environment<'static>) {
    environment.add_filter("local", local);
    environment.add_filter("money", money);
}

/// `time | local("%d.%m.%Y")`: a time in the customer's zone.
fn local(state: &State<'_, '_>, time: String, format: String) -> Result<String, Error> {
    let wrong = |what: String| Error::new(ErrorKind::InvalidOperation, what);
    let time: DateTime<Utc> = time.parse().map_err(|_| wrong(format!("{time:?} is no time")))?;
    let zone = state
        .lookup("time_zone")
        .map(|zone| zone.to_string())
        .unwrap_or_default();
    let zone: Tz = zone.parse().map_err(|_| wrong(format!("{zone:?} is no time zone")))?;
    let mut shown = String::new();
    // chrono finds an unknown specifier only while formatting.
    write!(shown, "{}", time.with_timezone(&zone).format(&format))
        .map_err(|_| wrong(format!("{format:?} is no strftime format")))?;
    Ok(shown)
}

/// `minor | money("EUR", decimal=",", group=".")`: minor units as the currency divides them.
fn money(minor: i64, currency: String, marks: Kwargs) -> Result<String, Error> {
    let decimal = marks.get::<Option<String>>("decimal")?;
    let group = marks.get::<Option<String>>("group")?;
    marks.assert_all_used()?;
    let digits = Currency::from_code(&currency)
        .and_then(|currency| currency.exponent())
        .ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidOperation,
                format!("{currency:?} is no currency with minor units"),
            )
        })?;
    let number = decimal_number(
        minor,
        usize::from(digits),
        decimal.as_deref().unwrap_or("."),
        group.as_deref().unwrap_or(","),
    );
    // The space must not break: an amount is one word.
    Ok(format!("{number}\u{a0}{currency}"))
}

fn decimal_number(minor: i64, digits: usize, decimal: &str, group: &str) -> String {
    let padded = format!("{:0>width$}", minor.unsigned_abs(), width = digits + 1);
    let (whole, fraction) = padded.split_at(padded.len() - digits);
    let mut shown = String::from(if minor < 0 { "-" } else { "" });
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index) % 3 == 0 {
            shown.push_str(group);
        }
        shown.push(digit);
    }
    if digits > 0 {
        shown.push_str(decimal);
        shown.push_str(fraction);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_the_digits_of_their_currency() {
        assert_eq!(decimal_number(3998, 2, ".", ","), "39.98");
        assert_eq!(decimal_number(5, 2, ".", ","), "0.05");
        assert_eq!(decimal_number(0, 2, ",", "."), "0,00");
        assert_eq!(decimal_number(123_456_789, 2, ",", "."), "1.234.567,89");
        assert_eq!(decimal_number(-123_456, 3, ".", ","), "-123.456");
        assert_eq!(decimal_number(1_000, 0, ".", ","), "1,000");
        assert_eq!(decimal_number(i64::MIN, 2, ".", ""), "-92233720368547758.08");
    }

    #[test]
    fn the_filters_refuse_what_they_cannot_show() {
        let mut environment = Environment::new();
        register(&mut environment);
        let render = |source: &str| environment.render_str(source, minijinja::context! { time_zone => "Asia/Tokyo" });
        assert_eq!(render("{{ 1234 | money('JPY') }}").unwrap(), "1,234\u{a0}JPY");
        assert_eq!(
            render("{{ '2026-03-01T23:30:00Z' | local('%d.%m.%Y %H:%M') }}").unwrap(),
            "02.03.2026 08:30"
        );
        for broken in [
            "{{ 1 | money('QQQ') }}",
            "{{ 1 | money('EUR', comma=',') }}",
            "{{ 'yesterday' | local('%d') }}",
            "{{ '2026-03-01T23:30:00Z' | local('%!') }}",
        ] {
            assert!(render(broken).is_err(), "{broken}");
        }
    }
}
