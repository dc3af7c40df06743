//! Redirects, freezes, lost answers and absent masters, as the store meets them.

use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use ring::{Generation, Ordinal, Tokens};
use row_id::UserId;

use super::orders::{new_order, order_of, place, place_by, render_order};
use super::shards::{Shards, eventually, key, new_user, render_user};
use crate::admin::Role;
use crate::orders::OrderStatus;
use crate::store::MemberRole;
use crate::{BasedOn, ReadAt, StoreError};

const ALL: u64 = 1 << 32;

/// Two shards, of which shard 0 owned everything and gave it to shard 1, which the ring does not know yet.
async fn moved() -> Shards {
    let shards = Shards::start(2).await;
    let everything = Tokens::from_ranges([(ring::Range { lo: 0, hi: ALL }, Ordinal(0))]).unwrap();
    shards.publish(everything);
    let target = shards.host(1);
    shards
        .execute(
            Ordinal(0),
            format!(
                "DELETE FROM ringwright.range_owners;
                 INSERT INTO ringwright.range_owners (lo, hi, generation, state, target, target_hosts)
                 VALUES (0, {ALL}, 1, 'moved', 1, '{target}')"
            ),
        )
        .await;
    shards
        .execute(
            Ordinal(1),
            format!(
                "DELETE FROM ringwright.range_owners;
                 INSERT INTO ringwright.range_owners (lo, hi, generation, state) VALUES (0, {ALL}, 2, 'owned')"
            ),
        )
        .await;
    shards
}

#[tokio::test]
async fn writes_and_reads_follow_a_move_that_the_ring_does_not_tell_yet() {
    let shards = moved().await;
    let user = shards.create_user().await;
    let written = place_by(&shards, &key(), user).await;
    assert_eq!(
        (written.token.shard, written.token.generation),
        (Ordinal(1), Generation(2))
    );
    let read = shards
        .store
        .get_order(order_of(&written), &ReadAt::default())
        .await
        .unwrap();
    assert_eq!((read.value.is_some(), read.token.shard), (true, Ordinal(1)));
    let missing = row_id::OrderId::generate(user.position());
    let absent = shards
        .store
        .set_order_status(key(), missing, OrderStatus::Processed, BasedOn::Any, render_order)
        .await;
    assert!(
        matches!(absent, Err(StoreError::OrderNotFound(_))),
        "absence is asked where the range is: {absent:?}"
    );
    let many = shards
        .store
        .get_users(&[user, UserId::generate()], &ReadAt::default())
        .await;
    assert!(many[0].as_ref().unwrap().value.is_some() && many[1].as_ref().unwrap().value.is_none());
    assert_eq!(
        shards
            .scalar::<i64>(Ordinal(0), "SELECT count(*) FROM shop.users")
            .await,
        0
    );
    assert!(shards.counted("redirects_total") > 0);
    shards.end().await;
}

/// A program with an old ring asks a shard whose book names another that has given the range away since, and left.
#[tokio::test]
async fn a_redirect_to_a_shard_that_has_left_is_given_up_for_a_newer_ring() {
    let shards = moved().await;
    let user = shards.create_user().await;
    let order = place(&shards, user).await;
    shards
        .execute(
            Ordinal(0),
            "UPDATE ringwright.range_owners SET state = 'cleaned', target = 7, target_hosts = '127.0.0.1:1'",
        )
        .await;
    // The redirect that was learned above is forgotten with the ring.
    shards.publish(owned_by(0));
    let tell = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        shards.publish(owned_by(1));
    };
    let strong = ReadAt::strong();
    let (written, read, ()) = tokio::join!(
        shards.store.create_order(key(), new_order(user), render_order),
        shards.store.get_order(order, &strong),
        tell
    );
    assert_eq!(written.unwrap().token.shard, Ordinal(1));
    assert!(read.unwrap().value.is_some());
    shards.end().await;
}

