//! The files mounted at `/etc/patroni`, their ConfigMap and Secret, and the digest that tells whether a member has
//! loaded them.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use secrecy::SecretString;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::labels::{self, component, names};
use super::patroni;
use crate::order_shard::shard::Shard;

/// Name of the shared file.
const SHARED_FILE: &str = "patroni.yml";
/// Name of the file with passwords.
pub(super) const CREDENTIALS_FILE: &str = "credentials.yml";

/// The passwords of the cluster's system Secret.
#[derive(Debug, Clone)]
pub(crate) struct SystemPasswords {
    pub superuser: SecretString,
    pub replication: SecretString,
    pub rewind: SecretString,
    pub patroni_username: String,
    pub patroni_password: SecretString,
}

/// Everything mounted at `/etc/patroni`.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    public: BTreeMap<String, String>,
    credentials: SecretString,
}

impl Files {
    /// Renders them for the first `replicas` members. `passwords` travel only in the Secret.
    pub(crate) fn render(shard: &Shard, passwords: &SystemPasswords, replicas: u32) -> Self {
        let mut public = BTreeMap::from([(SHARED_FILE.to_owned(), yaml(&patroni::shared_file(shard)))]);
        for member in shard.first_members(replicas) {
            public.insert(member_file_name(&member), yaml(&patroni::member_file(shard, &member)));
        }
        Self {
            public,
            credentials: yaml(&patroni::credentials_file(passwords)).into(),
        }
    }

    /// SHA-256 over what one member reads, as `ringwright-reload` in the image computes it; `None` for a member that
    /// should not run.
    pub(crate) fn digest(&self, member: &str) -> Option<String> {
        use secrecy::ExposeSecret as _;
        let own = self.public.get(&member_file_name(member))?;
        let mut hash = Sha256::new();
        hash.update(self.public.get(SHARED_FILE)?);
        hash.update(self.credentials.expose_secret());
        hash.update(own);
        Some(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    pub(super) fn config_map(&self, shard: &Shard) -> ConfigMap {
        ConfigMap {
            metadata: labels::owned(shard, names::files(&shard.name), component::CONFIGURATION),
            data: Some(self.public.clone()),
            ..ConfigMap::default()
        }
    }

    pub(super) fn secret(&self, shard: &Shard) -> Secret {
        use secrecy::ExposeSecret as _;
        let content = ByteString(self.credentials.expose_secret().as_bytes().to_vec());
        Secret {
            metadata: labels::owned(shard, names::files(&shard.name), component::CONFIGURATION),
            data: Some(BTreeMap::from([(CREDENTIALS_FILE.to_owned(), content)])),
            type_: Some("Opaque".to_owned()),
            ..Secret::default()
        }
    }
}

fn member_file_name(member: &str) -> String {
    format!("member-{member}.yml")
}

/// JSON is YAML, but people read these files: block style where the library can.
fn yaml(value: &Value) -> String {
    serde_yaml_ng::to_string(value).unwrap_or_else(|_| value.to_string())
}
