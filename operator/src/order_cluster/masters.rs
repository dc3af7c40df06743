//! Connections to the masters of a cluster's shards.

use std::fmt;

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{Api, Client};
use ring::Ordinal;
use secrecy::SecretString;
use sqlx::PgConnection;
use store::admin::{self, AdminError, AdminTarget, PgSslMode};

use super::names;

/// The shop's database.
pub(crate) const DATABASE: &str = "orders";
const PORT: u16 = 5432;

/// A shard's master, which keeps its book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keeper {
    pub(crate) namespace: String,
    pub(crate) cluster: String,
    /// The shard's name.
    pub(crate) shard: String,
    pub(crate) ordinal: Ordinal,
    /// Its members as `host:port`.
    pub(crate) hosts: Vec<String>,
    /// Name of the master's pod.
    pub(crate) master: String,
    /// Names of the other members.
    pub(crate) others: Vec<String>,
    /// Whether commits wait for a standby, so that only those named by Patroni may be promoted.
    pub(crate) synchronous: bool,
}

/// Why a master could not be connected to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("could not find the address of {master}: {why}")]
    Address { master: String, why: String },
    #[error("could not read the credentials for {master}: {why}")]
    Credentials { master: String, why: String },
    #[error("could not tell which members of {shard} may be promoted: {why}")]
    Standbys { shard: String, why: String },
    #[error(transparent)]
    Database(#[from] AdminError),
}

/// How masters are reached: by the addresses of their pods, as the superuser.
#[derive(Clone)]
pub(crate) struct Masters {
    client: Client,
}

impl fmt::Debug for Masters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Masters")
    }
}

impl Masters {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Where and as whom a shard's master is reached.
    pub(crate) async fn target(&self, keeper: &Keeper) -> Result<AdminTarget, ConnectError> {
        let secret = names::system_secret(&keeper.cluster);
        Ok(AdminTarget {
            host: self.address(keeper).await?,
            database: DATABASE.to_owned(),
            user: "postgres".to_owned(),
            password: self.password(keeper, &secret, "superuser-password").await?,
            ssl_mode: PgSslMode::Prefer,
            ca_file: None,
        })
    }

    /// Connects by the pod's address: its name may not resolve yet while it is new.
    pub(crate) async fn connect(&self, keeper: &Keeper) -> Result<PgConnection, ConnectError> {
        Ok(admin::connect(&self.target(keeper).await?).await?)
    }

    async fn address(&self, keeper: &Keeper) -> Result<String, ConnectError> {
        let unknown = |why: String| ConnectError::Address {
            master: keeper.master.clone(),
            why,
        };
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &keeper.namespace);
        let pod = pods
            .get(&keeper.master)
            .await
            .map_err(|error| unknown(error.to_string()))?;
        let ip = pod.status.and_then(|status| status.pod_ip);
        let ip = ip.ok_or_else(|| unknown("its pod has no address yet".to_owned()))?;
        Ok(if ip.contains(':') {
            format!("[{ip}]:{PORT}")
        } else {
            format!("{ip}:{PORT}")
        })
    }

    /// The text under a key of one of the cluster's Secrets.
    pub(crate) async fn password(&self, keeper: &Keeper, name: &str, key: &str) -> Result<SecretString, ConnectError> {
        let unreadable = |why: String| ConnectError::Credentials {
            master: keeper.master.clone(),
            why: format!("Secret {name}: {why}"),
        };
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &keeper.namespace);
        let secret = secrets.get(name).await.map_err(|error| unreadable(error.to_string()))?;
        secret
            .data
            .and_then(|mut data| data.remove(key))
            .and_then(|bytes| String::from_utf8(bytes.0).ok())
            .map(SecretString::from)
            .ok_or_else(|| unreadable(format!("it has no text under {key}")))
    }
}
