//! The shards' own books of who owns which keys: `ringwright.range_owners` in each database.

use std::{fmt::Debug, time::Duration};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{Api, Client};
use ring::Range;
use secrecy::SecretString;
use sqlx::PgConnection;
use store::admin::{self, AdminError, AdminTarget, OwnedRange, PgSslMode};
use tokio::time::timeout;

use super::names;

/// The shop's database.
const DATABASE: &str = "orders";
const PORT: u16 = 5432;
/// A shard that does not answer in this time is looked at again later; a book is a few hundred rows.
const PATIENCE: Duration = Duration::from_secs(10);

/// A shard's master, which keeps its book.
#[derive(Clone, Debug)]
pub(crate) struct Keeper {
    pub(crate) namespace: String,
    pub(crate) cluster: String,
    /// The shard's name.
    pub(crate) shard: String,
    /// Name of the master's pod.
    pub(crate) master: String,
}

/// Why a book could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BookError {
    #[error("could not find where the master {master} is: {why}")]
    Address { master: String, why: String },
    #[error("shard {shard} did not answer within {} s", PATIENCE.as_secs())]
    Silent { shard: String },
    #[error("shard {shard}")]
    Database {
        shard: String,
        #[source]
        source: AdminError,
    },
}

/// Access to the books; an interface so that the controller's scenarios can be tested without databases.
#[async_trait]
pub(crate) trait Books: Debug + Send + Sync {
    /// Every row of a shard's book.
    async fn read(&self, keeper: &Keeper) -> Result<Vec<OwnedRange>, BookError>;

    /// Gives a shard that never owned anything its first ranges. The same again is fine; others are refused.
    async fn claim(&self, keeper: &Keeper, ranges: &[Range]) -> Result<(), BookError>;
}

/// The books in the databases.
#[derive(Clone)]
pub(crate) struct Databases {
    client: Client,
}

impl Databases {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Connects by the pod's address: its name may not resolve yet while it is new.
    async fn connect(&self, keeper: &Keeper) -> Result<PgConnection, BookError> {
        let address = |why: String| BookError::Address {
            master: keeper.master.clone(),
            why,
        };
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &keeper.namespace);
        let pod = pods
            .get(&keeper.master)
            .await
            .map_err(|error| address(error.to_string()))?;
        let ip = pod
            .status
            .and_then(|status| status.pod_ip)
            .ok_or_else(|| address("its pod has no address yet".to_owned()))?;
        let target = AdminTarget {
            host: if ip.contains(':') {
                format!("[{ip}]:{PORT}")
            } else {
                format!("{ip}:{PORT}")
            },
            database: DATABASE.to_owned(),
            user: "postgres".to_owned(),
            password: self.superuser_password(keeper).await.map_err(address)?,
            ssl_mode: PgSslMode::Prefer,
            ca_file: None,
        };
        admin::connect(&target)
            .await
            .map_err(|source| keeper.database_error(source))
    }

    async fn superuser_password(&self, keeper: &Keeper) -> Result<SecretString, String> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &keeper.namespace);
        let name = names::system_secret(&keeper.cluster);
        let secret = secrets
            .get(&name)
            .await
            .map_err(|error| format!("Secret {name}: {error}"))?;
        secret
            .data
            .and_then(|mut data| data.remove("superuser-password"))
            .and_then(|bytes| String::from_utf8(bytes.0).ok())
            .map(SecretString::from)
            .ok_or_else(|| format!("Secret {name} has no superuser-password"))
    }
}

impl Debug for Databases {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Databases")
    }
}

impl Keeper {
    fn database_error(&self, source: AdminError) -> BookError {
        BookError::Database {
            shard: self.shard.clone(),
            source,
        }
    }

    fn silent(&self) -> BookError {
        BookError::Silent {
            shard: self.shard.clone(),
        }
    }
}

#[async_trait]
impl Books for Databases {
    async fn read(&self, keeper: &Keeper) -> Result<Vec<OwnedRange>, BookError> {
        let reading = async {
            let mut connection = self.connect(keeper).await?;
            admin::read_ranges(&mut connection)
                .await
                .map_err(|source| keeper.database_error(source))
        };
        timeout(PATIENCE, reading).await.map_err(|_| keeper.silent())?
    }

    async fn claim(&self, keeper: &Keeper, ranges: &[Range]) -> Result<(), BookError> {
        // No limit on the statement itself: a commit that waits for a standby must not be cut off (it would look
        // undone and be there). Another reconcile waits behind this one, which is right.
        let mut connection = timeout(PATIENCE, self.connect(keeper))
            .await
            .map_err(|_| keeper.silent())??;
        admin::claim_initial_ranges(&mut connection, ranges)
            .await
            .map_err(|source| keeper.database_error(source))
    }
}