/// A shard gave its last range away, and is gone. The ring that tells of it comes while callers wait for it.
#[tokio::test]
async fn who_waits_for_a_shard_that_has_left_follows_a_newer_ring() {
    let shards = moved().await;
    let user = shards.create_user().await;
    let order = place(&shards, user).await;
    shards.proxies[0].refuse(true);
    // One that has not been redirected yet.
    let (store, _credentials) = shards.other_store(Role::App);
    let tell = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        shards.publish(owned_by(1));
    };
    let (at, users) = (ReadAt::default(), [user]);
    let (written, read, many, ()) = tokio::join!(
        store.create_order(key(), new_order(user), render_order),
        store.get_order(order, &at),
        store.get_users(&users, &at),
        tell
    );
    assert_eq!(written.unwrap().token.shard, Ordinal(1));
    assert!(read.unwrap().value.is_some());
    assert!(many[0].as_ref().unwrap().value.is_some());
    shards.end().await;
}

fn owned_by(shard: u16) -> Tokens {
    Tokens::from_ranges([(ring::Range { lo: 0, hi: ALL }, Ordinal(shard))]).unwrap()
}

#[tokio::test]
async fn between_commit_point_and_activation_writes_wait_for_the_target() {
    let shards = moved().await;
    let user = shards.create_user().await;
    let source = shards.host(0);
    shards
        .execute(
            Ordinal(1),
            format!("UPDATE ringwright.range_owners SET state = 'importing', generation = 1, target = 0, target_hosts = '{source}'"),
        )
        .await;
    let activate = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let sql = "UPDATE ringwright.range_owners SET state = 'owned', generation = 2, target = NULL";
        shards.execute(Ordinal(1), sql).await;
    };
    let began = Instant::now();
    let (placed, ()) = tokio::join!(
        shards.store.create_order(key(), new_order(user), render_order),
        activate
    );
    assert_eq!(placed.unwrap().token.shard, Ordinal(1));
    assert!(began.elapsed() >= Duration::from_millis(200));
    shards.end().await;
}

#[tokio::test]
async fn a_frozen_range_delays_writes_and_not_the_masters_reads() {
    let shards = Shards::start(1).await;
    let user = shards.create_user().await;
    let order = place(&shards, user).await;
    shards
        .execute(
            Ordinal(0),
            "UPDATE ringwright.range_owners SET state = 'frozen', target = 1",
        )
        .await;
    assert!(shards.has_order(order).await);
    let all = &shards;
    let thaw = async {
        eventually("the write meets the freeze", || async move {
            all.counted("frozen_retries_total") > 0
        })
        .await;
        assert_eq!(shards.total("SELECT count(*) FROM shop.orders").await, 1, "it waits");
        shards
            .execute(
                Ordinal(0),
                "UPDATE ringwright.range_owners SET state = 'owned', target = NULL",
            )
            .await;
    };
    let (placed, ()) = tokio::join!(shards.store.create_order(key(), new_order(user), render_order), thaw);
    placed.unwrap();
    assert_eq!(shards.counted("reads_total{role=\"master\"}"), 1);
    shards.end().await;
}

#[tokio::test]
async fn a_range_that_nobody_owns_is_unavailable_after_the_deadline() {
    let shards = Shards::with(1, |config| config.write_deadline = Duration::from_secs(2)).await;
    let user = shards.create_user().await;
    shards.execute(Ordinal(0), "DELETE FROM ringwright.range_owners").await;
    let refused = shards.store.create_order(key(), new_order(user), render_order).await;
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
    assert!(refused.unwrap_err().retry_after().is_some());
    shards.end().await;
}

