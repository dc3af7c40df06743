//! The platform under test: the operator once, and a namespace with a cluster, the programs and their far ends.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use crds::OrderCluster;
use installation::{
    api_key::{self, ALL_SCOPES},
    charts::{self, WORKLOADS},
};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use serde_json::{Value, json};

use crate::api::Api;
use crate::kubernetes::{Kubernetes, address, is_ready};
use crate::patience::{await_condition, eventually};

/// Where the operator runs.
pub const OPERATOR_NAMESPACE: &str = "e2e-operator";
/// The cluster's name in every test namespace.
pub const CLUSTER: &str = "shop";
/// The namespace that most tests share, for the cluster of three shards takes half a minute to make.
const SHARED_NAMESPACE: &str = "e2e-shop";
/// Whether this process has made it.
static SHARED_IS_MADE: AtomicBool = AtomicBool::new(false);
/// The operator's workload.
const OPERATOR: &str = "deployment/ringwright-operator";
/// Picks the pods of the order API.
const ORDER_API: &str = "app.kubernetes.io/name=ringwright-order-api";
/// A key of the order API; it guards nothing but a test.
const BEARER: &str = "e2e-bearer-key-of-the-end-to-end-tests";

/// A namespace with everything in it.
pub struct Platform {
    /// The cluster it runs on.
    pub kubernetes: Kubernetes,
    /// Where it runs.
    pub namespace: String,
}

impl Platform {
    /// The platform that tests share: three shards of two instances. The first test to ask makes it.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn shared() -> Result<Self> {
        let kubernetes = Kubernetes::connect().await?;
        if !SHARED_IS_MADE.load(Ordering::Relaxed) {
            kubernetes.make_namespace(SHARED_NAMESPACE).await?;
            let platform = Self::make(kubernetes, SHARED_NAMESPACE, &cluster(3, 2)).await?;
            SHARED_IS_MADE.store(true, Ordering::Relaxed);
            return Ok(platform);
        }
        // What an earlier test has killed may still be on its way back.
        rollout(&kubernetes, OPERATOR_NAMESPACE, OPERATOR)?;
        let platform = Self {
            kubernetes,
            namespace: SHARED_NAMESPACE.to_owned(),
        };
        platform.await_programs()?;
        await_ready(&platform.kubernetes, SHARED_NAMESPACE, CLUSTER).await?;
        Ok(platform)
    }

    /// A platform in a namespace that is there.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn make(kubernetes: Kubernetes, namespace: &str, cluster: &Value) -> Result<Self> {
        install_operator(&kubernetes).await?;
        let platform = Self {
            kubernetes,
            namespace: namespace.to_owned(),
        };
        make_cluster(&platform.kubernetes, namespace, cluster).await?;
        platform.install_programs().await?;
        await_ready(&platform.kubernetes, namespace, CLUSTER).await?;
        Ok(platform)
    }

    /// Removes the platform that tests share, if there is one: for tests that need the room of its database pods. The
    /// next test that asks for it makes it anew.
    ///
    /// # Errors
    /// When it does not go.
    pub async fn make_room(kubernetes: &Kubernetes) -> Result<()> {
        let namespaces: kube::Api<Namespace> = kube::Api::all(kubernetes.client.clone());
        SHARED_IS_MADE.store(false, Ordering::Relaxed);
        if namespaces.get_opt(SHARED_NAMESPACE).await?.is_some() {
            kubernetes.delete_namespace(SHARED_NAMESPACE).await?;
        }
        Ok(())
    }

    /// Installs order API, notifier, RabbitMQ and the development far ends.
    async fn install_programs(&self) -> Result<()> {
        let keys = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": api_key::SECRET},
            "stringData": {
                "e2e": api_key::entry(BEARER, &ALL_SCOPES),
                "e2e-reader": api_key::entry(reader_bearer(), &["read"]),
            },
        });
        self.kubernetes.apply::<Secret>(&self.namespace, &keys).await?;
        let only_programs = charts::install_platform(&charts_folder()?, &self.namespace, &["operator.enabled=false"]);
        self.kubernetes.cluster.helm(only_programs)?;
        self.await_programs()
    }

    fn await_programs(&self) -> Result<()> {
        for workload in WORKLOADS {
            rollout(&self.kubernetes, &self.namespace, workload)?;
        }
        Ok(())
    }

    /// A caller with every scope, of a pod that is ready.
    ///
    /// # Errors
    /// When no pod is ready.
    pub async fn api(&self) -> Result<Api> {
        Api::new(
            &self.kubernetes.ready_pod_address(&self.namespace, ORDER_API).await?,
            BEARER,
        )
    }

    /// The addresses, with their port, of all pods of the order API that are ready; at least one.
    ///
    /// # Errors
    /// When none is.
    pub async fn api_addresses(&self) -> Result<Vec<String>> {
        self.kubernetes.ready_pod_address(&self.namespace, ORDER_API).await?;
        let pods = self.kubernetes.pods(&self.namespace, ORDER_API).await?;
        let ready = pods.iter().filter(|pod| is_ready(pod)).filter_map(address);
        Ok(ready.map(|address| format!("{address}:8080")).collect())
    }
}

