//! Kubernetes quantities ("72Gi") as bytes.

/// A quantity that is not a whole number of bytes.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a size: write a number with one of Ki, Mi, Gi, Ti, k, M, G, T, for instance 72Gi")]
pub(crate) struct BadQuantity(String);

/// Bytes of a quantity as Kubernetes writes them; fractions are rounded up, as Kubernetes does.
pub(crate) fn bytes(text: &str) -> Result<u64, BadQuantity> {
    let bad = || BadQuantity(text.to_owned());
    let split = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| bad())?;
    let factor = match suffix {
        "" => 1.0,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "Ki" => 1024.0,
        "Mi" => 1024.0_f64.powi(2),
        "Gi" => 1024.0_f64.powi(3),
        "Ti" => 1024.0_f64.powi(4),
        "Pi" => 1024.0_f64.powi(5),
        exponent => match exponent.strip_prefix(['e', 'E']).map(str::parse::<i32>) {
            Some(Ok(power)) => 10.0_f64.powi(power),
            _ => return Err(bad()),
        },
    };
    let value = (number * factor).ceil();
    // 2^53: past it a double no longer counts single bytes; 8 PiB is beyond any volume.
    if value.is_finite() && (0.0..=9_007_199_254_740_992.0).contains(&value) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked on the line above"
        )]
        Ok(value as u64)
    } else {
        Err(bad())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_notation_of_kubernetes_is_read() {
        let cases = [
            ("0", 0),
            ("1024", 1024),
            ("1k", 1000),
            ("1Ki", 1024),
            ("1.5Gi", 1_610_612_736),
            ("72Gi", 77_309_411_328),
            ("2e3", 2000),
            ("1500m", 2),
            ("1Ti", 1 << 40),
        ];
        for (text, expected) in cases {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_size_is_refused() {
        for text in ["", "Gi", "1gb", "-1Gi", "1.2.3", "1e", "1e99", "1 Gi"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
