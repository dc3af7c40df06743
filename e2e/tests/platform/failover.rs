//! A master dies; its replica takes over, and orders go on with nothing acknowledged lost.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crds::OrderShard;
use e2e::api::{Customer, two_teapots};
use e2e::platform::{CLUSTER, await_ready};
use e2e::{Platform, await_condition, database, eventually};
use kube::ResourceExt;

#[tokio::test]
async fn a_killed_master_fails_over_and_orders_go_on() -> Result<()> {
    let platform = Platform::shared().await?;
    let (kubernetes, namespace) = (&platform.kubernetes, &platform.namespace);
    await_ready(kubernetes, namespace, CLUSTER).await?;
    let api = platform.api().await?;
    let user = api.create_user(&Customer::new()).await?;
    let mut acknowledged = vec![api.create_order(&user, "before").await?];
    let shard = shard_of(&platform, &user).await?;
    await_synchronous(&platform, &shard).await?;

    let killed = database::master(kubernetes, namespace, &shard).await?;
    let processes = kubernetes.kill_pod(namespace, &killed.pod).await?;
    ensure!(processes > 1, "{} did not run", killed.pod);
    // A repeat under its key is the same order, however the first attempt ended.
    for attempt in 0..20 {
        let path = format!("/v1/users/{user}/orders");
        let key = format!("during-{attempt}");
        let order = eventually("an order during the failover", Duration::from_secs(60), || async {
            api.post(&path, &key, Some(&two_teapots()))
                .await?
                .text_field("order_id")
        });
        acknowledged.push(order.await?);
    }

    let pool = database::connect(kubernetes, namespace, CLUSTER, &shard).await?;
    let (stored,): (i64,) = sqlx::query_as("SELECT count(*) FROM shop.orders WHERE user_id = $1::uuid")
        .bind(&user)
        .fetch_one(&pool)
        .await?;
    let distinct: std::collections::HashSet<_> = acknowledged.iter().collect();
    ensure!(distinct.len() == 21, "an order was answered twice: {acknowledged:?}");
    ensure!(
        stored == 21,
        "{stored} orders are stored, 21 were acknowledged, each once"
    );
    await_ready(kubernetes, namespace, CLUSTER).await?;
    let shards = kubernetes.objects::<OrderShard>(namespace);
    await_condition(
        "the failover in the shard's status",
        Duration::from_secs(30),
        || async { Ok(shards.get(&shard).await?.status.and_then(|status| status.last_failover)) },
    )
    .await?;
    Ok(())
}

/// A base backup that was cut off leaves a directory that Patroni would not touch.
#[tokio::test]
async fn a_replica_whose_first_copy_was_cut_off_is_copied_again() -> Result<()> {
    let platform = Platform::shared().await?;
    let (kubernetes, namespace) = (&platform.kubernetes, &platform.namespace);
    await_ready(kubernetes, namespace, CLUSTER).await?;
    let replicas = kubernetes
        .pods(namespace, "ringwright.dev/shard=shop-2,ringwright.dev/role=replica")
        .await?;
    let replica = replicas.first().context("shard shop-2 has no replica")?.name_any();
    // What pg_basebackup has written before its end: the label first, the control file last.
    let cut_off = "cd /var/lib/postgresql/17/data && rm global/pg_control && touch backup_label";
    kubernetes
        .cluster
        .kubectl(["exec", "-n", namespace, &replica, "--", "sh", "-c", cut_off])?;
    kubernetes.kill_pod(namespace, &replica).await?;
    for ready in ["False", "True"] {
        let what = format!("shop-2 to be Ready={ready}");
        await_condition(&what, Duration::from_secs(180), || async {
            let shard = kubernetes.objects::<OrderShard>(namespace).get("shop-2").await?;
            let conditions = shard.status.unwrap_or_default().conditions;
            let found = conditions.iter().any(|c| c.type_ == "Ready" && c.status == ready);
            Ok(found.then_some(()))
        })
        .await?;
    }
    await_ready(kubernetes, namespace, CLUSTER).await?;
    Ok(())
}

/// The shard whose database holds the user.
async fn shard_of(platform: &Platform, user: &str) -> Result<String> {
    for ordinal in 0..3 {
        let shard = format!("{CLUSTER}-{ordinal}");
        let pool = database::connect(&platform.kubernetes, &platform.namespace, CLUSTER, &shard).await?;
        let found: Option<(i32,)> = sqlx::query_as("SELECT 1 FROM shop.users WHERE user_id = $1::uuid")
            .bind(user)
            .fetch_optional(&pool)
            .await?;
        if found.is_some() {
            return Ok(shard);
        }
    }
    None.context("the user is on no shard")
}

/// Until a standby is synchronous, refusing to fail over would be right.
async fn await_synchronous(platform: &Platform, shard: &str) -> Result<()> {
    let pool = database::connect(&platform.kubernetes, &platform.namespace, CLUSTER, shard).await?;
    await_condition("a synchronous standby", Duration::from_secs(60), || async {
        let (standbys,): (i64,) =
            sqlx::query_as("SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')")
                .fetch_one(&pool)
                .await?;
        Ok((standbys > 0).then_some(()))
    })
    .await
}
