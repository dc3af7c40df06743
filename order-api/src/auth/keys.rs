//! The API keys: one file a key in a mounted Secret, known by their SHA-256 only and read again when they change.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio_util::sync::CancellationToken;

/// How often the directory is looked at. A mounted Secret takes up to a minute to change anyway; reading a few small
/// files costs nothing, and no notification is lost on the file systems that have none.
const REREAD_EVERY: Duration = Duration::from_secs(2);

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Look at users, orders, invoices and notifications.
    Read,
    /// Change them.
    Write,
    /// Look at the inside of the system: the ring.
    Admin,
}

impl Scope {
    /// The word in the key file and in refusals.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

/// One key file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    /// Hexadecimal SHA-256 of the bearer token.
    sha256: String,
    /// The token before, which stays good until this field is taken away: so that a rotation needs no common instant.
    #[serde(default)]
    previous_sha256: Option<String>,
    scopes: Vec<Scope>,
    /// How many requests a second the key may make; unlimited when left out.
    #[serde(default)]
    requests_per_second: Option<NonZeroU32>,
}

/// A known key.
#[derive(Debug)]
pub struct ApiKey {
    /// The name of its file: the client, in whose name idempotency keys are kept.
    pub name: Arc<str>,
    digests: Vec<[u8; 32]>,
    scopes: Vec<Scope>,
    quota: Option<NonZeroU32>,
    limiter: Option<DefaultDirectRateLimiter>,
}

impl ApiKey {
    /// Whether the key has `scope`.
    pub fn allows(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }

    /// Counts one request; the time to wait when the key has used up its share.
    pub fn admit(&self) -> Result<(), Duration> {
        use governor::clock::{Clock, DefaultClock};
        match &self.limiter {
            None => Ok(()),
            Some(limiter) => limiter
                .check()
                .map_err(|not_until| not_until.wait_time_from(DefaultClock::default().now())),
        }
    }
}

