//! SCRAM-SHA-256 verifiers, computed here so that no plain password reaches a server or its log.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

/// Postgres' own count of rounds.
const ROUNDS: u32 = 4096;
const PREFIX: &str = "SCRAM-SHA-256";

/// The SCRAM-SHA-256 verifier of a password, as `CREATE ROLE ... PASSWORD` takes it: RFC 5802 and RFC 7677, with a
/// random salt and Postgres' 4096 rounds.
pub fn scram_verifier(password: &SecretString) -> SecretString {
    verifier(password, &rand::random::<[u8; 16]>(), ROUNDS).into()
}

/// Whether `stored` (as `pg_authid.rolpassword` has it) is a verifier of this password.
pub(super) fn fits(password: &SecretString, stored: &str) -> bool {
    let parse = || {
        let (rounds_and_salt, _) = stored.strip_prefix(PREFIX)?.strip_prefix('$')?.split_once('$')?;
        let (rounds, salt) = rounds_and_salt.split_once(':')?;
        Some((
            rounds.parse::<u32>().ok().filter(|rounds| *rounds > 0)?,
            STANDARD.decode(salt).ok()?,
        ))
    };
    parse().is_some_and(|(rounds, salt)| verifier(password, &salt, rounds) == stored)
}

fn verifier(password: &SecretString, salt: &[u8], rounds: u32) -> String {
    let plain = password.expose_secret();
    // As Postgres does: a password that SASLprep refuses is used as it is.
    let prepared = stringprep::saslprep(plain).unwrap_or(plain.into());
    let salted = salted_password(prepared.as_bytes(), salt, rounds);
    let stored_key = Sha256::digest(hmac(&salted, b"Client Key"));
    let server_key = hmac(&salted, b"Server Key");
    format!(
        "{PREFIX}${rounds}:{}${}:{}",
        STANDARD.encode(salt),
        STANDARD.encode(stored_key),
        STANDARD.encode(server_key)
    )
}

/// `Hi` of RFC 5802: PBKDF2 with one block.
fn salted_password(password: &[u8], salt: &[u8], rounds: u32) -> [u8; 32] {
    let mut block = hmac(password, &[salt, &1_u32.to_be_bytes()].concat());
    let mut result = block;
    for _ in 1..rounds {
        block = hmac(password, &block);
        result.iter_mut().zip(block).for_each(|(sum, byte)| *sum ^= byte);
    }
    result
}

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    // HMAC takes keys of any length; the block size bounds nothing here.
    let mut mac = match Hmac::<Sha256>::new_from_slice(key) {
        Ok(mac) => mac,
        Err(_) => unreachable!("HMAC takes keys of any length"),
    };
    mac.update(message);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7677, section 3: user `user`, password `pencil`; its server signature was checked with these keys.
    #[test]
    fn the_verifier_is_that_of_the_rfc() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = verifier(&"pencil".to_owned().into(), &salt, 4096);
        assert_eq!(
            verifier,
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
        );
    }

    #[test]
    fn a_verifier_fits_its_password_only() {
        let verifier = scram_verifier(&"one".to_owned().into());
        assert!(fits(&"one".to_owned().into(), verifier.expose_secret()));
        assert!(!fits(&"two".to_owned().into(), verifier.expose_secret()));
        for other in [
            "",
            "md5abc",
            "SCRAM-SHA-256$",
            "SCRAM-SHA-256$0:AAAA$x:y",
            "SCRAM-SHA-256$x:!$x:y",
        ] {
            assert!(!fits(&"one".to_owned().into(), other), "{other}");
        }
    }
}
