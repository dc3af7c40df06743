//! A subscription that outlived its move.

use std::time::Duration;

use ring::{Ordinal, Range};
use secrecy::ExposeSecret;

use super::pair::{Pair, batch, claim_at, count_claims, drop_replication, write_claims};
use crate::admin;
use crate::moves::{self, Aborted, CopyState, ShardSession};
use crate::tests::shards::run;

const RANGE: Range = Range { lo: 0, hi: 1 << 31 };

/// Waits until the subscription has met an error and switched itself off.
pub(super) async fn wait_until_stopped(target: &mut ShardSession) {
    let began = std::time::Instant::now();
    loop {
        let view = moves::observe(target).await.unwrap();
        let subscription = &view.subscriptions[0];
        // The server counts the error a moment later.
        if !subscription.enabled && subscription.errors > 0 {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "it was not refused");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_writes_only_where_its_range_is_being_imported() {
    let mut pair = Pair::start().await;
    write_claims(&mut pair.sessions[0], [1, 2]).await;
    let move_id = pair.copy(0, &[RANGE]).await;
    let (source, target) = pair.ends(0);
    let aborted = moves::abort_range(source, target, &batch(move_id, 0, 1 << 31))
        .await
        .unwrap();
    assert_eq!(aborted, Aborted::Undone);
    // The source owns the range and writes; the subscription has not been dropped yet.
    run(&mut source.conn, claim_at(3)).await;
    wait_until_stopped(target).await;
    assert_eq!(count_claims(target).await, 2, "what it had copied, and nothing since");
    pair.finish(0, move_id).await;
    pair.assert_settled().await;
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_takes_only_the_rows_of_its_move_and_its_marks() {
    let mut pair = Pair::start().await;
    write_claims(&mut pair.sessions[0], [1, 0x9000_0000]).await;
    let move_id = pair.copy(0, &[RANGE]).await;
    write_claims(&mut pair.sessions[0], [2, 0x9000_0001]).await;
    let (source, target) = pair.ends(0);
    run(
        &mut source.conn,
        "INSERT INTO ringwright.moves (move_id, source, target, lo, hi, attempt)
         VALUES ('11111111-2222-3333-4444-555555555555', 0, 5, 0, 5, 1)",
    )
    .await;
    super::pair::until_done(source, target, &batch(move_id, 0, 1 << 31)).await;
    assert_eq!(count_claims(target).await, 2);
    let marks: i64 = sqlx::query_scalar("SELECT count(*) FROM ringwright.moves")
        .fetch_one(&mut target.conn)
        .await
        .unwrap();
    assert_eq!(marks, 1);
    run(&mut source.conn, "DELETE FROM ringwright.moves WHERE target = 5").await;
    drop_replication(source, target, move_id).await;
    pair.finish(0, move_id).await;
    pair.assert_settled().await;
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_password_of_a_subscription_is_shown_to_nobody() {
    let mut pair = Pair::start().await;
    let move_id = pair.begin(0, &[RANGE]).await;
    let mut publisher = pair.publisher(0);
    publisher.password = "not-to-be-shown".to_owned().into();
    publisher.hosts = vec!["127.0.0.1:1".to_owned()];
    let target = &mut pair.sessions[1];
    let refused = moves::ensure_subscription(target, move_id, &publisher, false)
        .await
        .unwrap_err();
    let shown = format!("{refused:?} {}", refused.in_full());
    assert!(!shown.contains(publisher.password.expose_secret()), "{shown}");
    let settings: (String, String) =
        sqlx::query_as("SELECT current_setting('track_activities'), current_setting('log_min_error_statement')")
            .fetch_one(&mut target.conn)
            .await
            .unwrap();
    assert_eq!(
        settings,
        ("on".to_owned(), "error".to_owned()),
        "given back, after an error too"
    );
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_is_made_only_on_the_timeline_that_was_written_down() {
    let mut pair = Pair::start().await;
    let move_id = pair.begin(0, &[RANGE]).await;
    let source = &mut pair.sessions[0];
    moves::ensure_publication(source, move_id, &[RANGE]).await.unwrap();
    let term = moves::term(source).await.unwrap();
    let other = moves::Timeline(term.0 + 1);
    assert!(!moves::ensure_slot(source, move_id, other, false).await.unwrap());
    assert_eq!(moves::observe(source).await.unwrap().slots, []);
    for _ in 0..2 {
        assert!(moves::ensure_slot(source, move_id, term, false).await.unwrap());
    }
    moves::drop_move_slot(source, move_id).await.unwrap();
    moves::drop_move_slot(source, move_id).await.unwrap();
    assert_eq!(moves::observe(source).await.unwrap().slots, []);
    pair.end().await;
}

/// A worker that meets an error disables its subscription, in a transaction of its own: here a session does it, that
/// commits only when the operator waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_its_worker_changes_at_the_same_moment_is_dropped_all_the_same() {
    let mut pair = Pair::start().await;
    let move_id = pair.copy(0, &[RANGE]).await;
    let mut worker = pair.shards.superuser(Ordinal(1)).await;
    let mut onlooker = pair.shards.superuser(Ordinal(1)).await;
    let name = move_id.replication_name();
    run(
        &mut worker,
        format!("BEGIN; UPDATE pg_subscription SET subenabled = false WHERE subname = '{name}'"),
    )
    .await;
    let (_, target) = pair.ends(0);
    let operator = admin::backend(&mut target.conn).await.unwrap();
    let worker_commits = async {
        let began = std::time::Instant::now();
        while admin::blockers(&mut onlooker, operator).await.unwrap() != Some(1) {
            assert!(began.elapsed() < Duration::from_secs(60), "nobody waits for the worker");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        run(&mut worker, "COMMIT").await;
    };
    let (dropped, ()) = tokio::join!(moves::drop_subscription(target, move_id), worker_commits);
    dropped.unwrap();
    assert_eq!(moves::observe(target).await.unwrap().subscriptions, []);
    pair.end().await;
}

/// The server drops the slots of tables that are not copied yet itself, and takes it lightly when it cannot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_does_not_reach_its_source_any_more_leaves_no_slot_there() {
    // The first copy of a table with rows waits for this lock, without keeping the slots of others from being made.
    const HOLD: &str = "CREATE FUNCTION public.hold() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NEW; END$$;
        CREATE TRIGGER hold BEFORE INSERT ON ringwright.contact_claims FOR EACH ROW EXECUTE FUNCTION public.hold();
        ALTER TABLE ringwright.contact_claims ENABLE ALWAYS TRIGGER hold;
        SELECT pg_advisory_lock(1)";
    const WAITING: &str = "SELECT count(*) FROM pg_stat_activity WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid))";
    const LEFT: &str = "SELECT count(*) FROM pg_replication_slots
        WHERE database = current_database() AND slot_name ~ '^pg_[0-9]+_sync_'";
    let mut pair = Pair::start().await;
    write_claims(&mut pair.sessions[0], [1]).await;
    let mut holder = pair.shards.superuser(Ordinal(1)).await;
    run(&mut holder, HOLD).await;
    let move_id = pair.begin(0, &[RANGE]).await;
    pair.subscribe(0, move_id, &[RANGE]).await;
    let (source, target) = pair.ends(0);
    let began = std::time::Instant::now();
    while sqlx::query_scalar::<_, i64>(WAITING)
        .fetch_one(&mut holder)
        .await
        .unwrap()
        == 0
    {
        assert!(began.elapsed() < Duration::from_secs(60), "nothing is copied");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    run(
        &mut target.conn,
        format!(
            "ALTER SUBSCRIPTION {} CONNECTION 'host=127.0.0.1 port=1'",
            move_id.replication_name()
        ),
    )
    .await;
    // An operator that dies here leaves it to the next.
    moves::drop_subscription(target, move_id).await.unwrap();
    let left: i64 = sqlx::query_scalar(LEFT).fetch_one(&mut source.conn).await.unwrap();
    assert!(left > 0, "the server left none");
    let ours = batch(move_id, RANGE.lo, RANGE.hi);
    let aborted = moves::abort_range(source, target, &ours).await.unwrap();
    assert_eq!(aborted, Aborted::Undone);
    drop_replication(source, target, move_id).await;
    let remnants = moves::remnants(source).await.unwrap();
    assert_eq!(remnants.iter().find(|one| one.kind == "slot"), None);
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_lost_its_connection_is_switched_on_again_and_misses_nothing() {
    let mut pair = Pair::start().await;
    write_claims(&mut pair.sessions[0], [1]).await;
    let move_id = pair.copy(0, &[RANGE]).await;
    let (source, target) = pair.ends(0);
    assert!(!moves::resume_copy(target, move_id).await.unwrap(), "it runs");
    let sender = format!(
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{}'",
        move_id.replication_name()
    );
    run(&mut source.conn, sender).await;
    wait_until_stopped(target).await;
    run(&mut source.conn, claim_at(2)).await;
    assert!(moves::resume_copy(target, move_id).await.unwrap());
    assert_eq!(moves::copies(target).await.unwrap()[0].resumes, 1);
    pair.hand_over(0, &batch(move_id, 0, 1 << 31)).await;
    let (_, target) = pair.ends(0);
    assert_eq!(count_claims(target).await, 2);
    assert_eq!(
        moves::copies(target).await.unwrap()[0].resumes,
        0,
        "it has shown that it works"
    );
    pair.finish(0, move_id).await;
    pair.assert_settled().await;
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_that_does_not_pass_is_met_again_counted_and_waited_for_longer() {
    let mut pair = Pair::start().await;
    let move_id = pair.copy(0, &[RANGE]).await;
    let (source, target) = pair.ends(0);
    // The same row is there already: a conflict.
    let row = claim_at(7);
    let there = format!("SET session_replication_role = replica; {row}; RESET session_replication_role");
    run(&mut target.conn, there).await;
    run(&mut source.conn, row).await;
    wait_until_stopped(target).await;
    assert!(moves::resume_copy(target, move_id).await.unwrap());
    wait_until_stopped(target).await;
    let last_time = |when: &str| format!("UPDATE ringwright.copies SET resumed_at = {when}");
    run(&mut target.conn, last_time("clock_timestamp()")).await;
    assert!(!moves::resume_copy(target, move_id).await.unwrap(), "a moment ago");
    run(&mut target.conn, last_time("clock_timestamp() - interval '2 s'")).await;
    assert!(moves::resume_copy(target, move_id).await.unwrap());
    wait_until_stopped(target).await;
    assert_eq!(moves::copies(target).await.unwrap()[0].resumes, 2);
    moves::set_copy_state(target, move_id, CopyState::Aborting, Some("a test"))
        .await
        .unwrap();
    run(&mut target.conn, last_time("NULL")).await;
    assert!(
        !moves::resume_copy(target, move_id).await.unwrap(),
        "what is being undone stays off"
    );
    pair.end().await;
}
