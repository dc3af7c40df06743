//! Sources that answer no commit without a standby.

use std::time::Duration;

use ring::Range;
use sqlx::PgConnection;

use super::pair::{Pair, batch, claim_at, count_claims, drop_replication, until_done, write_claims};
use crate::moves;
use crate::tests::shards::run;

const RANGE: Range = Range { lo: 0, hi: 1 << 31 };
/// Of a standby that is not there. The server knows it for the time of the test; only failover slots ask for it.
const ABSENT: &str = "standby_that_is_not_there";
/// Changes tried until one is held back: the server's processes read their configuration when they come to it.
const TRIES: u32 = 10;
/// In so long an ordinary slot would have handed a change out many times over.
const A_WHILE: Duration = Duration::from_secs(2);

/// What the master would take for a standby's confirmation, where any that streams from it may be the standby.
async fn is_confirmed(source: &mut PgConnection, position: &str) -> bool {
    let sql = format!(
        "SELECT bool_or(flush_lsn >= '{position}'::pg_lsn) FROM pg_stat_replication r
           JOIN pg_replication_slots s ON s.active_pid = r.pid
          WHERE s.slot_type = 'logical' AND s.failover AND s.database = current_database()"
    );
    let confirmed: Option<bool> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
        .fetch_one(source)
        .await
        .unwrap();
    confirmed.expect("nobody streams from the move's slot")
}

async fn await_standby(conn: &mut PgConnection, standby: &str) {
    run(
        conn,
        format!("ALTER SYSTEM SET synchronized_standby_slots = '{standby}'"),
    )
    .await;
    run(conn, "SELECT pg_reload_conf()").await;
}

/// With no standby left, Patroni's strict mode lets whoever streams the log confirm commits: a subscription too. It must
/// not confirm what no standby has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_confirms_nothing_that_the_standbys_lack() {
    let mut pair = Pair::start().await;
    pair.failover = true;
    write_claims(&mut pair.sessions[0], [1, 2]).await;
    let move_id = pair.copy(0, &[RANGE]).await;
    let (source, target) = pair.ends(0);
    assert!(moves::observe(source).await.unwrap().slots[0].failover);

    let make_absent = format!("SELECT pg_create_physical_replication_slot('{ABSENT}')");
    run(&mut source.conn, make_absent).await;
    await_standby(&mut source.conn, ABSENT).await;
    let mut written = 2;
    let early = loop {
        written += 1;
        run(&mut source.conn, claim_at(written)).await;
        let position: String = sqlx::query_scalar("SELECT pg_current_wal_flush_lsn()::text")
            .fetch_one(&mut source.conn)
            .await
            .unwrap();
        tokio::time::sleep(A_WHILE).await;
        let early = (
            count_claims(target).await,
            is_confirmed(&mut source.conn, &position).await,
        );
        if early == (i64::from(written) - 1, false) || written == 2 + TRIES {
            break early;
        }
    };

    await_standby(&mut source.conn, "").await;
    run(&mut source.conn, format!("SELECT pg_drop_replication_slot('{ABSENT}')")).await;
    assert_eq!(
        early,
        (i64::from(written) - 1, false),
        "handed out, or confirmed, without the standby"
    );
    until_done(source, target, &batch(move_id, 0, 1 << 31)).await;
    assert_eq!(count_claims(target).await, i64::from(written));
    drop_replication(source, target, move_id).await;
    pair.finish(0, move_id).await;
    pair.assert_settled().await;
    pair.end().await;
}
