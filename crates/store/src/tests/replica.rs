//! Reads from a physical replica. Run by hand, since the test server has none:
//! `RINGWRIGHT_TEST_REPLICA=127.0.0.1:5433 cargo test -p store -- --ignored`, a replica of the server in
//! `RINGWRIGHT_TEST_POSTGRES` that streams under the `application_name` 127 (the first label of a proxy's address).

use std::time::{Duration, Instant};

use ring::Ordinal;
use sqlx::Connection;

use super::orders::{new_order, order_of, render_order};
use super::proxy::Proxy;
use super::shards::{Shards, eventually, key, run, server};
use crate::store::MemberRole;
use crate::{ReadAt, ReadRace, ReadTokens};

async fn pair() -> (Shards, Proxy, sqlx::PgConnection) {
    let replica =
        std::env::var("RINGWRIGHT_TEST_REPLICA").expect("RINGWRIGHT_TEST_REPLICA must be a replica's host:port");
    let mut shards = Shards::start(1).await;
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
    (shards, proxy, sqlx::PgConnection::connect_with(&control).await.unwrap())
}

fn raced(tokens: &ReadTokens) -> ReadAt {
    ReadAt {
        race: Some(ReadRace::Race),
        ..ReadAt::session(tokens.clone())
    }
}

#[tokio::test]
#[ignore = "needs RINGWRIGHT_TEST_REPLICA"]
async fn every_read_sees_its_own_write_whoever_answers_and_replicas_answer_too() {
    let (shards, _proxy, mut replica) = pair().await;
    let user = shards.create_user().await;
    let reads = "SELECT coalesce(sum(xact_commit), 0)::bigint FROM pg_stat_database WHERE datname = current_database()";
    let before: i64 = sqlx::query_scalar(reads).fetch_one(&mut replica).await.unwrap();
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
    let asked: i64 = sqlx::query_scalar(reads).fetch_one(&mut replica).await.unwrap();
    assert!(asked > before, "the replica was never asked");
    shards.end().await;
}

#[tokio::test]
#[ignore = "needs RINGWRIGHT_TEST_REPLICA"]
async fn a_replica_that_does_not_replay_leaves_newer_tokens_to_the_master() {
    let (shards, _proxy, mut replica) = pair().await;
    let user = shards.create_user().await;
    run(&mut replica, "SELECT pg_wal_replay_pause()").await;
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
    run(&mut replica, "SELECT pg_wal_replay_resume()").await;
    shards.end().await;
}

#[tokio::test]
#[ignore = "needs RINGWRIGHT_TEST_REPLICA"]
async fn while_nobody_writes_heartbeats_keep_the_replica_able_to_answer() {
    let (shards, _proxy, _replica) = pair().await;
    let user = shards.create_user().await;
    let shard = shards.store.inner.shard(Ordinal(0)).unwrap();
    let until = Instant::now() + Duration::from_secs(4);
    let (mut looks, mut able) = (0, 0);
    while Instant::now() < until {
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
    assert!(shards.total("SELECT count(*) FROM ringwright.heartbeat").await > 0);
    shards.end().await;
}
