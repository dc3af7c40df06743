//! Reading the cluster's Secrets.

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use secrecy::SecretString;
use store::admin::Passwords;

use super::build::SystemPasswords;

/// Every password a shard needs.
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    pub system: SystemPasswords,
    pub roles: Passwords,
}

/// Why there are no credentials; the cluster's controller makes and mends the Secrets.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    #[error("could not read Secret {name}")]
    Read {
        name: String,
        #[source]
        source: kube::Error,
    },
    #[error("Secret {name} is not there yet")]
    Missing { name: String },
    #[error("Secret {name} has no text under the key {key}: delete the Secret, the operator makes a new one")]
    Incomplete { name: String, key: &'static str },
}

impl SecretError {
    /// It comes by itself.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }
}

/// Reads all of them.
pub(crate) async fn read(api: &Api<Secret>, cluster: &str) -> Result<Credentials, SecretError> {
    let system = Content::read(api, format!("{cluster}-postgres")).await?;
    let password = async |program: &str| {
        Content::read(api, format!("{cluster}-{program}"))
            .await?
            .text("password")
    };
    let (replication, rewind) = (system.text("replication-password")?, system.text("rewind-password")?);
    Ok(Credentials {
        roles: Passwords {
            app: password("app").await?,
            notifier: password("notifier").await?,
            mover: password("mover").await?,
            monitor: password("monitor").await?,
            replication: replication.clone(),
            rewind: rewind.clone(),
        },
        system: SystemPasswords {
            superuser: system.text("superuser-password")?,
            replication,
            rewind,
            patroni_username: system.plain("patroni-username")?,
            patroni_password: system.text("patroni-password")?,
        },
    })
}

struct Content {
    name: String,
    secret: Secret,
}

impl Content {
    async fn read(api: &Api<Secret>, name: String) -> Result<Self, SecretError> {
        match api.get_opt(&name).await {
            Ok(Some(secret)) => Ok(Self { name, secret }),
            Ok(None) => Err(SecretError::Missing { name }),
            Err(source) => Err(SecretError::Read { name, source }),
        }
    }

    fn text(&self, key: &'static str) -> Result<SecretString, SecretError> {
        self.plain(key).map(SecretString::from)
    }

    fn plain(&self, key: &'static str) -> Result<String, SecretError> {
        let incomplete = || SecretError::Incomplete {
            name: self.name.clone(),
            key,
        };
        let bytes = self
            .secret
            .data
            .as_ref()
            .and_then(|d| d.get(key))
            .ok_or_else(incomplete)?;
        let text = String::from_utf8(bytes.0.clone()).map_err(|_| incomplete())?;
        if text.is_empty() { Err(incomplete()) } else { Ok(text) }
    }
}
