//! The cluster under the tests.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use crds::OrderCluster;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::patience::await_condition;
use crate::tls;

/// Marks the namespaces that tests made.
const MADE_BY_TESTS: &str = "ringwright.dev/e2e";
/// The members of a cluster stop within seconds; where the operator is gone, they do not.
const ORDERLY: Duration = Duration::from_secs(60);

/// The Kubernetes the tests run on.
pub struct Kubernetes {
    /// A client with every right.
    pub client: Client,
    /// kubectl, helm and the nodes.
    pub cluster: hermetic_cluster::Cluster,
}

impl Kubernetes {
    /// Connects to the instance that `make test` started.
    ///
    /// # Errors
    /// When there is none.
    pub async fn connect() -> Result<Self> {
        tls::choose_provider();
        let path = std::env::var("RINGWRIGHT_E2E_KUBECONFIG")
            .context("RINGWRIGHT_E2E_KUBECONFIG is not set: run the end-to-end tests with `make test`")?;
        let name = std::env::var("RINGWRIGHT_E2E_INSTANCE")
            .context("RINGWRIGHT_E2E_INSTANCE is not set: run the end-to-end tests with `make test`")?;
        let kubeconfig = Kubeconfig::read_from(&path).with_context(|| format!("reading {path}"))?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        Ok(Self {
            client: Client::try_from(config)?,
            cluster: hermetic_cluster::Instance::new(&name)?.attach()?,
        })
    }

    /// The objects of one kind in a namespace.
    pub fn objects<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Server-side apply of an object given as JSON.
    ///
    /// # Errors
    /// The API server's refusal.
    pub async fn apply<K>(&self, namespace: &str, object: &Value) -> Result<K>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
        K::DynamicType: Default,
    {
        let name = object["metadata"]["name"].as_str().context("the object has no name")?;
        let params = PatchParams::apply("e2e").force();
        Ok(self
            .objects(namespace)
            .patch(name, &params, &Patch::Apply(object))
            .await?)
    }

    /// Deletes an object by name and waits until it is gone or replaced by another of its name.
    ///
    /// # Errors
    /// When it is still the same object at the deadline.
    pub async fn delete_and_wait<K>(&self, namespace: &str, name: &str, deadline: Duration) -> Result<()>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
        K::DynamicType: Default,
    {
        let api: Api<K> = self.objects(namespace);
        let uid = api.get(name).await?.uid();
        api.delete(name, &DeleteParams::default()).await?;
        await_condition(&format!("{namespace}/{name} to go"), deadline, || async {
            Ok((api.get_opt(name).await?.and_then(|found| found.uid()) != uid).then_some(()))
        })
        .await
    }

    /// The pods that a label selector picks.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn pods(&self, namespace: &str, selector: &str) -> Result<Vec<Pod>> {
        let params = ListParams::default().labels(selector);
        Ok(self.objects::<Pod>(namespace).list(&params).await?.items)
    }

    /// The address of a Ready pod that a selector picks; waits for one.
    ///
    /// # Errors
    /// When there is none within ten minutes.
    pub async fn ready_pod_address(&self, namespace: &str, selector: &str) -> Result<String> {
        await_condition(
            &format!("a ready pod of {selector}"),
            Duration::from_secs(600),
            || async {
                let pods = self.pods(namespace, selector).await?;
                Ok(pods.iter().filter(|pod| is_ready(pod)).find_map(address))
            },
        )
        .await
    }

    /// A pod dies and is gone: its processes get no chance to say anything, and another pod takes its place. Returns how
    /// many processes it had.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn kill_pod(&self, namespace: &str, name: &str) -> Result<usize> {
        let pod = self.objects::<Pod>(namespace).get(name).await?;
        self.kill_found_pod(&pod).await
    }

    /// Kills whatever of a pod runs, and removes it. Returns how many processes it had.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn kill_found_pod(&self, pod: &Pod) -> Result<usize> {
        let processes = self.cluster.crash_pod(&pod.uid().context("a pod without uid")?)?;
        let pods = self.objects::<Pod>(&pod.namespace().context("a pod without namespace")?);
        pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0))
            .await?;
        Ok(processes)
    }

    /// Makes a namespace that refuses every pod that is not restricted.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn make_namespace(&self, name: &str) -> Result<()> {
        let namespace: Namespace = serde_json::from_value(json!({
            "metadata": {
                "name": name,
                "labels": {MADE_BY_TESTS: "true", "pod-security.kubernetes.io/enforce": "restricted"},
            },
        }))?;
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        match namespaces.create(&PostParams::default(), &namespace).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(refusal)) if refusal.code == 409 => Ok(()),
            Err(error) => Err(error).with_context(|| format!("making namespace {name}")),
        }
    }

    /// Deletes a namespace and waits until it is gone.
    ///
    /// # Errors
    /// When something in it refuses to go.
    pub async fn delete_namespace(&self, name: &str) -> Result<()> {
        let clusters = self.delete_clusters(name).await;
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        namespaces.delete(name, &DeleteParams::default()).await?;
        await_condition(&format!("namespace {name} to go"), Duration::from_secs(180), || async {
            Ok(namespaces.get_opt(name).await?.is_none().then_some(()))
        })
        .await?;
        clusters
    }

    /// Before their namespace: it would take the rights of the databases' pods first, and these then try until they are
    /// killed, two minutes later. Where the operator is gone, that is what happens.
    async fn delete_clusters(&self, namespace: &str) -> Result<()> {
        let clusters: Api<OrderCluster> = self.objects(namespace);
        clusters
            .delete_collection(&DeleteParams::default(), &ListParams::default())
            .await?;
        let gone = await_condition("the clusters to go", ORDERLY, || async {
            let left = clusters.list_metadata(&ListParams::default()).await?.items;
            Ok(left.is_empty().then_some(()))
        });
        // Not an error: their namespace takes them then.
        let _ = gone.await;
        Ok(())
    }
}

/// Runs a test in a namespace of its own, which goes afterwards, with what is in it, however the test ended.
///
/// # Errors
/// The test's, or that the namespace does not go.
pub async fn with_temp_ns<F, R>(kubernetes: &Kubernetes, purpose: &str, test: F) -> Result<()>
where
    F: FnOnce(String) -> R,
    R: Future<Output = Result<()>>,
{
    let namespace = format!("e2e-{purpose}-{:06x}", rand::random::<u32>() >> 8);
    kubernetes.make_namespace(&namespace).await?;
    let outcome = test(namespace.clone()).await;
    if outcome.is_err() {
        kubernetes.explain(&namespace).await;
    }
    let gone = kubernetes.delete_namespace(&namespace).await;
    outcome.and(gone)
}

/// Whether all containers of the pod are ready and it is not about to go.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    pod.metadata.deletion_timestamp.is_none()
        && conditions
            .iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The pod's address, when it has one.
pub fn address(pod: &Pod) -> Option<String> {
    pod.status.as_ref()?.pod_ip.clone()
}

/// The message of the API server's refusal of `outcome`.
///
/// # Errors
/// When nothing was refused, or something else went wrong.
pub fn refusal<T>(outcome: Result<T, kube::Error>) -> Result<String> {
    match outcome {
        Ok(_) => bail!("the API server accepted what it should refuse"),
        Err(kube::Error::Api(status)) if (400..500).contains(&status.code) => Ok(status.message.clone()),
        Err(error) => Err(error.into()),
    }
}