/// Why a key file is not used.
#[derive(Debug, thiserror::Error)]
enum KeyFileError {
    #[error("reading the file: {0}")]
    Read(#[from] std::io::Error),
    #[error("it is not the JSON of a key: {0}")]
    Json(#[from] serde_json::Error),
    #[error("sha256 is not 64 hexadecimal digits")]
    Digest,
    #[error("it has no scopes")]
    NoScopes,
}

/// The directory of keys could not be read.
#[derive(Debug, thiserror::Error)]
#[error("reading the API keys in {directory}: {source}; mount the Secret with the keys there")]
pub struct KeysError {
    directory: PathBuf,
    source: std::io::Error,
}

/// All keys as they are now.
#[derive(Debug)]
pub struct ApiKeys {
    directory: PathBuf,
    current: ArcSwap<Vec<Arc<ApiKey>>>,
}

impl ApiKeys {
    /// Reads the directory. A broken file refuses its own key only, with an error in the log.
    pub fn load(directory: impl Into<PathBuf>) -> Result<Arc<Self>, KeysError> {
        let directory = directory.into();
        let keys = read_directory(&directory, &[]).map_err(|source| KeysError {
            directory: directory.clone(),
            source,
        })?;
        tracing::info!(keys = keys.len(), "read the API keys");
        Ok(Arc::new(Self {
            directory,
            current: ArcSwap::from_pointee(keys),
        }))
    }

    /// The key of this bearer token. Every digest is compared, each in constant time, so that the time taken tells
    /// neither how much of a guess was right nor which key it was near to.
    pub fn find(&self, token: &[u8]) -> Option<Arc<ApiKey>> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        let mut found = None;
        for key in self.current.load().iter() {
            for known in &key.digests {
                if bool::from(known.ct_eq(&digest)) {
                    found = Some(key.clone());
                }
            }
        }
        found
    }

    /// Reads the directory again. When it cannot be read at all the keys stay as they are: a rotation that goes wrong on
    /// the way must not lock every client out.
    pub fn reload(&self) {
        let old = self.current.load();
        match read_directory(&self.directory, &old) {
            Ok(keys) if keys.len() != old.len() || keys.iter().zip(old.iter()).any(|(a, b)| !Arc::ptr_eq(a, b)) => {
                tracing::info!(keys = keys.len(), "the API keys have changed");
                self.current.store(Arc::new(keys));
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(
                error = telemetry::chain(&error),
                "cannot read the API keys again; those known stay in force"
            ),
        }
    }

    /// Keeps the keys current until `stop`.
    pub async fn keep_current(self: Arc<Self>, stop: CancellationToken) {
        while stop
            .run_until_cancelled(tokio::time::sleep(REREAD_EVERY))
            .await
            .is_some()
        {
            let keys = self.clone();
            // A mounted Secret is a file system all the same: reading it may block.
            if let Err(error) = tokio::task::spawn_blocking(move || keys.reload()).await {
                tracing::error!(error = telemetry::chain(&error), "reading the API keys again panicked");
            }
        }
    }
}

/// All good keys of the directory, by name. A key that has not changed keeps its entry, and with it its rate limiter.
fn read_directory(directory: &Path, old: &[Arc<ApiKey>]) -> Result<Vec<Arc<ApiKey>>, std::io::Error> {
    let old: HashMap<&str, &Arc<ApiKey>> = old.iter().map(|key| (&*key.name, key)).collect();
    let mut keys = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        // Kubernetes keeps the versions of a mounted Secret in `..data` and `..<time>`.
        if name.starts_with('.') {
            continue;
        }
        match read_key(&name, &entry.path()) {
            Ok(key) => {
                let kept = old.get(name.as_str()).filter(|old| same(old, &key));
                keys.push(kept.map_or_else(|| Arc::new(key), |old| Arc::clone(old)));
            }
            Err(error) => tracing::error!(
                key = name,
                error = telemetry::chain(&error),
                "an API key is not usable and is refused"
            ),
        }
    }
    keys.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(keys)
}

fn same(a: &ApiKey, b: &ApiKey) -> bool {
    a.digests == b.digests && a.scopes == b.scopes && a.quota == b.quota
}

fn read_key(name: &str, path: &Path) -> Result<ApiKey, KeyFileError> {
    let file: KeyFile = serde_json::from_slice(&std::fs::read(path)?)?;
    if file.scopes.is_empty() {
        return Err(KeyFileError::NoScopes);
    }
    let digests = std::iter::once(&file.sha256)
        .chain(&file.previous_sha256)
        .map(|hex| digest_from_hex(hex).ok_or(KeyFileError::Digest))
        .collect::<Result<_, _>>()?;
    let quota = file.requests_per_second;
    let limiter = quota.map(|rate| RateLimiter::direct(Quota::per_second(rate)));
    Ok(ApiKey {
        name: name.into(),
        digests,
        scopes: file.scopes,
        quota,
        limiter,
    })
}

fn digest_from_hex(hex: &str) -> Option<[u8; 32]> {
    let hex = hex.trim().as_bytes();
    let mut digest = [0; 32];
    if hex.len() != 64 || !hex.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(hex.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_key(directory: &Path, name: &str, token: &str, rest: &str) {
        let digest: String = Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect();
        std::fs::write(directory.join(name), format!(r#"{{"sha256":"{digest}",{rest}}}"#)).unwrap();
    }

    #[test]
    fn a_key_is_found_by_its_token_and_has_its_scopes_only() {
        let directory = tempfile::tempdir().unwrap();
        write_key(directory.path(), "shop", "secret-1", r#""scopes":["read"]"#);
        let keys = ApiKeys::load(directory.path()).unwrap();
        let key = keys.find(b"secret-1").unwrap();
        assert_eq!(&*key.name, "shop");
        assert!(key.allows(Scope::Read) && !key.allows(Scope::Write));
        assert!(keys.find(b"secret-2").is_none());
    }

    #[test]
    fn a_rotation_takes_effect_without_a_restart_and_can_overlap() {
        let directory = tempfile::tempdir().unwrap();
        write_key(directory.path(), "shop", "old", r#""scopes":["read"]"#);
        let keys = ApiKeys::load(directory.path()).unwrap();
        let old: String = Sha256::digest("old").iter().map(|byte| format!("{byte:02x}")).collect();
        write_key(
            directory.path(),
            "shop",
            "new",
            &format!(r#""scopes":["read"],"previous_sha256":"{old}""#),
        );
        keys.reload();
        assert!(keys.find(b"old").is_some() && keys.find(b"new").is_some());
        write_key(directory.path(), "shop", "new", r#""scopes":["read"]"#);
        keys.reload();
        assert!(keys.find(b"old").is_none() && keys.find(b"new").is_some());
        std::fs::remove_file(directory.path().join("shop")).unwrap();
        keys.reload();
        assert!(keys.find(b"new").is_none());
    }

    #[test]
    fn a_broken_file_refuses_its_own_key_only() {
        let directory = tempfile::tempdir().unwrap();
        write_key(directory.path(), "good", "good", r#""scopes":["read"]"#);
        std::fs::write(directory.path().join("json"), "{").unwrap();
        std::fs::write(directory.path().join("digest"), r#"{"sha256":"00","scopes":["read"]}"#).unwrap();
        write_key(directory.path(), "scope", "scope", r#""scopes":["root"]"#);
        write_key(directory.path(), "none", "none", r#""scopes":[]"#);
        let keys = ApiKeys::load(directory.path()).unwrap();
        assert!(keys.find(b"good").is_some());
        assert!(keys.find(b"scope").is_none() && keys.find(b"none").is_none());
    }

    #[test]
    fn an_unreadable_directory_keeps_the_keys_in_force() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("keys");
        std::fs::create_dir(&inner).unwrap();
        write_key(&inner, "shop", "secret", r#""scopes":["read"]"#);
        let keys = ApiKeys::load(&inner).unwrap();
        std::fs::remove_dir_all(&inner).unwrap();
        keys.reload();
        assert!(keys.find(b"secret").is_some());
    }

    #[test]
    fn a_key_is_limited_to_its_rate_also_over_a_reread() {
        let directory = tempfile::tempdir().unwrap();
        write_key(
            directory.path(),
            "shop",
            "secret",
            r#""scopes":["read"],"requests_per_second":1"#,
        );
        let keys = ApiKeys::load(directory.path()).unwrap();
        assert!(keys.find(b"secret").unwrap().admit().is_ok());
        keys.reload();
        assert!(keys.find(b"secret").unwrap().admit().unwrap_err() > Duration::ZERO);
    }
}
