//! The cluster that is spoken of, and what can be read of it.

use anyhow::{Context as _, Result, bail};
use crds::{OrderCluster, labels};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use ring::{EncodedRing, Ordinal, Ring};

/// One OrderCluster.
#[derive(Clone)]
pub(crate) struct Place {
    client: Client,
    pub(crate) namespace: String,
    /// The cluster's name.
    pub(crate) name: String,
}

impl Place {
    /// Finds the cluster; without a name, the only one of the namespace.
    pub(crate) async fn find(client: Client, namespace: Option<&str>, name: Option<&str>) -> Result<Self> {
        let namespace = namespace.unwrap_or(client.default_namespace()).to_owned();
        let name = match name {
            Some(name) => name.to_owned(),
            None => only_one(&client, &namespace).await?,
        };
        Ok(Self {
            client,
            namespace,
            name,
        })
    }

    pub(crate) fn clusters(&self) -> Api<OrderCluster> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The cluster's resource.
    pub(crate) async fn cluster(&self) -> Result<OrderCluster> {
        let (namespace, name) = (&self.namespace, &self.name);
        self.clusters()
            .get_opt(name)
            .await
            .with_context(|| format!("read OrderCluster {namespace}/{name}"))?
            .with_context(|| format!("there is no OrderCluster {name} in namespace {namespace}"))
    }

    /// The published ring.
    pub(crate) async fn ring(&self) -> Result<Ring> {
        Ok(self.published().await?.0)
    }

    /// The published ring, and the highest ordinal that a shard of the cluster ever had.
    pub(crate) async fn published(&self) -> Result<(Ring, Option<Ordinal>)> {
        let name = format!("{}-ring", self.name);
        let place = format!("ConfigMap {}/{name}", self.namespace);
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let map = maps
            .get_opt(&name)
            .await
            .with_context(|| format!("read the ring in {place}"))?
            .with_context(|| {
                format!(
                    "no ring has been published ({place} is not there): the operator publishes it when every shard is \
                     ready; look at `kubectl describe ordercluster {}`",
                    self.name
                )
            })?;
        let highest = map.annotations().get(labels::HIGHEST_ORDINAL);
        let highest = highest.and_then(|ordinal| ordinal.parse().ok()).map(Ordinal);
        let ring = ring::decode(&encoded(map)).with_context(|| {
            format!("the ring in {place} is damaged; the operator repairs it within minutes if it runs")
        })?;
        Ok((ring, highest))
    }
}

/// What is missing is empty, and does not decode.
fn encoded(map: ConfigMap) -> EncodedRing {
    let (mut text, mut binary) = (map.data.unwrap_or_default(), map.binary_data.unwrap_or_default());
    EncodedRing {
        ring_json: text.remove("ring.json").unwrap_or_default(),
        digest: text.remove("digest").unwrap_or_default(),
        tokens: binary.remove("tokens").map(|bytes| bytes.0).unwrap_or_default(),
    }
}

async fn only_one(client: &Client, namespace: &str) -> Result<String> {
    let clusters: Api<OrderCluster> = Api::namespaced(client.clone(), namespace);
    let all = clusters
        .list(&ListParams::default())
        .await
        .with_context(|| format!("list the OrderClusters of namespace {namespace}"))?;
    let names: Vec<String> = all.items.iter().map(ResourceExt::name_any).collect();
    match &names[..] {
        [name] => Ok(name.clone()),
        [] => bail!("there is no OrderCluster in namespace {namespace}; name another one with -n"),
        names => bail!(
            "namespace {namespace} has the OrderClusters {}; say which with --cluster",
            names.join(", ")
        ),
    }
}
