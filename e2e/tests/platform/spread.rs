//! Keys lie where the ring says, and nowhere else.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::api::{Api, Customer};
use e2e::platform::CLUSTER;
use e2e::{Platform, database, eventually};
use futures::{StreamExt, TryStreamExt, stream};
use row_id::UserId;
use sqlx::types::Uuid;

const USERS: usize = 1_000;
const AT_ONCE: usize = 16;
/// For one request: a shard that is slow for a moment answers 503, and wants it again.
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test]
async fn orders_of_a_thousand_users_lie_on_exactly_the_shard_that_owns_them() -> Result<()> {
    let platform = Platform::shared().await?;
    let api = platform.api().await?;
    let orders: HashMap<Uuid, Uuid> = stream::iter(0..USERS)
        .map(|_| user_with_order(&api))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;

    let ranges = owned_ranges(&api).await?;
    let mut seen = HashMap::new();
    for ordinal in 0..3_u16 {
        let shard = format!("{CLUSTER}-{ordinal}");
        let pool = database::connect(&platform.kubernetes, &platform.namespace, CLUSTER, &shard).await?;
        let fence: Vec<(i64, i64)> =
            sqlx::query_as("SELECT lo, hi FROM ringwright.range_owners WHERE state = 'owned' ORDER BY lo")
                .fetch_all(&pool)
                .await?;
        let published: Vec<(i64, i64)> = ranges
            .iter()
            .filter(|range| range.2 == ordinal)
            .map(|range| (range.0, range.1))
            .collect();
        ensure!(
            fence == published,
            "{shard}: the fence owns {fence:?}, the ring says {published:?}"
        );

        let rows: Vec<(Uuid, Uuid)> = sqlx::query_as("SELECT order_id, user_id FROM shop.orders")
            .fetch_all(&pool)
            .await?;
        for (order, user) in rows.into_iter().filter(|(order, _)| orders.contains_key(order)) {
            ensure!(orders[&order] == user, "order {order} belongs to another user");
            ensure!(
                seen.insert(order, ordinal).is_none(),
                "order {order} lies on two shards"
            );
            let position = i64::from(UserId::from_uuid(user)?.position().get());
            let owner = ranges
                .iter()
                .find(|range| range.0 <= position && position < range.1)
                .context("a gap")?
                .2;
            ensure!(
                owner == ordinal,
                "order {order} of position {position} lies on {ordinal}, the ring says {owner}"
            );
        }
    }
    ensure!(seen.len() == USERS, "{} of {USERS} orders were found", seen.len());
    for ordinal in 0..3 {
        let share = seen.values().filter(|owner| **owner == ordinal).count();
        // A third each, and five standard deviations of a binomial distribution around it.
        ensure!(
            (259..=407).contains(&share),
            "shard {ordinal} has {share} of {USERS} orders"
        );
    }
    Ok(())
}

async fn user_with_order(api: &Api) -> Result<(Uuid, Uuid)> {
    let customer = Customer::new();
    let user = eventually("creating a user", PATIENCE, || api.create_user(&customer)).await?;
    let order = eventually("placing an order", PATIENCE, || api.create_order(&user, "spread")).await?;
    Ok((order.parse()?, user.parse()?))
}

/// (lo, hi, ordinal) of every range, in order, as the API sees them; checks that they cover the ring.
async fn owned_ranges(api: &Api) -> Result<Vec<(i64, i64, u16)>> {
    let ring = api.get("/v1/ring?ranges=true").await?.success()?;
    let ranges: Vec<(i64, i64, u16)> = ring["ranges"]
        .as_array()
        .context("no ranges")?
        .iter()
        .map(|range| {
            Some((
                range["lo"].as_i64()?,
                range["hi"].as_i64()?,
                range["shard"].as_u64()?.try_into().ok()?,
            ))
        })
        .collect::<Option<_>>()
        .context("a range lacks a field")?;
    let ends = (ranges.first().map(|range| range.0), ranges.last().map(|range| range.1));
    ensure!(ends == (Some(0), Some(1 << 32)), "the ring covers {ends:?}");
    ensure!(
        ranges.windows(2).all(|pair| pair[0].1 == pair[1].0),
        "the ring has a gap or an overlap"
    );
    Ok(ranges)
}
