//! Bearer keys of the order API, as it knows them: by their digests.

use serde_json::json;
use sha2::{Digest, Sha256};

/// The Secret with one entry a key.
pub const SECRET: &str = "ringwright-api-keys";
/// Everything the API knows.
pub const ALL_SCOPES: [&str; 3] = ["read", "write", "admin"];

/// The entry of a key in the Secret.
#[must_use]
pub fn entry(bearer: &str, scopes: &[&str]) -> String {
    json!({"sha256": hex(&Sha256::digest(bearer.as_bytes())), "scopes": scopes}).to_string()
}

/// Bytes as lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_holds_the_digest_and_not_the_key() {
        let entry: serde_json::Value = serde_json::from_str(&entry("abc", &["read"])).unwrap();
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(entry, json!({"sha256": digest, "scopes": ["read"]}));
    }
}
