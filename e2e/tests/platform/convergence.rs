//! The operator puts back what was changed by hand, and writes nothing when there is nothing to do.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crds::{OrderCluster, OrderShard};
use e2e::kubernetes::Kubernetes;
use e2e::platform::{self, CLUSTER, OPERATOR_NAMESPACE, await_ready, make_cluster};
use e2e::{await_condition, database, eventually, with_temp_ns};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{DeleteParams, ListParams};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;

const DEADLINE: Duration = Duration::from_secs(120);

#[tokio::test]
async fn every_child_deleted_by_hand_comes_back() -> Result<()> {
    let kubernetes = Kubernetes::connect().await?;
    platform::install_operator(&kubernetes).await?;
    with_temp_ns(&kubernetes, "children", |namespace| async {
        let namespace = namespace;
        make_cluster(&kubernetes, &namespace, &platform::cluster(1, 2)).await?;
        await_ready(&kubernetes, &namespace, CLUSTER).await?;
        let pool = database::connect(&kubernetes, &namespace, CLUSTER, "shop-0").await?;
        sqlx::query("CREATE TABLE public.kept (mark int)")
            .execute(&pool)
            .await?;

        delete_all::<Service>(&kubernetes, &namespace).await?;
        delete_all::<ServiceAccount>(&kubernetes, &namespace).await?;
        delete_all::<Role>(&kubernetes, &namespace).await?;
        delete_all::<RoleBinding>(&kubernetes, &namespace).await?;
        delete_all::<PodDisruptionBudget>(&kubernetes, &namespace).await?;
        delete_all::<NetworkPolicy>(&kubernetes, &namespace).await?;
        await_ready(&kubernetes, &namespace, CLUSTER).await?;
        delete_all::<ConfigMap>(&kubernetes, &namespace).await?;
        await_ready(&kubernetes, &namespace, CLUSTER).await?;
        delete_all::<StatefulSet>(&kubernetes, &namespace).await?;
        await_ready(&kubernetes, &namespace, CLUSTER).await?;
        delete_all::<Secret>(&kubernetes, &namespace).await?;
        await_ready(&kubernetes, &namespace, CLUSTER).await?;

        // The new passwords hold, for the superuser and for the programs, and the data is that of before.
        let pool = eventually("logging in with the new password", DEADLINE, || {
            database::connect(&kubernetes, &namespace, CLUSTER, "shop-0")
        });
        sqlx::query("SELECT mark FROM public.kept")
            .fetch_all(&pool.await?)
            .await?;
        let master = database::master(&kubernetes, &namespace, "shop-0").await?;
        for program in ["app", "notifier", "monitor", "mover"] {
            let secret = format!("{CLUSTER}-{program}");
            let username = database::secret(&kubernetes, &namespace, &secret, "username").await?;
            let password = database::secret(&kubernetes, &namespace, &secret, "password").await?;
            eventually("logging in as a program", DEADLINE, || {
                database::log_in(&master.address, &username, &password)
            })
            .await?;
        }
        Ok(())
    })
    .await
}

