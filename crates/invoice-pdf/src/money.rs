use iso_currency::Currency;

use crate::PdfError;

/// An amount in minor units as people read it, without the currency: `1999` of EUR is `19.99`, of JPY `1999`.
///
/// Without separators of thousands: a comma and a full stop mean opposite things in different countries.
///
/// # Errors
/// If the currency has no minor unit (gold, special drawing rights).
pub fn format_minor(minor: i128, currency: Currency) -> Result<String, PdfError> {
    let digits = usize::from(currency.exponent().ok_or(PdfError::Currency(currency.code()))?);
    let sign = if minor < 0 { "-" } else { "" };
    let padded = format!("{:0>width$}", minor.unsigned_abs(), width = digits + 1);
    let (major, rest) = padded.split_at(padded.len() - digits);
    Ok(if digits == 0 {
        format!("{sign}{major}")
    } else {
        format!("{sign}{major}.{rest}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_the_digits_of_their_currency() {
        let format = |minor, currency| format_minor(minor, currency).unwrap();
        assert_eq!(format(1_999, Currency::EUR), "19.99");
        assert_eq!(format(1_999, Currency::JPY), "1999");
        assert_eq!(format(1_999, Currency::KWD), "1.999");
        assert_eq!(format(5, Currency::EUR), "0.05");
        assert_eq!(format(-5, Currency::EUR), "-0.05");
        assert_eq!(format(0, Currency::EUR), "0.00");
        assert_eq!(format(123_456_789, Currency::EUR), "1234567.89");
    }

    #[test]
    fn what_is_no_money_is_refused() {
        assert!(matches!(format_minor(1, Currency::XAU), Err(PdfError::Currency("XAU"))));
    }
}
