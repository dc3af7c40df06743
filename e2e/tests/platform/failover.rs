//! A master dies; its replica takes over, and orders go on with nothing acknowledged lost.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crds::OrderShard;
use e2e::api::{Customer, two_teapots};
use e2e::kubernetes::is_ready;
use e2e::platform::{CLUSTER, await_ready};
use e2e::{Platform, await_condition, database, eventually};
use kube::ResourceExt;
use sqlx::postgres::PgPool;

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
    let replica = replicas.first().context("shard shop-2 has no replica")?;
    let (name, before) = (replica.name_any(), replica.uid());
    let shell = |command: &str| {
        let arguments = ["exec", "-n", namespace, &name, "--", "sh", "-c", command];
        kubernetes.cluster.kubectl(arguments)
    };
    // What pg_basebackup has written before its end: the label first, the control file last. And a file that a copy of the
    // master does not have.
    shell("cd /var/lib/postgresql/17/data && rm global/pg_control && touch backup_label of-the-first-copy")?;
    kubernetes.kill_pod(namespace, &name).await?;
    await_condition("the replica to be copied again", Duration::from_secs(180), || async {
        let pods = kubernetes.pods(namespace, "ringwright.dev/shard=shop-2").await?;
        let again = pods.iter().find(|pod| pod.name_any() == name && pod.uid() != before);
        let is_copied =
            || shell("cd /var/lib/postgresql/17/data && ls global/pg_control && ! ls of-the-first-copy").is_ok();
        Ok((again.is_some_and(is_ready) && is_copied()).then_some(()))
    })
    .await?;
    await_ready(kubernetes, namespace, CLUSTER).await?;
    Ok(())
}

/// A standby whose receiver stands still while the master throws away what it would have read next. Nothing of PostgreSQL or
/// Patroni brings it back; the operator has it copied anew.
#[tokio::test]
async fn a_replica_that_can_no_longer_follow_is_copied_anew_and_told_of() -> Result<()> {
    let platform = Platform::shared().await?;
    let (kubernetes, namespace) = (&platform.kubernetes, &platform.namespace);
    await_ready(kubernetes, namespace, CLUSTER).await?;
    let shards = kubernetes.objects::<OrderShard>(namespace);
    let replicas = kubernetes
        .pods(namespace, "ringwright.dev/shard=shop-1,ringwright.dev/role=replica")
        .await?;
    let replica = replicas.first().context("shard shop-1 has no replica")?.name_any();
    let signal = |name: &str| {
        let command = format!(
            "for p in /proc/[0-9]*; do if tr '\\0' ' ' < $p/cmdline | grep -q 'walr[e]ceiver'; then kill -{name} ${{p#/proc/}}; fi; done"
        );
        let arguments = ["exec", "-n", namespace, &replica, "--", "sh", "-c", &command];
        kubernetes.cluster.kubectl(arguments).map(drop)
    };
    let pool = database::connect(kubernetes, namespace, CLUSTER, "shop-1").await?;
    signal("STOP")?;
    let lost = lose_the_slot(&pool).await;
    // However that went: the other tests need this replica.
    signal("CONT")?;
    lost?;
    let why = await_condition("the copy in the shard's status", Duration::from_secs(300), || async {
        let status = shards.get("shop-1").await?.status.unwrap_or_default();
        Ok(status.rebuilding.filter(|rebuild| rebuild.member == replica))
    })
    .await?
    .why;
    ensure!(why.contains("no longer has the log"), "{why}");
    await_condition("the end of the copy", Duration::from_secs(180), || async {
        let status = shards.get("shop-1").await?.status.unwrap_or_default();
        Ok(status.rebuilding.is_none().then_some(()))
    })
    .await?;
    await_ready(kubernetes, namespace, CLUSTER).await?;
    let (kept,): (i64,) = sqlx::query_as(
        "SELECT count(*) FROM pg_replication_slots WHERE slot_type = 'physical' AND wal_status = 'reserved'",
    )
    .fetch_one(&pool)
    .await?;
    ensure!(kept == 1, "the replica's slot protects it again");
    Ok(())
}

/// Writes until the master throws away what its replica, which stands still, would read next.
async fn lose_the_slot(master: &PgPool) -> Result<()> {
    // A slot keeps a quarter of the volume, which is 128 MiB; each of these fills a segment of 16 MiB.
    for _ in 0..12 {
        sqlx::query("SELECT pg_logical_emit_message(false, 'e2e', 'x'), pg_switch_wal()")
            .execute(master)
            .await?;
        sqlx::query("CHECKPOINT").execute(master).await?;
    }
    await_condition("the replica's slot to be lost", Duration::from_secs(60), || async {
        sqlx::query("CHECKPOINT").execute(master).await?;
        let (lost,): (bool,) = sqlx::query_as(
            "SELECT count(*) FILTER (WHERE wal_status <> 'lost') = 0 FROM pg_replication_slots WHERE slot_type = 'physical'",
        )
        .fetch_one(master)
        .await?;
        Ok(lost.then_some(()))
    })
    .await
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
