//! Asking for another number of shards, and waiting until it is so.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use crds::OrderCluster;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use tokio::time::sleep;

use super::observer::{Observer, World};
use crate::history::ownership::RangeState;
use crate::history::placement::{self, Owners};
use crate::kubernetes::Kubernetes;
use crate::platform::{self, CLUSTER, OPERATOR_NAMESPACE};
use crate::{Platform, await_condition};

/// The operators' Lease, and the label of their pods.
const LEASE: &str = "ringwright-operator";
const OPERATORS: &str = "app.kubernetes.io/name=ringwright-operator";

/// `kubectl scale`, as people do it.
///
/// # Errors
/// When it is refused.
pub fn scale(platform: &Platform, shards: usize) -> Result<()> {
    let (replicas, name) = (format!("--replicas={shards}"), format!("ordercluster/{CLUSTER}"));
    platform
        .kubernetes
        .cluster
        .kubectl(["scale", &name, &replicas, "-n", &platform.namespace])?;
    Ok(())
}

/// Runs so many operators, and waits until all of them are ready.
///
/// # Errors
/// When they do not become ready.
pub fn operators(kubernetes: &Kubernetes, count: usize) -> Result<()> {
    let (replicas, deployment) = (format!("--replicas={count}"), "deployment/ringwright-operator");
    let cluster = &kubernetes.cluster;
    cluster.kubectl(["scale", deployment, &replicas, "-n", OPERATOR_NAMESPACE])?;
    cluster.kubectl([
        "rollout",
        "status",
        deployment,
        "-n",
        OPERATOR_NAMESPACE,
        "--timeout=600s",
    ])?;
    Ok(())
}

/// Who owns what, as last seen.
pub(super) fn owners(world: &World) -> Owners {
    placement::owners(world.books.iter().map(|(shard, rows)| (*shard, &rows[..])))
}

/// Whether so many shards own everything between them, and nothing of a move is left in their books.
pub fn balanced(world: &World, shards: usize) -> bool {
    let rows = || world.books.values().flat_map(|rows| rows.iter());
    let settled = rows().all(|row| matches!(row.state, RangeState::Owned | RangeState::Cleaned));
    let owned: u64 = rows()
        .filter(|row| row.state.may_write())
        .map(|row| row.hi - row.lo)
        .sum();
    let owners: BTreeSet<u16> = owners(world).into_iter().map(|owner| owner.2).collect();
    // All shards that exist own something: one that has left is gone.
    settled && owned == 1 << 32 && owners.len() == shards && world.books.len() == shards
}

/// Waits until the cluster has so many shards, is Ready, and nothing moves any more.
///
/// # Errors
/// When that takes longer than `patience`; the message carries what the status says.
pub async fn await_rebalanced(
    platform: &Platform,
    observer: &Observer,
    shards: usize,
    patience: Duration,
) -> Result<OrderCluster> {
    let clusters = platform.kubernetes.objects::<OrderCluster>(&platform.namespace);
    let world = observer.world();
    let began = Instant::now();
    loop {
        // The API server may be slow while everything works; only the deadline ends the wait.
        let cluster = clusters.get(CLUSTER).await.ok();
        let ready = |cluster: &OrderCluster| platform::condition(cluster, "Ready").as_deref() == Some("True");
        let settled = balanced(&world.borrow(), shards);
        if let Some(cluster) = cluster.as_ref().filter(|cluster| settled && ready(cluster)) {
            return Ok(cluster.clone());
        }
        if began.elapsed() > patience {
            let status = cluster.and_then(|cluster| cluster.status);
            let world = world.borrow();
            let books = world.books.iter();
            let counts: Vec<String> = books
                .map(|(shard, rows)| format!("shard {shard}: {} ranges", rows.len()))
                .collect();
            bail!(
                "{shards} shards are not balanced after {} s; {}; status: {status:?}",
                patience.as_secs(),
                counts.join(", ")
            );
        }
        sleep(Duration::from_millis(300)).await;
    }
}

/// The name of the operator pod that leads.
pub(super) async fn leader(kubernetes: &Kubernetes) -> Result<String> {
    let lease = kubernetes.objects::<Lease>(OPERATOR_NAMESPACE).get(LEASE).await?;
    let holder = lease.spec.and_then(|spec| spec.holder_identity);
    holder.filter(|holder| !holder.is_empty()).context("no operator leads")
}

/// Waits for a leader other than `former`.
pub(super) async fn await_successor(kubernetes: &Kubernetes, former: &str) -> Result<String> {
    await_condition("another operator to lead", Duration::from_secs(60), || async {
        let pods = kubernetes.pods(OPERATOR_NAMESPACE, OPERATORS).await?;
        let leader = leader(kubernetes).await.ok();
        // Not one that the Lease still names though it is gone.
        Ok(leader.filter(|leader| leader != former && pods.iter().any(|pod| pod.name_any() == *leader)))
    })
    .await
}

/// The pod that leads, waited for.
pub(super) async fn leading_pod(kubernetes: &Kubernetes) -> Result<Pod> {
    await_condition("an operator that leads", Duration::from_secs(60), || async {
        let Ok(leader) = leader(kubernetes).await else {
            return Ok(None);
        };
        Ok(kubernetes.objects::<Pod>(OPERATOR_NAMESPACE).get_opt(&leader).await?)
    })
    .await
}
