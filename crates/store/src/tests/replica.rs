//! Reads from a physical replica: `RINGWRIGHT_TEST_REPLICA` is the `host:port` of a replica of the server in
//! `RINGWRIGHT_TEST_POSTGRES` that streams under the `application_name` 127 (the first label of a proxy's address).

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::time::{Duration, Instant};

use futures::FutureExt;
use ring::Ordinal;
use sqlx::Connection;

use super::orders::{new_order, order_of, render_order};
use super::proxy::Proxy;
use super::shards::{Shards, eventually, key, run, server, superuser};
use crate::store::MemberRole;
use crate::{ReadAt, ReadDefaults, ReadRace, ReadTokens};

/// There is one replica, and some of the tests make it wait. This lock of the server is held by one test at a time, also
/// of several processes.
const ALONE: &str =
    "SET lock_timeout = '300s'; SELECT pg_advisory_lock(hashtext('ringwright: the replica of the tests'))";

struct Pair {
    shards: Shards,
    /// A connection to the replica itself.
    replica: sqlx::PgConnection,
    proxy: Proxy,
    /// Holds the lock.
    _alone: sqlx::PgConnection,
}

async fn pair() -> Pair {
    let mut alone = superuser("postgres").await;
    run(&mut alone, ALONE).await;
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
        proxy,
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
    let pair = pair().await;
    let shards = &pair.shards;
    let user = shards.create_user().await;
    let mut last = None;
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
        last = Some(written);
    }
    let last = last.unwrap();
    let by = ["master", "replica"].map(|role| shards.counted(&format!("reads_total{{role=\"{role}\"}}")));
    assert_eq!(by.iter().sum::<u64>(), 600, "each read is counted once: {by:?}");
    // It may be asked only once it was seen to have replayed the token.
    let deadline = Instant::now() + Duration::from_secs(20);
    while shards.counted("reads_total{role=\"replica\"}") == 0 {
        assert!(Instant::now() < deadline, "the replica never answered");
        let mut tokens = ReadTokens::default();
        tokens.add(last.token);
        let read = shards.store.get_order(order_of(&last), &raced(&tokens)).await.unwrap();
        assert!(read.value.is_some());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    pair.shards.end().await;
}

/// Runs `body` while the replica receives and does not replay. It replays again in any case: other tests share it.
async fn while_replay_is_paused(replica: &mut sqlx::PgConnection, body: impl Future<Output = ()>) {
    run(replica, "SELECT pg_wal_replay_pause()").await;
    let body = async {
        let deadline = Instant::now() + Duration::from_secs(10);
        let state = "SELECT pg_get_wal_replay_pause_state()";
        while sqlx::query_scalar::<_, String>(state)
            .fetch_one(&mut *replica)
            .await
            .unwrap()
            != "paused"
        {
            assert!(Instant::now() < deadline, "the replica goes on replaying");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        body.await;
    };
    let outcome = AssertUnwindSafe(body).catch_unwind().await;
    run(replica, "SELECT pg_wal_replay_resume()").await;
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
}

#[tokio::test]
async fn a_replica_that_does_not_replay_leaves_newer_tokens_to_the_master() {
    let mut pair = pair().await;
    let shards = &pair.shards;
    let user = shards.create_user().await;
    while_replay_is_paused(&mut pair.replica, async {
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
    })
    .await;
    pair.shards.end().await;
}

#[tokio::test]
async fn a_replica_that_does_not_replay_shows_nobody_what_is_older_than_the_allowed_staleness() {
    let mut pair = pair().await;
    let shards = &pair.shards;
    let user = shards.create_user().await;
    let without_token = raced(&ReadTokens::default());
    let old_token = raced(&{
        let mut tokens = ReadTokens::default();
        tokens.add(shards.store.get_user(user, &without_token).await.unwrap().token);
        tokens
    });
    let staleness = ReadDefaults::default().max_staleness;
    while_replay_is_paused(&mut pair.replica, async {
        let written = shards
            .store
            .create_order(key(), new_order(user), render_order)
            .await
            .unwrap();
        let acknowledged = Instant::now();
        let (mut after, mut by_replica) = (0, 0);
        while after < 50 {
            for at in [&without_token, &old_token] {
                let late_enough = acknowledged.elapsed() > staleness;
                if late_enough && after == 0 {
                    by_replica = shards.counted("reads_total{role=\"replica\"}");
                }
                let read = shards.store.get_order(order_of(&written), at).await.unwrap();
                // Before, a replica may answer that there is no such order.
                assert!(read.value.is_some() || !late_enough, "{:?}", acknowledged.elapsed());
                after += u32::from(late_enough);
            }
            // Heartbeats go on and reach the replica, which must not pass for fresh by them.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(shards.counted("reads_total{role=\"replica\"}"), by_replica);
    })
    .await;
    pair.shards.end().await;
}

#[tokio::test]
async fn a_replica_that_falls_silent_holds_up_no_read_though_the_hedges_are_spent() {
    let pair = pair().await;
    let shards = &pair.shards;
    let user = shards.create_user().await;
    let shard = shards.store.inner.shard(Ordinal(0)).unwrap();
    let master = shard.member(&shards.host(0)).unwrap();
    let hedged = ReadAt {
        race: Some(ReadRace::Hedged),
        ..ReadAt::default()
    };
    let mut reads = tokio::task::JoinSet::new();
    pair.proxy.stall(true);
    for _ in 0..300 {
        // The replica is asked first for as long as it may be, and nothing pays for asking the master as well.
        master.latency.record(Duration::from_secs(10));
        while shard.hedges.spend() {}
        let (store, hedged) = (shards.store.clone(), hedged.clone());
        reads.spawn(async move { store.get_user(user, &hedged).await });
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Well before the reads' own deadline, which is a minute.
    let answered = tokio::time::timeout(Duration::from_secs(30), reads.join_all()).await;
    for read in answered.expect("some reads wait for the replica") {
        assert!(read.unwrap().value.is_some());
    }
    pair.proxy.stall(false);
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
    // By the first heartbeat alone it would be able for a third of the time.
    assert!(able * 2 > looks, "{able} of {looks}");
    pair.shards.end().await;
}

#[tokio::test]
async fn only_a_standby_is_rid_of_the_slots_of_moves() {
    let mut pair = pair().await;
    let database: String = pair.shards.scalar(Ordinal(0), "SELECT current_database()::text").await;
    let mut master = superuser(&database).await;
    let name = |kind: &str| format!("{kind}_{}", std::process::id());
    let (of_move, other) = (name("ringwright_move"), name("somebody"));
    run(&mut master, make_slot(&of_move)).await;
    for slot in [&of_move, &other] {
        // A standby makes a slot only when the master has told which transactions run.
        let told = async {
            for _ in 0..300 {
                run(&mut master, "SELECT pg_log_standby_snapshot()").await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::select! {
            () = run(&mut pair.replica, make_slot(slot)) => {}
            () = told => panic!("the standby made no slot within 30 s"),
        }
    }
    assert!(crate::admin::drop_stale_slots(&mut master).await.unwrap().is_empty());
    let dropped = crate::admin::drop_stale_slots(&mut pair.replica).await.unwrap();
    assert_eq!(dropped, [of_move.as_str()]);
    run(&mut pair.replica, format!("SELECT pg_drop_replication_slot('{other}')")).await;
    run(&mut master, format!("SELECT pg_drop_replication_slot('{of_move}')")).await;
    master.close().await.unwrap();
    pair.shards.end().await;
}

fn make_slot(name: &str) -> String {
    format!("SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')")
}