#[tokio::test]
async fn a_new_ring_is_followed() {
    let shards = Shards::start(2).await;
    let user = shards.create_user().await;
    let (from, to) = match shards.owner(user.position()) {
        Ordinal(0) => (Ordinal(0), Ordinal(1)),
        _ => (Ordinal(1), Ordinal(0)),
    };
    // The whole of it changes hands, rows included.
    let rows: String = shards
        .scalar(
            from,
            &format!("SELECT row_to_json(u)::text FROM shop.users u WHERE user_id = '{user}'"),
        )
        .await;
    for (shard, state) in [(from, "'moved'"), (to, "'owned'")] {
        let target = if shard == from {
            to.0.to_string()
        } else {
            "NULL".to_owned()
        };
        let sql = format!(
            "DELETE FROM ringwright.range_owners;
             INSERT INTO ringwright.range_owners (lo, hi, generation, state, target)
             VALUES (0, {ALL}, 2, {state}, {target})"
        );
        shards.execute(shard, sql).await;
    }
    shards
        .execute(
            to,
            format!(
                "INSERT INTO shop.users SELECT * FROM json_populate_record(NULL::shop.users, '{}')",
                rows.replace('\'', "''")
            ),
        )
        .await;
    shards.publish(Tokens::from_ranges([(ring::Range { lo: 0, hi: ALL }, to)]).unwrap());
    let read = shards.store.get_user(user, &ReadAt::default()).await.unwrap();
    assert_eq!((read.token.shard, read.value.is_some()), (to, true));
    shards.end().await;
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_settled_by_its_key() {
    let shards = Shards::start(1).await;
    let user = shards.create_user().await;
    for lost_before_the_server in [false, true] {
        let orders = shards.total("SELECT count(*) FROM shop.orders").await;
        if lost_before_the_server {
            shards.proxies[0].lose_commits(1);
        } else {
            shards.proxies[0].cut_answers_of_commits(1);
        }
        let settled = place_by(&shards, &key(), user).await;
        assert_eq!(
            settled.repeated, !lost_before_the_server,
            "the first run did it, if it did"
        );
        assert_eq!(shards.total("SELECT count(*) FROM shop.orders").await, orders + 1);
        let order = order_of(&settled);
        assert!(shards.has_order(order).await);
    }
    assert_eq!(shards.counted("unknown_commits_total{end=\"settled\"}"), 2);
    assert_eq!(shards.counted("unknown_commits_total{end=\"open\"}"), 0);
    shards.end().await;
}

#[tokio::test]
async fn a_commit_of_unknown_outcome_stays_unknown_when_its_repetition_fails() {
    let shards = Shards::start(1).await;
    let user = shards.create_user().await;
    let refuse_the_second = "CREATE SEQUENCE public.runs;
        CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
        BEGIN
            IF nextval('public.runs') > 1 THEN
                RAISE EXCEPTION 'out of order';
            END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON shop.orders FOR EACH ROW EXECUTE FUNCTION public.refuse()";
    shards.execute(Ordinal(0), refuse_the_second).await;
    shards.proxies[0].lose_commits(1);
    let unknown = shards.store.create_order(key(), new_order(user), render_order).await;
    assert!(matches!(unknown, Err(StoreError::OutcomeUnknown { .. })), "{unknown:?}");
    assert_eq!(shards.counted("unknown_commits_total{end=\"open\"}"), 1);
    shards.end().await;
}

#[tokio::test]
async fn creating_a_user_survives_lost_answers_at_every_step() {
    let shards = Shards::start(1).await;
    for cut in 1..=7 {
        shards.proxies[0].cut_answers_of_commits(cut);
        let new = new_user();
        let written = shards.store.create_user(key(), new.clone(), render_user).await.unwrap();
        let count = format!(
            "SELECT count(*) FROM shop.users WHERE email_address = '{}'",
            new.email_address
        );
        assert_eq!(shards.total(&count).await, 1, "{written:?}");
    }
    shards.proxies[0].cut_answers_of_commits(0);
    assert_eq!(
        shards
            .total("SELECT count(*) FROM ringwright.contact_claims WHERE state = 'held'")
            .await,
        14
    );
    shards.end().await;
}

/// A cancelled wait for the standby answers COMMIT with success and a warning. A trigger that warns when the
/// transaction commits is heard the same way: this one at the first order's.
const WARN_ONCE: &str = "CREATE SEQUENCE public.commits;
    CREATE FUNCTION public.warn() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN
        IF nextval('public.commits') = 1 THEN
            RAISE WARNING 'canceling wait for synchronous replication due to user request';
        END IF;
        RETURN NULL;
    END $$;
    CREATE CONSTRAINT TRIGGER warn AFTER INSERT ON shop.orders DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION public.warn()";

#[tokio::test]
async fn a_commit_answered_with_a_warning_does_not_count() {
    let shards = Shards::start(1).await;
    let user = shards.create_user().await;
    shards.execute(Ordinal(0), WARN_ONCE).await;
    let settled = place_by(&shards, &key(), user).await;
    assert!(
        settled.repeated,
        "the warned commit was not believed, and settled by its key"
    );
    let quiet = place_by(&shards, &key(), user).await;
    assert!(!quiet.repeated, "a commit without a warning counts");
    assert_eq!(shards.total("SELECT count(*) FROM shop.orders").await, 2);
    shards.end().await;
}

#[tokio::test]
async fn a_try_that_fails_after_a_commit_of_unknown_outcome_leaves_it_unknown() {
    let shards = Shards::start(1).await;
    let user = shards.create_user().await;
    shards.execute(Ordinal(0), WARN_ONCE).await;
    let refuse_the_second = "CREATE SEQUENCE public.tries;
        CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
        BEGIN
            IF nextval('public.tries') = 2 THEN
                RAISE 'the disk is full';
            END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON ringwright.idempotency_keys
            FOR EACH ROW EXECUTE FUNCTION public.refuse()";
    shards.execute(Ordinal(0), refuse_the_second).await;
    let key = key();
    let place = || shards.store.create_order(key.clone(), new_order(user), render_order);
    let unknown = place().await;
    assert!(matches!(unknown, Err(StoreError::OutcomeUnknown { .. })), "{unknown:?}");
    assert!(place().await.unwrap().repeated, "the first try had placed the order");
    assert_eq!(shards.total("SELECT count(*) FROM shop.orders").await, 1);
    shards.end().await;
}

#[tokio::test]
async fn a_dropped_request_is_finished_all_the_same() {
    let shards = Shards::start(1).await;
    let user = shards.create_user().await;
    let store = shards.store.clone();
    let dropped = tokio::time::timeout(
        Duration::from_micros(1),
        store.create_order(key(), new_order(user), render_order),
    );
    assert!(dropped.await.is_err());
    let all = &shards;
    eventually("the order is there", || async move {
        all.total("SELECT count(*) FROM shop.orders").await == 1
    })
    .await;
    shards.end().await;
}

#[tokio::test]
async fn while_a_master_is_away_writes_wait_and_go_on_when_it_is_back() {
    let shards = Shards::start(1).await;
    let user = shards.create_user().await;
    shards.proxies[0].refuse(true);
    let back = async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        shards.proxies[0].refuse(false);
    };
    let (placed, ()) = tokio::join!(shards.store.create_order(key(), new_order(user), render_order), back);
    placed.unwrap();
    assert!(shards.store.health()[0].has_master());

    shards.proxies[0].refuse(true);
    let shards_ref = &shards;
    eventually("the monitors see it", || async move {
        shards_ref.store.health()[0].members[0].role == MemberRole::Unreachable
    })
    .await;
    shards.end().await;
}

