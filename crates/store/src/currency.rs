//! The currency of an order's total.

use std::fmt;
use std::str::FromStr;

/// An ISO 4217 alphabetic code. The store checks its form; whether it is in use is for the API's edge to know.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CurrencyCode([u8; 3]);

impl CurrencyCode {
    /// The three letters.
    pub fn as_str(&self) -> &str {
        // The constructor only lets ASCII letters in, so the fallback is never taken.
        std::str::from_utf8(&self.0).unwrap_or("XXX")
    }
}

impl FromStr for CurrencyCode {
    type Err = CurrencyError;

    fn from_str(text: &str) -> Result<Self, CurrencyError> {
        match <[u8; 3]>::try_from(text.as_bytes()) {
            Ok(letters) if letters.iter().all(u8::is_ascii_uppercase) => Ok(Self(letters)),
            _ => Err(CurrencyError {
                found: text.chars().take(12).collect(),
            }),
        }
    }
}

impl fmt::Display for CurrencyCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for CurrencyCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Not the form of a currency code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is not a currency code: write three capital letters as in ISO 4217, such as EUR")]
pub struct CurrencyError {
    found: String,
}