/// Deletes every object of one kind that the operator made, and waits until each is there again.
async fn delete_all<K>(kubernetes: &Kubernetes, namespace: &str) -> Result<()>
where
    K: Resource<Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    K::DynamicType: Default,
{
    let objects = kubernetes.objects::<K>(namespace);
    let made = ListParams::default().labels("app.kubernetes.io/managed-by=ringwright-operator");
    let before: BTreeMap<String, Option<String>> = objects
        .list(&made)
        .await?
        .iter()
        .map(|object| (object.name_any(), object.uid()))
        .collect();
    let kind = K::kind(&K::DynamicType::default()).into_owned();
    ensure!(!before.is_empty(), "the operator made no {kind}");
    for name in before.keys() {
        objects
            .delete(name, &DeleteParams::default())
            .await
            .with_context(|| format!("deleting {kind} {name}"))?;
    }
    for (name, uid) in &before {
        await_condition(&format!("{kind} {name} to come back"), DEADLINE, || async {
            let found = objects.get_opt(name).await?;
            Ok(found
                .filter(|found| found.uid() != *uid && found.meta().deletion_timestamp.is_none())
                .map(|_| ()))
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_second_apply_of_everything_writes_nothing() -> Result<()> {
    let platform = e2e::Platform::shared().await?;
    let (kubernetes, namespace) = (&platform.kubernetes, &platform.namespace);
    await_ready(kubernetes, namespace, CLUSTER).await?;
    let (writes, reconciles) = settled(kubernetes).await?;
    let versions = versions(kubernetes, namespace).await?;

    make_cluster(kubernetes, namespace, &platform::cluster(3, 2)).await?;
    // Another operator reads everything anew and applies everything once more.
    let operators = kubernetes
        .pods(OPERATOR_NAMESPACE, "app.kubernetes.io/name=ringwright-operator")
        .await?;
    for operator in &operators {
        kubernetes.kill_pod(OPERATOR_NAMESPACE, &operator.name_any()).await?;
    }
    let (writes_after, _) = await_condition("the new operator's first pass", DEADLINE, || async {
        let found = counts(kubernetes).await.ok();
        Ok(found.filter(|(_, reconciles)| *reconciles >= 4))
    })
    .await?;
    ensure!(reconciles > 0, "the operator had never reconciled");
    ensure!(
        writes_after == 0,
        "the new operator wrote {writes_after} times (the old one {writes} in all)"
    );
    let after = self::versions(kubernetes, namespace).await?;
    ensure!(after == versions, "objects changed: {versions:?} became {after:?}");
    Ok(())
}

/// (writes, reconciles) once no more writes come for some seconds.
async fn settled(kubernetes: &Kubernetes) -> Result<(u64, u64)> {
    let mut last = counts(kubernetes).await?;
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let now = counts(kubernetes).await?;
        if now.0 == last.0 {
            return Ok(now);
        }
        last = now;
    }
    anyhow::bail!("the operator never stops writing: {} writes so far", last.0)
}

/// (writes, reconciles) of the running operator, from its metrics. The Lease is not among them: it is renewed by design.
async fn counts(kubernetes: &Kubernetes) -> Result<(u64, u64)> {
    let selector = "app.kubernetes.io/name=ringwright-operator";
    let address = kubernetes.ready_pod_address(OPERATOR_NAMESPACE, selector).await?;
    let metrics = reqwest::get(format!("http://{address}:9000/metrics"))
        .await?
        .text()
        .await?;
    let sum = |name: &str| -> u64 {
        let lines = metrics
            .lines()
            .filter(|line| line.starts_with(name) && !line.contains("leases"));
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum::<f64>() as u64
    };
    Ok((
        sum("ringwright_operator_api_writes_total"),
        sum("ringwright_operator_reconciles_total"),
    ))
}

/// Versions of all that the operator writes. Patroni's own objects change by Patroni's hand, so they are left out.
async fn versions(kubernetes: &Kubernetes, namespace: &str) -> Result<BTreeMap<String, Option<String>>> {
    let mut versions = BTreeMap::new();
    add_versions::<StatefulSet>(kubernetes, namespace, &mut versions).await?;
    add_versions::<Service>(kubernetes, namespace, &mut versions).await?;
    add_versions::<Secret>(kubernetes, namespace, &mut versions).await?;
    add_versions::<Role>(kubernetes, namespace, &mut versions).await?;
    add_versions::<OrderShard>(kubernetes, namespace, &mut versions).await?;
    add_versions::<OrderCluster>(kubernetes, namespace, &mut versions).await?;
    let ring = kubernetes
        .objects::<ConfigMap>(namespace)
        .get(&format!("{CLUSTER}-ring"))
        .await?;
    versions.insert("ring".to_owned(), ring.resource_version());
    Ok(versions)
}

async fn add_versions<K>(
    kubernetes: &Kubernetes,
    namespace: &str,
    versions: &mut BTreeMap<String, Option<String>>,
) -> Result<()>
where
    K: Resource<Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    K::DynamicType: Default,
{
    for object in kubernetes.objects::<K>(namespace).list(&ListParams::default()).await? {
        let kind = K::kind(&K::DynamicType::default()).into_owned();
        versions.insert(format!("{kind}/{}", object.name_any()), object.resource_version());
    }
    Ok(())
}
