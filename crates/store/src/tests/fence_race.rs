//! Writers against a freezer: after a freeze, nothing is written in the range until it thaws.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use row_id::{EventId, Position};
use sqlx::{AssertSqlSafe, PgConnection};

use super::fence::{Shard, connect, insert};
use super::shards::{run, superuser};
use crate::admin::Role;

const BOOK: &str = "INSERT INTO ringwright.range_owners (lo, hi, generation, state) VALUES
    (0, 2147483648, 1, 'owned'), (2147483648, 4294967296, 1, 'owned')";

const FREEZE: &str = "BEGIN; SELECT pg_advisory_xact_lock(range_id) FROM ringwright.range_owners WHERE lo = 0;
    UPDATE ringwright.range_owners SET state = 'frozen', target = 1 WHERE lo = 0; COMMIT";

const THAW: &str = "BEGIN; SELECT pg_advisory_xact_lock(range_id) FROM ringwright.range_owners WHERE lo = 0;
    UPDATE ringwright.range_owners SET state = 'owned', target = NULL WHERE lo = 0; COMMIT";

/// A split takes the parent's lock exclusively and gives the positions to two new ranges, one of them frozen.
const SPLIT: &str = "BEGIN; SELECT pg_advisory_xact_lock(range_id) FROM ringwright.range_owners WHERE lo = 0;
    DELETE FROM ringwright.range_owners WHERE lo = 0;
    INSERT INTO ringwright.range_owners (lo, hi, generation, state, target) VALUES
        (0, 1073741824, 1, 'frozen', 1), (1073741824, 2147483648, 1, 'frozen', 1); COMMIT";

const MERGE: &str =
    "BEGIN; SELECT pg_advisory_xact_lock(range_id) FROM ringwright.range_owners WHERE lo < 2147483648 ORDER BY lo;
    DELETE FROM ringwright.range_owners WHERE lo < 2147483648;
    INSERT INTO ringwright.range_owners (lo, hi, generation, state) VALUES (0, 2147483648, 1, 'owned'); COMMIT";

/// What a freeze guards: every row of the range, and every version of it.
const FINGERPRINT: &str =
    "SELECT count(*)::text || ' ' || coalesce(sum(hashtextextended(xmin::text || claim_id::text, 0)), 0)::text
    FROM ringwright.contact_claims WHERE claim_id < '80000000-0000-0000-0000-000000000000'";

/// The fence with one statement for the lock and the state: the state is that of before the wait.
const ONE_STATEMENT: &str = "CREATE OR REPLACE FUNCTION ringwright.fence_contact_claims() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    DECLARE key uuid; now_state text; taken text;
    BEGIN
        key := CASE WHEN TG_OP = 'DELETE' THEN OLD.claim_id ELSE NEW.claim_id END;
        SELECT r.state, pg_advisory_xact_lock_shared(r.range_id)::text INTO now_state, taken
            FROM (SELECT * FROM ringwright.range_owners WHERE lo_id <= key ORDER BY lo_id DESC LIMIT 1) r;
        IF now_state <> 'owned' THEN
            PERFORM ringwright.refuse_write(key, TG_OP);
        END IF;
        IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
        RETURN NEW;
    END $$";

/// A race goes on at least this long: enough for hundreds of freezes.
const RACE: Duration = Duration::from_secs(4);
/// A busy machine gets longer, to freeze this often.
const FEWEST_FREEZES: u64 = 100;
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Tally {
    written: AtomicU64,
    refused: AtomicU64,
    misled: AtomicU64,
}

/// One transaction of a kind that differs from round to round.
fn transaction(round: u64) -> String {
    let low = EventId::generate(Position::new(rand::random_range(0..0x8000_0000))).uuid();
    let high = EventId::generate(Position::new(rand::random_range(0x8000_0000..=u32::MAX))).uuid();
    let some = format!(
        "(SELECT claim_id FROM ringwright.contact_claims ORDER BY claim_id LIMIT 1 OFFSET {})",
        round % 5
    );
    match round % 6 {
        0 => insert(low),
        1 => format!("{} ON CONFLICT (claim_id) DO UPDATE SET updated_at = clock_timestamp()", insert(low)),
        2 => format!("UPDATE ringwright.contact_claims SET updated_at = clock_timestamp() WHERE claim_id = {some}"),
        3 => format!("DELETE FROM ringwright.contact_claims WHERE claim_id = {some}"),
        4 => format!(
            "WITH touched AS (UPDATE ringwright.contact_claims SET updated_at = clock_timestamp() WHERE claim_id = {some}
                 RETURNING 1) {}",
            insert(low)
        ),
        _ => format!("BEGIN; {}; {}; COMMIT", insert(low), insert(high)),
    }
}

