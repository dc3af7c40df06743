//! The shards' databases, asked directly: what a test claims about rows it has seen in them.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::ResourceExt;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

use crate::kubernetes::{Kubernetes, address};
use crate::patience::await_condition;

/// The master of one shard.
pub struct Master {
    /// The pod.
    pub pod: String,
    /// Its uid: a pod that is made again under the name has another.
    pub uid: Option<String>,
    /// Its address.
    pub address: String,
}

/// The pod that holds the master role of a shard; waits for one.
///
/// # Errors
/// When there is none within two minutes.
pub async fn master(kubernetes: &Kubernetes, namespace: &str, shard: &str) -> Result<Master> {
    await_condition(&format!("a master of {shard}"), Duration::from_secs(120), || {
        master_now(kubernetes, namespace, shard)
    })
    .await
}

/// The pod that holds the master role of a shard at present, if exactly one does.
///
/// # Errors
/// When the API server does not answer.
pub async fn master_now(kubernetes: &Kubernetes, namespace: &str, shard: &str) -> Result<Option<Master>> {
    let selector = format!("ringwright.dev/shard={shard},ringwright.dev/role=master");
    let pods = kubernetes.pods(namespace, &selector).await?;
    Ok(match pods.as_slice() {
        [pod] => address(pod).map(|address| Master {
            pod: pod.name_any(),
            uid: pod.uid(),
            address,
        }),
        _ => None,
    })
}

/// Whether Patroni would promote a standby of this master if it died: one that is named synchronous.
///
/// # Errors
/// When the API server does not answer.
pub async fn has_heir(kubernetes: &Kubernetes, namespace: &str, shard: &str, master: &Master) -> Result<bool> {
    let maps = kubernetes.objects::<ConfigMap>(namespace);
    let Some(sync) = maps.get_opt(&format!("{shard}-sync")).await? else {
        return Ok(false);
    };
    let said = |key: &str| sync.annotations().get(key).map(String::as_str);
    Ok(said("leader") == Some(&master.pod) && said("sync_standby").is_some_and(|named| !named.is_empty()))
}

/// A connection to a shard's master as superuser.
///
/// # Errors
/// When there is no master, or it refuses.
pub async fn connect(kubernetes: &Kubernetes, namespace: &str, cluster: &str, shard: &str) -> Result<PgPool> {
    let master = master(kubernetes, namespace, shard).await?;
    let password = secret(
        kubernetes,
        namespace,
        &format!("{cluster}-postgres"),
        "superuser-password",
    )
    .await?;
    log_in(&master.address, "postgres", &password).await
}

/// Logs in to a database pod.
///
/// # Errors
/// When it refuses.
pub async fn log_in(address: &str, username: &str, password: &str) -> Result<PgPool> {
    let options = options(address, username, password);
    let pool = PgPoolOptions::new()
        .max_connections(4)
        .acquire_timeout(Duration::from_secs(10));
    pool.connect_with(options)
        .await
        .with_context(|| format!("logging in to {address} as {username}"))
}

/// How a database pod is logged in to.
pub fn options(address: &str, username: &str, password: &str) -> PgConnectOptions {
    PgConnectOptions::new()
        .host(address)
        .port(5432)
        .username(username)
        .password(password)
        .database("orders")
}

/// One entry of a Secret.
///
/// # Errors
/// When there is none.
pub async fn secret(kubernetes: &Kubernetes, namespace: &str, name: &str, key: &str) -> Result<String> {
    let secret = kubernetes.objects::<Secret>(namespace).get(name).await?;
    let data = secret.data.unwrap_or_default();
    let value = data.get(key).with_context(|| format!("Secret {name} has no {key}"))?;
    Ok(String::from_utf8(value.0.clone())?)
}