/// A bearer key with every scope.
pub fn bearer() -> &'static str {
    BEARER
}

/// A bearer key that may only read.
pub fn reader_bearer() -> &'static str {
    "e2e-bearer-key-that-may-only-read"
}

/// A small cluster as a specification.
pub fn cluster(shards: i32, instances: i32) -> Value {
    json!({
        "apiVersion": "ringwright.dev/v1alpha1", "kind": "OrderCluster", "metadata": {"name": CLUSTER},
        "spec": {
            "shards": shards,
            "postgres": {
                "instances": instances,
                "durability": if instances > 1 { "preferred" } else { "none" },
                "storage": {"size": "512Mi"},
                "parameters": {"shared_buffers": "32MB"},
                "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
            },
        },
    })
}

/// Applies a cluster; the resources may be a moment away from being served.
///
/// # Errors
/// The API server's refusal.
pub async fn make_cluster(kubernetes: &Kubernetes, namespace: &str, spec: &Value) -> Result<OrderCluster> {
    eventually("applying the OrderCluster", Duration::from_secs(30), || {
        kubernetes.apply(namespace, spec)
    })
    .await
}

/// Waits until the cluster is Ready for the present generation of its specification.
///
/// # Errors
/// When it is not within ten minutes; the message carries its status.
pub async fn await_ready(kubernetes: &Kubernetes, namespace: &str, name: &str) -> Result<OrderCluster> {
    let clusters = kubernetes.objects::<OrderCluster>(namespace);
    let ready = await_condition(
        &format!("{namespace}/{name} to be Ready"),
        Duration::from_secs(600),
        || async {
            let cluster = clusters.get(name).await?;
            Ok((condition(&cluster, "Ready").as_deref() == Some("True")).then_some(cluster))
        },
    )
    .await;
    match ready {
        Ok(cluster) => Ok(cluster),
        Err(error) => {
            let standing = kubernetes.explain(namespace).await;
            Err(anyhow!("{error:#}: {standing}"))
        }
    }
}

/// The status of a condition, if it speaks of the present generation.
pub fn condition(cluster: &OrderCluster, kind: &str) -> Option<String> {
    let status = cluster.status.as_ref()?;
    if status.observed_generation != cluster.metadata.generation {
        return None;
    }
    status
        .conditions
        .iter()
        .find(|condition| condition.type_ == kind)
        .map(|condition| condition.status.clone())
}

/// Installs the resources and the operator for all namespaces, once.
///
/// # Errors
/// When it does not become ready.
pub async fn install_operator(kubernetes: &Kubernetes) -> Result<()> {
    let folder = charts_folder()?;
    kubernetes.make_namespace(OPERATOR_NAMESPACE).await?;
    kubernetes.cluster.helm(charts::install_definitions(&folder))?;
    let only_operator = [
        "orderApi.enabled=false",
        "notifier.enabled=false",
        "rabbitmq.enabled=false",
        "development.mail.enabled=false",
        "development.smsGateway.enabled=false",
    ];
    let only_operator = charts::install_platform(&folder, OPERATOR_NAMESPACE, &only_operator);
    kubernetes.cluster.helm(only_operator)?;
    rollout(kubernetes, OPERATOR_NAMESPACE, OPERATOR)
}

fn rollout(kubernetes: &Kubernetes, namespace: &str, workload: &str) -> Result<()> {
    let done = kubernetes
        .cluster
        .kubectl(["rollout", "status", "-n", namespace, "--timeout=600s", workload])?;
    ensure!(!done.is_empty(), "kubectl said nothing about {workload}");
    Ok(())
}

fn charts_folder() -> Result<PathBuf> {
    let folder = std::env::var("RINGWRIGHT_E2E_CHARTS").context("RINGWRIGHT_E2E_CHARTS is not set: use `make test`")?;
    Ok(PathBuf::from(folder))
}
