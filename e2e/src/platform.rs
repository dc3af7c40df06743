//! The platform under test: the operator once, and a namespace with a cluster, the programs and their far ends.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crds::OrderCluster;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::api::Api;
use crate::kubernetes::{Kubernetes, address, is_ready};
use crate::patience::{await_condition, eventually};

/// Where the operator runs.
pub const OPERATOR_NAMESPACE: &str = "e2e-operator";
/// The cluster's name in every test namespace.
pub const CLUSTER: &str = "shop";
/// The release of the programs, and the prefix of their names.
pub const RELEASE: &str = "ringwright";
/// The namespace that most tests share, for the cluster of three shards takes half a minute to make.
const SHARED_NAMESPACE: &str = "e2e-shop";
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
        kubernetes.make_namespace(SHARED_NAMESPACE).await?;
        Self::make(kubernetes, SHARED_NAMESPACE, &cluster(3, 2)).await
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
        if namespaces.get_opt(SHARED_NAMESPACE).await?.is_some() {
            kubernetes.delete_namespace(SHARED_NAMESPACE).await?;
        }
        Ok(())
    }

    /// Installs order API, notifier, RabbitMQ and the development far ends.
    async fn install_programs(&self) -> Result<()> {
        let entry = json!({"sha256": hex(&Sha256::digest(BEARER)), "scopes": ["read", "write", "admin"]}).to_string();
        let reader = json!({"sha256": hex(&Sha256::digest(reader_bearer())), "scopes": ["read"]}).to_string();
        let keys = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": format!("{RELEASE}-api-keys")},
            "stringData": {"e2e": entry, "e2e-reader": reader},
        });
        self.kubernetes.apply::<Secret>(&self.namespace, &keys).await?;
        helm_install(&self.kubernetes, &self.namespace, &["operator.enabled=false"])?;
        for workload in [
            "statefulset/ringwright-rabbitmq",
            "deployment/ringwright-order-api",
            "deployment/ringwright-notifier",
            "deployment/ringwright-mail",
            "deployment/ringwright-sms-gateway",
        ] {
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
/// When it is not within four minutes; the message carries its status.
pub async fn await_ready(kubernetes: &Kubernetes, namespace: &str, name: &str) -> Result<OrderCluster> {
    let clusters = kubernetes.objects::<OrderCluster>(namespace);
    let ready = await_condition(
        &format!("{namespace}/{name} to be Ready"),
        Duration::from_secs(240),
        || async {
            let cluster = clusters.get(name).await?;
            Ok((condition(&cluster, "Ready").as_deref() == Some("True")).then_some(cluster))
        },
    )
    .await;
    if ready.is_err() {
        kubernetes.explain(namespace).await;
    }
    ready
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
    let charts = charts()?;
    kubernetes.make_namespace(OPERATOR_NAMESPACE).await?;
    let crds = charts.join("ringwright-crds");
    kubernetes
        .cluster
        .helm(["upgrade", "--install", "ringwright-crds", &crds.to_string_lossy()])?;
    let only_operator = [
        "orderApi.enabled=false",
        "notifier.enabled=false",
        "rabbitmq.enabled=false",
        "development.mail.enabled=false",
        "development.smsGateway.enabled=false",
    ];
    helm_install(kubernetes, OPERATOR_NAMESPACE, &only_operator)?;
    rollout(kubernetes, OPERATOR_NAMESPACE, "deployment/ringwright-operator")
}

fn helm_install(kubernetes: &Kubernetes, namespace: &str, settings: &[&str]) -> Result<()> {
    let chart = charts()?.join("ringwright");
    let values = chart.join("values-dev.yaml");
    let mut arguments = vec!["upgrade".to_owned(), "--install".to_owned(), RELEASE.to_owned()];
    arguments.push(chart.to_string_lossy().into_owned());
    arguments.extend(["--namespace".to_owned(), namespace.to_owned()]);
    arguments.extend(["--values".to_owned(), values.to_string_lossy().into_owned()]);
    for setting in settings {
        arguments.extend(["--set".to_owned(), (*setting).to_owned()]);
    }
    kubernetes.cluster.helm(arguments)?;
    Ok(())
}

fn rollout(kubernetes: &Kubernetes, namespace: &str, workload: &str) -> Result<()> {
    let done = kubernetes
        .cluster
        .kubectl(["rollout", "status", "-n", namespace, "--timeout=240s", workload])?;
    ensure!(!done.is_empty(), "kubectl said nothing about {workload}");
    Ok(())
}

fn charts() -> Result<PathBuf> {
    let folder = std::env::var("RINGWRIGHT_E2E_CHARTS").context("RINGWRIGHT_E2E_CHARTS is not set: use `make test`")?;
    Ok(PathBuf::from(folder))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
