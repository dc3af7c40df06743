//! Moves that do not come to their end leave nothing behind.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crds::OrderCluster;
use e2e::history::ownership::{BookRow, RangeState};
use e2e::load::{Caller, Client, Clock, Recorder, prefill};
use e2e::moves::{Observer, await_rebalanced, scale, shards};
use e2e::platform::{self, CLUSTER, bearer};
use e2e::{Kubernetes, Platform, await_condition, with_temp_ns};
use sqlx::postgres::PgPool;

const ORDERS: usize = 2_000;
const PATIENCE: Duration = Duration::from_secs(300);

/// Two shards with orders, and what watches them.
async fn shop(namespace: &str) -> Result<(Platform, Observer)> {
    let platform = Platform::make(Kubernetes::connect().await?, namespace, &platform::cluster(2, 1)).await?;
    let caller = Caller::new(&platform.api_addresses().await?, bearer())?;
    let clock = Clock::start();
    prefill(&Client::new(caller, Recorder::new(clock)), ORDERS).await?;
    let observer = Observer::start(namespace, clock).await?;
    Ok((platform, observer))
}

/// Nothing of a move is on any shard, and every order is there.
async fn ensure_untouched(platform: &Platform) -> Result<()> {
    let pools = shards::connect_all(platform).await?;
    let left = shards::remnants(&pools).await?;
    ensure!(left.is_empty(), "a move left behind: {left:?}");
    let mut orders = 0;
    for pool in pools.values() {
        orders += count(pool, "SELECT count(*) FROM shop.orders").await?;
    }
    ensure!(orders == ORDERS as i64, "{orders} of {ORDERS} orders are there");
    Ok(())
}

async fn count(pool: &PgPool, query: &'static str) -> Result<i64> {
    Ok(sqlx::query_scalar(query).fetch_one(pool).await?)
}

/// One cluster for both: making it takes longer than all the rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_that_is_taken_back_or_refused_leaves_nothing_behind() -> Result<()> {
    let kubernetes = Kubernetes::connect().await?;
    Platform::make_room(&kubernetes).await?;
    with_temp_ns(&kubernetes, "abandoned", |namespace| async move {
        let (platform, observer) = shop(&namespace).await?;
        take_it_back_while_it_copies(&platform, &observer).await?;
        refuse_it_until_it_is_possible(&platform, &observer).await
    })
    .await
}

async fn take_it_back_while_it_copies(platform: &Platform, observer: &Observer) -> Result<()> {
    let mut world = observer.world();
    scale(platform, 3)?;
    // In the databases by now: a range is to be received.
    let begun = world.wait_for(|world| {
        let mut rows = world.books.values().flat_map(|rows| rows.iter());
        rows.any(|row| row.state == RangeState::Importing)
    });
    tokio::time::timeout(PATIENCE, begun).await.context("no move began")??;
    scale(platform, 2)?;
    await_rebalanced(platform, observer, 2, PATIENCE).await?;
    ensure_untouched(platform).await
}

/// A row where none may be: whose it is, no move could tell.
const ASTRAY: &str = "00000000-0000-8000-8000-000000000001";

async fn refuse_it_until_it_is_possible(platform: &Platform, observer: &Observer) -> Result<()> {
    let pools = shards::connect_all(platform).await?;
    let shard = plant_a_stray_row(&pools).await?;
    scale(platform, 3)?;
    let reason = await_condition("the refusal", PATIENCE, || async {
        let told = what_the_status_says(platform).await?;
        Ok(told.into_iter().find(|text| text.contains("outside of every range")))
    })
    .await?;
    ensure!(
        reason.contains("idempotency_keys"),
        "the refusal does not say what is wrong: {reason}"
    );
    for (ordinal, rows) in &observer.world().borrow().books {
        let of_a_move = |row: &BookRow| !matches!(row.state, RangeState::Owned | RangeState::Cleaned);
        ensure!(
            !rows.iter().any(of_a_move),
            "shard {ordinal} has something of a move that was refused: {rows:?}"
        );
    }
    // Once it is mended, the move is made, without anybody asking again.
    remove_the_stray_row(&pools[&shard]).await?;
    await_rebalanced(platform, observer, 3, PATIENCE).await?;
    ensure_untouched(platform).await
}

/// Every message of the cluster's conditions, and the last error of its rebalance.
async fn what_the_status_says(platform: &Platform) -> Result<Vec<String>> {
    let cluster = platform
        .kubernetes
        .objects::<OrderCluster>(&platform.namespace)
        .get(CLUSTER)
        .await?;
    let status = serde_json::to_value(cluster.status.unwrap_or_default())?;
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let mut told: Vec<String> = conditions
        .iter()
        .filter_map(|condition| condition["message"].as_str().map(str::to_owned))
        .collect();
    told.extend(status["rebalance"]["lastError"]["message"].as_str().map(str::to_owned));
    Ok(told)
}

/// As only a superuser can who switches the fence off: a key of an operation at position 0, on the shard that does not
/// own it. Returns that shard.
async fn plant_a_stray_row(pools: &std::collections::BTreeMap<u16, PgPool>) -> Result<u16> {
    for (shard, pool) in pools {
        let owns = "SELECT count(*) FROM ringwright.range_owners WHERE lo = 0";
        if count(pool, owns).await? > 0 {
            continue;
        }
        let mut transaction = pool.begin().await?;
        sqlx::query("ALTER TABLE ringwright.idempotency_keys DISABLE TRIGGER ringwright_fence")
            .execute(&mut *transaction)
            .await?;
        sqlx::query(
            "INSERT INTO ringwright.idempotency_keys (key_id, request_hash, state, status, body)
             VALUES ($1::uuid, sha256('stray'), 'done', 200, '{}')",
        )
        .bind(ASTRAY)
        .execute(&mut *transaction)
        .await?;
        sqlx::query("ALTER TABLE ringwright.idempotency_keys ENABLE TRIGGER ringwright_fence")
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        return Ok(*shard);
    }
    None.context("every shard owns position 0")
}

async fn remove_the_stray_row(pool: &PgPool) -> Result<()> {
    let mut transaction = pool.begin().await?;
    sqlx::query("ALTER TABLE ringwright.idempotency_keys DISABLE TRIGGER ringwright_fence")
        .execute(&mut *transaction)
        .await?;
    let removed = sqlx::query("DELETE FROM ringwright.idempotency_keys WHERE key_id = $1::uuid")
        .bind(ASTRAY)
        .execute(&mut *transaction)
        .await?;
    ensure!(removed.rows_affected() == 1, "the stray row is not there any more");
    sqlx::query("ALTER TABLE ringwright.idempotency_keys ENABLE TRIGGER ringwright_fence")
        .execute(&mut *transaction)
        .await?;
    Ok(transaction.commit().await?)
}
