//! A master dies; its replica takes over, and orders go on with nothing acknowledged lost.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crds::OrderShard;
use e2e::api::{Customer, two_teapots};
use e2e::platform::{CLUSTER, await_ready};
use e2e::{Platform, await_condition, database, eventually};

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
    kubernetes.kill_pod(namespace, &killed.pod).await?;
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
