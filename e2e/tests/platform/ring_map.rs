//! The ring ConfigMap: damaged by hand it is refused and repaired; deleted it comes back newer than before.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::api::Customer;
use e2e::platform::{CLUSTER, await_ready};
use e2e::{Platform, await_condition, kubernetes};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_damaged_ring_is_refused_by_the_programs_and_repaired_by_the_operator() -> Result<()> {
    let platform = Platform::shared().await?;
    let api = platform.api().await?;
    let (before, refused_before) = (epoch(&platform).await?, refused(&platform).await?);
    let rings = platform.kubernetes.objects::<ConfigMap>(&platform.namespace);
    let lie = json!({"binaryData": {"tokens": "AAAAAQAA"}});
    rings
        .patch(&ring_name(), &PatchParams::default(), &Patch::Merge(&lie))
        .await?;

    // Whatever the programs see in between, they serve: a user of every shard can be created.
    for _ in 0..30 {
        api.create_user(&Customer::new()).await?;
    }
    await_condition("the ring to be repaired", DEADLINE, || async {
        let found = rings.get(&ring_name()).await?.binary_data.unwrap_or_default();
        Ok((found.get("tokens").is_some_and(|tokens| tokens.0.len() > 6)).then_some(()))
    })
    .await?;
    ensure!(epoch(&platform).await? >= before, "the ring went back");
    await_condition("the API to count its refusal", DEADLINE, || async {
        Ok((refused(&platform).await? > refused_before).then_some(()))
    })
    .await?;
    let served = api.get("/v1/ring").await?.success()?;
    ensure!(
        served["shards"].as_array().is_some_and(|shards| shards.len() == 3),
        "the API lost its ring: {served}"
    );
    Ok(())
}

#[tokio::test]
async fn a_deleted_ring_comes_back_with_the_ranges_the_shards_own() -> Result<()> {
    let platform = Platform::shared().await?;
    let api = platform.api().await?;
    let (before, ranges) = (epoch(&platform).await?, ranges(&api).await?);
    let rings = platform.kubernetes.objects::<ConfigMap>(&platform.namespace);
    rings.delete(&ring_name(), &DeleteParams::default()).await?;
    await_condition("the ring to come back", DEADLINE, || async {
        Ok(rings.get_opt(&ring_name()).await?.map(|_| ()))
    })
    .await?;
    let after = epoch(&platform).await?;
    ensure!(
        after > before,
        "a ring that was lost comes back newer: {before} became {after}"
    );
    await_condition("the API to see it", DEADLINE, || async {
        Ok((api.get("/v1/ring").await?.success()?["epoch"].as_i64() >= Some(after)).then_some(()))
    })
    .await?;
    ensure!(
        self::ranges(&api).await? == ranges,
        "the ring came back with other ranges"
    );
    await_ready(&platform.kubernetes, &platform.namespace, CLUSTER).await?;
    Ok(())
}

/// Rings that the API's pods have refused, as their metrics tell.
async fn refused(platform: &Platform) -> Result<u64> {
    let selector = "app.kubernetes.io/name=ringwright-order-api";
    let mut sum = 0;
    for pod in platform.kubernetes.pods(&platform.namespace, selector).await? {
        let address = kubernetes::address(&pod).context("a pod without address")?;
        let metrics = reqwest::get(format!("http://{address}:9000/metrics"))
            .await?
            .text()
            .await?;
        let name = "ringwright_order_api_ring_refused_total ";
        let value = metrics.lines().find_map(|line| line.strip_prefix(name));
        sum += value
            .with_context(|| format!("no {name}in {metrics}"))?
            .parse::<u64>()?;
    }
    Ok(sum)
}

fn ring_name() -> String {
    format!("{CLUSTER}-ring")
}

async fn epoch(platform: &Platform) -> Result<i64> {
    let ring = platform
        .kubernetes
        .objects::<ConfigMap>(&platform.namespace)
        .get(&ring_name())
        .await?;
    let text = ring
        .data
        .unwrap_or_default()
        .remove("ring.json")
        .context("the ring has no ring.json")?;
    serde_json::from_str::<Value>(&text)?["epoch"]
        .as_i64()
        .context("the ring has no epoch")
}

async fn ranges(api: &e2e::Api) -> Result<Value> {
    Ok(api.get("/v1/ring?ranges=true").await?.success()?["ranges"].take())
}
