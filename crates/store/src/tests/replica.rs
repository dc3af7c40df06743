//! Reads from a physical replica: `RINGWRIGHT_TEST_REPLICA` is the `host:port` of a replica of the server in
//! `RINGWRIGHT_TEST_POSTGRES` that streams under the `application_name` 127 (the first label of a proxy's address).

use std::time::{Duration, Instant};

use ring::Ordinal;
use sqlx::Connection;
use tokio::sync::{Mutex, MutexGuard};

use super::orders::{new_order, order_of, render_order};
use super::proxy::Proxy;
use super::shards::{Shards, eventually, key, run, server};
use crate::store::MemberRole;
use crate::{ReadAt, ReadRace, ReadTokens};

/// There is one replica, and one of the tests makes it wait.
static REPLICA: Mutex<()> = Mutex::const_new(());

struct Pair {
    shards: Shards,
    /// A connection to the replica itself.
    replica: sqlx::PgConnection,
    _proxy: Proxy,
    _alone: MutexGuard<'static, ()>,
}

async fn pair() -> Pair {
    let alone = REPLICA.lock().await;
    let replica = std::env::var("RINGWRIGHT_TEST_REPLICA")
        .expect("RINGWRIGHT_TEST_REPLICA must be a replica's host:port (`make servers` starts one)");
    let shards = Shards::start(1).await;
    let database: String = shards.scalar(Ordinal(0), "SELECT current_database()::text").await;
    let proxy = Proxy::start(replica.clone(), database.clone()).await;
    shards.add_replica(&proxy);
    let (host, port) = replica.split_once(':').unwrap();
    let control = server().host(host).port(port.parse().unwrap()).database(&database);
    let all = &shards;
    eventually("the replica is seen", || async move {
        all.store.health()[0]
            .members
            .iter()
            .any(|member| member.role == MemberRole::Replica)
    })
    .await;
    Pair {
        shards,
        replica: sqlx::PgConnection::connect_with(&control).await.unwrap(),
        _proxy: proxy,
        _alone: alone,
    }
}

fn raced(tokens: &ReadTokens) -> ReadAt {
    ReadAt {
        race: Some(ReadRace::Race),
        ..ReadAt::session(tokens.clone())
    }
}

#[tokio::test]
async fn every_read_sees_its_own_write_whoever_answers_and_replicas_answer_too() {
    let mut pair = pair().await;
    let shards = &pair.shards;
    let user = shards.create_user().await;
    let reads = "SELECT coalesce(sum(xact_commit), 0)::bigint FROM pg_stat_database WHERE datname = current_database()";
    let before: i64 = sqlx::query_scalar(reads).fetch_one(&mut pair.replica).await.unwrap();
    for _ in 0..200 {
        let written = shards
            .store
            .create_order(key(), new_order(user), render_order)
            .await
            .unwrap();
        let mut tokens = ReadTokens::default();
        tokens.add(written.token);
        for _ in 0..3 {
            let read = shards
                .store
                .get_order(order_of(&written), &raced(&tokens))
                .await
                .unwrap();
            assert!(read.value.is_some(), "a session read is never older than its token");
            assert!(read.token.lsn >= written.token.lsn);
        }
    }
    let asked: i64 = sqlx::query_scalar(reads).fetch_one(&mut pair.replica).await.unwrap();
    assert!(asked > before, "the replica was never asked");
    pair.shards.end().await;
}

#[tokio::test]
async fn a_replica_that_does_not_replay_leaves_newer_tokens_to_the_master() {
    let mut pair = pair().await;
    let shards = &pair.shards;
    let user = shards.create_user().await;
    run(&mut pair.replica, "SELECT pg_wal_replay_pause()").await;
    let written = shards
        .store
        .create_order(key(), new_order(user), render_order)
        .await
        .unwrap();
    let mut tokens = ReadTokens::default();
    tokens.add(written.token);
    for _ in 0..50 {
        let read = shards
            .store
            .get_order(order_of(&written), &raced(&tokens))
            .await
            .unwrap();
        assert!(read.value.is_some());
    }
    run(&mut pair.replica, "SELECT pg_wal_replay_resume()").await;
    pair.shards.end().await;
}

#[tokio::test]
async fn while_nobody_writes_heartbeats_keep_the_replica_able_to_answer() {
    let pair = pair().await;
    let shards = &pair.shards;
    let user = shards.create_user().await;
    // Other tests' writes on this server keep the replica fresh as well: the first heartbeat comes when they are quiet.
    let deadline = Instant::now() + Duration::from_secs(300);
    while shards.total("SELECT count(*) FROM ringwright.heartbeat").await == 0 {
        assert!(Instant::now() < deadline, "no heartbeat came");
        shards.store.get_user(user, &ReadAt::default()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let shard = shards.store.inner.shard(Ordinal(0)).unwrap();
    let (mut looks, mut able) = (0, 0);
    while looks < 150 {
        shards.store.get_user(user, &ReadAt::default()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        let view = shard.view.borrow();
        let ages = view
            .members
            .iter()
            .filter_map(|member| member.sample()?.last_message(Instant::now()));
        looks += 1;
        able += u32::from(ages.min().is_some_and(|age| age < Duration::from_secs(1)));
    }
    assert!(able * 10 > looks * 9, "{able} of {looks}");
    pair.shards.end().await;
}