#[tokio::test]
async fn without_a_master_both_end_in_unavailable_within_their_deadlines() {
    let shards = Shards::with(1, |config| {
        config.write_deadline = Duration::from_secs(2);
        config.read_deadline = Duration::from_secs(1);
    })
    .await;
    let user = shards.create_user().await;
    shards.proxies[0].refuse(true);
    let began = Instant::now();
    let at = ReadAt::default();
    let (write, read) = tokio::join!(
        shards.store.create_order(key(), new_order(user), render_order),
        shards.store.get_user(user, &at),
    );
    assert!(matches!(write, Err(StoreError::Unavailable { .. })), "{write:?}");
    assert!(matches!(read, Err(StoreError::Unavailable { .. })), "{read:?}");
    assert!(began.elapsed() < Duration::from_secs(30));
    shards.end().await;
}

#[tokio::test]
async fn who_waits_for_a_master_that_lets_nobody_in_does_not_ask_again_and_again() {
    let shards = Shards::with(1, |config| config.write_deadline = Duration::from_secs(4)).await;
    let shards_ref = &shards;
    eventually("the master is seen", || async move {
        shards_ref.store.health()[0].has_master()
    })
    .await;
    // The connection by which the monitor looks stays.
    let limit = format!("ALTER DATABASE {} CONNECTION LIMIT 0", shards.database(0));
    shards.execute(Ordinal(0), limit).await;
    let before = shards.proxies[0].accepted();
    let refused = shards.store.create_user(key(), new_user(), render_user).await;
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
    let tries = shards.proxies[0].accepted() - before;
    assert!((1..50).contains(&tries), "{tries} logins in 4 s");
    shards.end().await;
}

