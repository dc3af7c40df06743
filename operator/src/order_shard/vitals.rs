//! Asking every shard's master, now and then, how it is: for the metrics, and for nothing else. What the controllers do rests
//! on what Patroni and Kubernetes say.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crds::{OrderShard, labels};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt as _;
use kube::api::ListParams;
use secrecy::SecretString;
use store::admin::{self, AdminError, AdminTarget, PgSslMode, Role};
use telemetry::chain;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::build::labels::component;
use super::build::services::POSTGRES_PORT;
use super::database::DATABASE;
use crate::context::Context;
use crate::shard_metrics::{Sample, Shard};

/// Between two rounds. What moves faster than this is not for a person to act on.
const PERIOD: Duration = Duration::from_secs(30);
/// A shard that does not answer in this time has not answered.
const PATIENCE: Duration = Duration::from_secs(10);
/// Shards asked at the same time: one connection each.
const CONCURRENCY: usize = 8;

/// Samples until `stop`.
pub(super) async fn sample(context: Arc<Context>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let one = async {
            if let Err(error) = round(&context).await {
                warn!(error = chain(&error), "could not find the shards to sample");
            }
            tokio::time::sleep(PERIOD).await;
        };
        stop.run_until_cancelled(one).await;
    }
}

async fn round(context: &Context) -> Result<(), kube::Error> {
    let shards = context
        .watched::<OrderShard>()
        .list(&ListParams::default())
        .await?
        .items;
    let addresses = masters(context).await?;
    let passwords = passwords(context, &shards).await;
    let (addresses, passwords) = (&addresses, &passwords);
    futures::stream::iter(&shards)
        .for_each_concurrent(CONCURRENCY, |shard| async move {
            let labels = Shard::of(shard);
            match one(shard, addresses, passwords).await {
                Ok(sample) => context.metrics.shards.show(&labels, &sample),
                Err(why) => {
                    debug!(shard = shard.name_any(), why, "a shard's vitals could not be read");
                    context.metrics.shards.hide(&labels);
                }
            }
        })
        .await;
    let there: HashSet<Shard> = shards.iter().map(Shard::of).collect();
    context.metrics.shards.keep_only(&there);
    Ok(())
}

/// A pod or Secret: namespace and name.
type Key = (String, String);

/// Addresses of the pods that say they are masters; a shard's status says which of them is.
async fn masters(context: &Context) -> Result<HashMap<Key, String>, kube::Error> {
    let selected = ListParams::default().labels(&format!(
        "{}={},{}={}",
        labels::ROLE,
        labels::ROLE_MASTER,
        labels::COMPONENT,
        component::SHARD
    ));
    let pods = context.watched::<Pod>().list(&selected).await?;
    let address = |pod: Pod| {
        let key = (pod.namespace()?, pod.name_any());
        Some((key, pod.status?.pod_ip?))
    };
    Ok(pods.items.into_iter().filter_map(address).collect())
}

/// The monitoring role's password of each cluster that has one.
async fn passwords(context: &Context, shards: &[OrderShard]) -> HashMap<Key, SecretString> {
    let clusters: HashSet<Key> = shards
        .iter()
        .map(|shard| (shard.namespace().unwrap_or_default(), shard.spec.cluster.clone()))
        .collect();
    let mut passwords = HashMap::new();
    for (namespace, cluster) in clusters {
        let found = context
            .api::<Secret>(&namespace)
            .get_opt(&format!("{cluster}-monitor"))
            .await;
        let data: BTreeMap<_, _> = found.ok().flatten().and_then(|secret| secret.data).unwrap_or_default();
        let password = data
            .get("password")
            .and_then(|bytes| String::from_utf8(bytes.0.clone()).ok());
        passwords.extend(password.map(|password| ((namespace, cluster), password.into())));
    }
    passwords
}

async fn one(
    shard: &OrderShard,
    addresses: &HashMap<Key, String>,
    passwords: &HashMap<Key, SecretString>,
) -> Result<Sample, String> {
    let namespace = shard.namespace().unwrap_or_default();
    let master = shard
        .status
        .as_ref()
        .and_then(|status| status.master.clone())
        .ok_or("it has no master")?;
    let ip = addresses
        .get(&(namespace.clone(), master.clone()))
        .ok_or("its master's pod has no address")?;
    let password = passwords
        .get(&(namespace, shard.spec.cluster.clone()))
        .ok_or("its cluster has no password for monitoring")?;
    let target = AdminTarget {
        host: if ip.contains(':') {
            format!("[{ip}]:{POSTGRES_PORT}")
        } else {
            format!("{ip}:{POSTGRES_PORT}")
        },
        database: DATABASE.to_owned(),
        user: Role::Monitor.name().to_owned(),
        password: password.clone(),
        ssl_mode: PgSslMode::Prefer,
        ca_file: None,
    };
    let reading = async {
        let mut connection = admin::connect(&target).await?;
        admin::read_vitals(&mut connection).await
    };
    let vitals = tokio::time::timeout(PATIENCE, reading)
        .await
        .map_err(|_| format!("no answer within {PATIENCE:?}"))?
        .map_err(|error: AdminError| chain(&error))?;
    Ok(Sample {
        replicas: replicas(shard, &master),
        vitals,
    })
}

/// The members that should follow `master`.
fn replicas(shard: &OrderShard, master: &str) -> Vec<String> {
    (0..shard.spec.postgres.instances)
        .map(|index| format!("{}-{index}", shard.name_any()))
        .filter(|member| member != master)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::shard::tests::resource;
    use super::*;

    #[test]
    fn everybody_but_the_master_should_follow() {
        let shard = resource(serde_json::json!({"storage": {"size": "1Gi"}, "instances": 3}));
        assert_eq!(replicas(&shard, "shop-0-1"), ["shop-0-0", "shop-0-2"]);
    }

    #[tokio::test]
    async fn a_shard_that_cannot_be_asked_says_why() {
        let mut shard = resource(serde_json::json!({"storage": {"size": "1Gi"}}));
        let nothing = (HashMap::new(), HashMap::new());
        let asked = one(&shard, &nothing.0, &nothing.1).await;
        assert_eq!(asked.expect_err("no answer"), "it has no master");
        shard.status = Some(crds::OrderShardStatus {
            master: Some("shop-0-0".to_owned()),
            ..Default::default()
        });
        let key = |name: &str| ("market".to_owned(), name.to_owned());
        let addresses = HashMap::from([(key("shop-0-0"), "127.0.0.1".to_owned())]);
        let asked = one(&shard, &addresses, &nothing.1).await;
        assert_eq!(
            asked.expect_err("no answer"),
            "its cluster has no password for monitoring"
        );
    }
}
