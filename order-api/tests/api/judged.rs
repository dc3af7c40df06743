//! The load and the judge of the end-to-end tests, on the service alone: what they say of each other is settled here,
//! where it takes seconds.

use std::collections::BTreeMap;
use std::time::Duration;

use e2e::history::{History, Kind, Violation, check, report};
use e2e::load::{Caller, Client, Clock, Load, Recorder, Settings, prefill};
use e2e::moves::shards::stored;
use order_api::server::{ServerLimits, serve};
use prometheus_client::metrics::gauge::Gauge;
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::shards::ShardedApi;
use crate::support::ALL;

const ORDERS: usize = 1_000;
const RATE: u32 = 100;
const LASTING: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_load_was_told_is_what_the_shards_hold() {
    let api = ShardedApi::alone().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let limits = ServerLimits {
        max_connections: 512,
        idle_timeout: Duration::from_secs(5),
        drain_deadline: Duration::from_secs(5),
    };
    let stop = CancellationToken::new();
    let serving = tokio::spawn(serve(
        listener,
        api.router.clone(),
        limits,
        Gauge::default(),
        stop.clone(),
    ));

    let client = Client::new(Caller::new(&[address], ALL).unwrap(), Recorder::new(Clock::start()));
    prefill(&client, ORDERS).await.unwrap();
    let load = Load::start(&client, Settings { rate: RATE, seed: 7 });
    tokio::time::sleep(LASTING).await;
    load.stop().await.unwrap();
    let repeats = client.repeat_all(8).await;
    assert!(repeats.asked > 100, "hardly anything was written");
    assert_eq!(repeats.answered, repeats.asked, "{:?}", repeats.troubles);

    let history = client.recorder().take();
    assert!(history.reads.len() > 100, "hardly anything was read");
    let pools = api.pools().await;
    let found = judge(&history, &pools).await;
    assert!(found.is_empty(), "{}", report(&found));

    // The same, with one order gone behind everybody's back.
    let gone = "DELETE FROM shop.orders WHERE order_id = (SELECT order_id FROM shop.orders LIMIT 1)";
    sqlx::query(gone).execute(&pools[&0]).await.unwrap();
    let kinds: Vec<Kind> = judge(&history, &pools).await.iter().map(|found| found.kind).collect();
    assert_eq!(kinds, [Kind::LostWrite]);
    for pool in pools.into_values() {
        pool.close().await;
    }
    stop.cancel();
    serving.await.unwrap();
}

async fn judge(history: &History, pools: &BTreeMap<u16, PgPool>) -> Vec<Violation> {
    let mut found = check(history, &[], &stored(pools).await.unwrap());
    // Nobody publishes here, and no customer is told.
    found.retain(|violation| violation.kind.invariant() != 5);
    found
}