#[tokio::test]
async fn a_server_that_takes_no_writes_is_not_written_to_and_not_blamed_on_the_caller() {
    let shards = Shards::with(1, |config| config.write_deadline = Duration::from_secs(2)).await;
    let user = shards.create_user().await;
    let database: String = shards.scalar(Ordinal(0), "SELECT current_database()::text").await;
    shards
        .execute(
            Ordinal(0),
            format!("ALTER DATABASE {database} SET default_transaction_read_only = on"),
        )
        .await;
    shards.proxies[0].refuse(true);
    shards.proxies[0].refuse(false);
    let refused = shards.store.create_order(key(), new_order(user), render_order).await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable { .. })),
        "25006 is the shard's state: {refused:?}"
    );
    shards.end().await;
}

#[tokio::test]
async fn credentials_are_read_again_when_a_login_is_refused() {
    let shards = Shards::with(1, |config| {
        // Nothing there yet: as when the Secret is mounted later than the program starts.
        std::fs::rename(
            config.credentials_dir.join("username"),
            config.credentials_dir.join("later"),
        )
        .unwrap();
        let directory = config.credentials_dir.clone();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            std::fs::rename(directory.join("later"), directory.join("username")).unwrap();
        });
    })
    .await;
    shards.create_user().await;
    shards.end().await;
}

#[tokio::test]
async fn past_its_connections_and_queue_a_member_is_unavailable_at_once() {
    let shards = Shards::with(1, |config| {
        config.pool.connections = 1;
        config.pool.acquire_timeout = Duration::from_millis(100);
    })
    .await;
    let user = shards.create_user().await;
    let mut blocker = shards.superuser(Ordinal(0)).await;
    super::shards::run(&mut blocker, "BEGIN; LOCK TABLE shop.orders IN ACCESS EXCLUSIVE MODE").await;
    let began = Instant::now();
    let crowd = (0..30).map(|_| shards.store.create_order(key(), new_order(user), render_order));
    let crowd = futures::future::join_all(crowd);
    let release = async {
        tokio::time::sleep(Duration::from_millis(600)).await;
        super::shards::run(&mut blocker, "ROLLBACK").await;
        began.elapsed()
    };
    let (outcomes, _) = tokio::join!(crowd, release);
    let unavailable = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Err(StoreError::Unavailable { .. })))
        .count();
    assert!(unavailable >= 20, "{unavailable}");
    assert!(outcomes.iter().any(Result::is_ok));
    assert_eq!(
        shards.counted("pool_refusals_total{pool=\"write\"}"),
        unavailable as u64
    );
    assert!(shards.counted("pool_waits_total{pool=\"write\"}") >= 16);
    drop(blocker);
    shards.end().await;
}

#[tokio::test]
async fn reads_past_the_connections_and_queue_are_refused_and_do_not_queue_again() {
    let shards = Shards::with(1, |config| {
        config.pool.connections = 1;
        config.pool.acquire_timeout = Duration::from_millis(100);
        config.read_deadline = Duration::from_secs(60);
    })
    .await;
    let user = shards.create_user().await;
    let mut blocker = shards.superuser(Ordinal(0)).await;
    super::shards::run(&mut blocker, "BEGIN; LOCK TABLE shop.users IN ACCESS EXCLUSIVE MODE").await;
    let at = ReadAt::default();
    let mut reads: FuturesUnordered<_> = (0..30).map(|_| shards.store.get_user(user, &at)).collect();
    let is_full = |outcome: &Result<_, StoreError>| {
        // Long before the deadline, until which the one that has the connection waits for the lock.
        matches!(outcome, Err(StoreError::Unavailable { waited, .. }) if *waited < Duration::from_secs(30))
    };
    for _ in 0..29 {
        let refused = reads.next().await.unwrap();
        assert!(is_full(&refused), "{refused:?}");
    }
    for refused in shards.store.get_users(&[user, UserId::generate()], &at).await {
        assert!(is_full(&refused), "{refused:?}");
    }
    super::shards::run(&mut blocker, "ROLLBACK").await;
    assert!(reads.next().await.unwrap().unwrap().value.is_some());
    drop((reads, blocker));
    shards.end().await;
}
