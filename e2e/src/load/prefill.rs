//! Orders that are there before anything is measured.

use std::time::Instant;

use anyhow::{Result, ensure};
use futures::StreamExt;

use super::client::Client;
use super::request::Request;

/// Requests under way at once. Of a batch the API places eight orders at a time; more than all connections would queue.
const AT_ONCE: usize = 6;
/// Orders of one request: the most that the API takes. All of one user, so all on one shard, each in a transaction of its
/// own.
const ORDERS_A_REQUEST: usize = 100;
/// Fewer users would make ranges of very unequal weight; a small load has one for ten orders.
const FEWEST_USERS: usize = 500;

/// Creates users and `orders` orders through the API; all are part of the history.
///
/// # Errors
/// When not all of it is there in the end. A slow machine may answer 503 before that; the client repeats it.
pub async fn prefill(client: &Client, orders: usize) -> Result<()> {
    let requests = orders.div_ceil(ORDERS_A_REQUEST);
    let began = Instant::now();
    let users = requests.max(FEWEST_USERS.min(orders / 10)).max(1);
    at_once(client, (0..users).map(|_| Request::CreateUser)).await?;
    let known = client.population().users.len();
    ensure!(
        known == users,
        "{known} of {users} users were created:\n{}",
        client.troubles()
    );
    let batches = (0..requests).map(|batch| {
        let size = ORDERS_A_REQUEST.min(orders - batch * ORDERS_A_REQUEST);
        Request::CreateOrders(vec![batch % users; size])
    });
    let took_users = began.elapsed();
    at_once(client, batches).await?;
    let stored = client.population().orders.len();
    ensure!(
        stored == orders,
        "{stored} of {orders} orders were placed:\n{}",
        client.troubles()
    );
    println!(
        "{users} users in {:.1} s, {orders} orders in {:.1} s",
        took_users.as_secs_f64(),
        (began.elapsed() - took_users).as_secs_f64()
    );
    Ok(())
}

async fn at_once(client: &Client, requests: impl Iterator<Item = Request>) -> Result<()> {
    let work = futures::stream::iter(requests).map(|request| {
        // On the runtime's threads: one task alone would keep one core busy.
        let client = client.clone();
        tokio::spawn(async move { client.carry_out(request).await })
    });
    let mut work = work.buffer_unordered(AT_ONCE);
    while let Some(ending) = work.next().await {
        ending?;
    }
    Ok(())
}