async fn write_until(stop: Arc<AtomicBool>, tally: Arc<Tally>, database: String, mut round: u64) {
    let mut conn = connect(&database, Role::App).await;
    while !stop.load(Ordering::SeqCst) {
        round += 1;
        match sqlx::raw_sql(AssertSqlSafe(transaction(round)))
            .execute(&mut conn)
            .await
        {
            Ok(_) => {
                tally.written.fetch_add(1, Ordering::SeqCst);
            }
            Err(error) => {
                let code = error.as_database_error().unwrap().code().unwrap().into_owned();
                // Two writers of one row may deadlock or meet. The broken fence can find that what it saw frozen has
                // thawed, which it calls SR001. Everything else must be the freeze.
                assert!(["SR001", "SR002", "40P01", "23505"].contains(&code.as_str()), "{error}");
                tally.refused.fetch_add(1, Ordering::SeqCst);
                tally.misled.fetch_add(u64::from(code == "SR001"), Ordering::SeqCst);
                sqlx::raw_sql("ROLLBACK").execute(&mut conn).await.unwrap();
            }
        }
    }
}

async fn fingerprint(conn: &mut PgConnection) -> String {
    sqlx::query_scalar(FINGERPRINT).fetch_one(conn).await.unwrap()
}

/// Freezes and thaws until the time is over or a write slipped through; tells how often it froze and what slipped.
async fn race(mutation: Option<&str>, freeze: &str, thaw: &str) -> (u64, u64) {
    let mut shard = Shard::start(BOOK).await;
    if let Some(mutation) = mutation {
        run(&mut shard.superuser, mutation).await;
    }
    for _ in 0..20 {
        run(
            &mut shard.app,
            insert(EventId::generate(Position::new(rand::random_range(0..0x8000_0000))).uuid()),
        )
        .await;
    }
    let (stop, tally) = (Arc::new(AtomicBool::new(false)), Arc::new(Tally::default()));
    let writers: Vec<_> = (0..6)
        .map(|writer| {
            tokio::spawn(write_until(
                Arc::clone(&stop),
                Arc::clone(&tally),
                shard.name.clone(),
                writer * 7,
            ))
        })
        .collect();
    let mut observer = superuser(&shard.name).await;
    let (mut freezes, mut slipped) = (0, 0);
    let start = Instant::now();
    while slipped == 0 && (freezes < FEWEST_FREEZES || start.elapsed() < RACE) && start.elapsed() < PATIENCE {
        run(&mut shard.superuser, freeze).await;
        freezes += 1;
        let before = fingerprint(&mut observer).await;
        // Long enough for a writer that was waiting for the lock to finish.
        tokio::time::sleep(Duration::from_millis(5)).await;
        slipped += u64::from(fingerprint(&mut observer).await != before);
        run(&mut shard.superuser, thaw).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    stop.store(true, Ordering::SeqCst);
    for writer in writers {
        writer.await.unwrap();
    }
    let (written, refused) = (
        tally.written.load(Ordering::SeqCst),
        tally.refused.load(Ordering::SeqCst),
    );
    assert!(
        slipped > 0 || written > 100 && refused > 0,
        "nothing raced: {written} written, {refused} refused"
    );
    assert!(
        mutation.is_some() || tally.misled.load(Ordering::SeqCst) == 0,
        "told to go elsewhere by an owner"
    );
    shard.end().await;
    (freezes, slipped)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_slips_through_a_freeze() {
    let (freezes, slipped) = race(None, FREEZE, THAW).await;
    assert!(freezes >= FEWEST_FREEZES, "only {freezes} freezes");
    assert_eq!(slipped, 0, "of {freezes} freezes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_slips_through_a_split_and_a_merge() {
    let (freezes, slipped) = race(None, SPLIT, MERGE).await;
    assert!(freezes >= FEWEST_FREEZES, "only {freezes} freezes");
    assert_eq!(slipped, 0, "of {freezes} splits");
}

/// The race above proves something only if it catches a fence that is broken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_race_catches_a_fence_of_one_statement() {
    let (freezes, slipped) = race(Some(ONE_STATEMENT), FREEZE, THAW).await;
    assert_eq!(slipped, 1, "of {freezes} freezes");
}

/// The same without chance: a freezer holds the lock, a writer comes, the freezer commits.
#[tokio::test]
async fn a_writer_that_waited_for_the_freezer_sees_the_freeze() {
    for (mutation, outcome) in [(None, "SR002"), (Some(ONE_STATEMENT), "accepted")] {
        let mut shard = Shard::start(BOOK).await;
        if let Some(mutation) = mutation {
            run(&mut shard.superuser, mutation).await;
        }
        let (open, close) = FREEZE.split_once("; COMMIT").map(|(open, _)| (open, "COMMIT")).unwrap();
        run(&mut shard.superuser, open).await;
        let mut writer = connect(&shard.name, Role::App).await;
        let id = EventId::generate(Position::new(5)).uuid();
        let writing = tokio::spawn(async move { super::shards::refusal(&mut writer, insert(id)).await });
        let mut observer = superuser(&shard.name).await;
        let waiting = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
            WHERE l.locktype = 'advisory' AND NOT l.granted AND d.datname = current_database()";
        while sqlx::query_scalar::<_, i64>(waiting)
            .fetch_one(&mut observer)
            .await
            .unwrap()
            == 0
        {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        run(&mut shard.superuser, close).await;
        assert_eq!(writing.await.unwrap(), outcome);
        drop(observer);
        shard.end().await;
    }
}
