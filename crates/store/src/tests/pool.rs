//! A member that is slow to answer: its pool, and what it is taken for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::join_all;

use super::proxy::Proxy;
use super::shards::{PATIENCE, Shards, run, server};
use crate::ReadAt;
use crate::config::{PgSslMode, StoreConfig};
use crate::metrics::Metrics;
use crate::store::connect::{Dialer, Purpose};
use crate::store::pool::{AcquireError, Pool};

/// The patience of callers who are to give up.
const SOON: Duration = Duration::from_millis(200);

/// Callers give up after `acquire_timeout`, dials do not.
fn pool(shards: &Shards, proxy: &Proxy, connections: u32, acquire_timeout: Duration) -> Arc<Pool> {
    let mut config = StoreConfig::new("pool-test", shards.credentials());
    config.ssl_mode = PgSslMode::Disable;
    config.pool.connections = connections;
    config.pool.acquire_timeout = acquire_timeout;
    config.pool.connect_timeout = PATIENCE;
    let dialer = Arc::new(Dialer::new(config.clone()));
    let metrics = Metrics::default().of_pool(Purpose::Read);
    let host = proxy.address.to_string();
    Arc::new(Pool::new(host, Purpose::Read, config.pool, dialer, metrics))
}

async fn proxy(shards: &Shards) -> Proxy {
    let server = server();
    let upstream = format!("{}:{}", server.get_host(), server.get_port());
    Proxy::start(upstream, shards.database(0).to_owned()).await
}

#[tokio::test]
async fn a_member_that_is_slow_to_let_anybody_in_is_not_asked_again_and_again() {
    let shards = Shards::start(1).await;
    let proxy = proxy(&shards).await;
    let pool = pool(&shards, &proxy, 8, SOON);
    proxy.hold(true);
    for _ in 0..3 {
        for given_up in join_all((0..20).map(|_| pool.acquire())).await {
            assert!(matches!(given_up, Err(AcquireError::Dial(_) | AcquireError::Full)));
        }
    }
    assert_eq!(proxy.accepted(), 2, "connections that were begun");
    proxy.hold(false);
    let deadline = Instant::now() + Duration::from_secs(20);
    let lease = loop {
        if let Ok(lease) = pool.acquire().await {
            break lease;
        }
        assert!(Instant::now() < deadline, "nobody is let in");
    };
    assert_eq!(
        proxy.accepted(),
        2,
        "what was begun for those who gave up serves who comes next"
    );
    drop(lease);
    shards.end().await;
}

#[tokio::test]
async fn who_waits_for_a_new_connection_takes_one_that_comes_back() {
    let shards = Shards::start(1).await;
    let proxy = proxy(&shards).await;
    let pool = pool(&shards, &proxy, 8, PATIENCE);
    let Ok(lease) = pool.acquire().await else {
        panic!("the server lets nobody in")
    };
    proxy.hold(true);
    let give_back = async {
        tokio::task::yield_now().await;
        lease.give_back();
    };
    let (waited, ()) = tokio::join!(pool.acquire(), give_back);
    let Ok(mut lease) = waited else {
        panic!("the connection that came back was not taken")
    };
    run(lease.conn(), "SELECT").await;
    drop(lease);
    shards.end().await;
}

#[tokio::test]
async fn there_are_never_more_connections_than_may_be() {
    let shards = Shards::start(1).await;
    let proxy = proxy(&shards).await;
    let pool = pool(&shards, &proxy, 3, SOON);
    for _ in 0..20 {
        let leases = join_all((0..12).map(|_| pool.acquire())).await;
        let held: Vec<_> = leases.into_iter().filter_map(Result::ok).collect();
        assert!(held.len() <= 3, "{}", held.len());
        held.into_iter().for_each(|lease| lease.give_back());
    }
    assert!(proxy.accepted() <= 3, "{}", proxy.accepted());
    shards.end().await;
}

/// Who waits for the answer to a commit waits on a socket that may never say anything again.
#[tokio::test]
async fn a_connection_learns_that_its_server_is_no_more() {
    let shards = Shards::start(1).await;
    let proxy = proxy(&shards).await;
    let pool = pool(&shards, &proxy, 2, PATIENCE);
    let Ok(before) = pool.acquire().await else {
        panic!("the server lets nobody in")
    };
    let gone = before.server_is_gone();
    pool.server_changed();
    tokio::time::timeout(Duration::from_secs(5), gone).await.unwrap();
    let Ok(after) = pool.acquire().await else {
        panic!("the server lets nobody in")
    };
    assert!(
        after.server_is_gone().now_or_never().is_none(),
        "this one is of the new server"
    );
    drop((before, after));
    shards.end().await;
}

#[tokio::test]
async fn a_master_that_answers_late_is_still_the_master() {
    // A dial goes on until the master answers, however late that is.
    let shards = Shards::with(1, |config| config.pool.connect_timeout = PATIENCE).await;
    let user = shards.create_user().await;
    shards.proxies[0].stall(true);
    let at = ReadAt::default();
    let reading = shards.store.get_user(user, &at);
    let meanwhile = async {
        // Longer than any look takes on a server that has the time.
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        let known = shards.store.health()[0].has_master();
        shards.proxies[0].stall(false);
        known
    };
    let (read, known) = tokio::join!(reading, meanwhile);
    assert!(known, "who is short of time is not gone");
    read.unwrap();
    shards.end().await;
}
