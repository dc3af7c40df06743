//! What each step refuses.

use std::time::Duration;

use ring::{Generation, Ordinal, Range};

use super::pair::{
    Pair, batch, book, claim_at, clean, count_claims, drop_replication, new_move, row_at, until_done, write_claims,
};
use crate::moves::{self, Attempt, CopyState, ImportRange, MoveError, MoveId, RangeState, ShardSession};
use crate::tests::shards::{refusal, run};

const HALF: u64 = 1 << 31;
const ALL: u64 = 1 << 32;

fn import(lo: u64, hi: u64, generation: i64) -> ImportRange {
    ImportRange {
        range: Range { lo, hi },
        generation: Generation(generation),
        attempt: Attempt(0),
    }
}

async fn begin(target: &mut ShardSession, move_id: MoveId, imports: &[ImportRange]) -> Result<(), MoveError> {
    moves::begin_import(target, move_id, Ordinal(0), &["h:1".to_owned()], imports).await
}

fn is_refused<T: std::fmt::Debug>(outcome: &Result<T, MoveError>) -> bool {
    matches!(outcome, Err(MoveError::Refused { .. }))
}

/// A move of [0, 2^31) whose publication is there, so that it can be frozen; nothing is copied.
async fn published(pair: &mut Pair) -> MoveId {
    let range = Range { lo: 0, hi: HALF };
    let move_id = pair.begin(0, &[range]).await;
    moves::ensure_publication(&mut pair.sessions[0], move_id, &[range])
        .await
        .unwrap();
    move_id
}

async fn freeze(pair: &mut Pair, move_id: MoveId, pause: Duration) -> Attempt {
    let hosts = pair.sessions[1].hosts.clone();
    moves::freeze(
        &mut pair.sessions[0],
        &batch(move_id, 0, HALF),
        Ordinal(1),
        &hosts,
        pause,
    )
    .await
    .unwrap()
    .attempt
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_range_is_imported_only_where_it_is_empty_and_all_of_a_move_or_nothing() {
    let mut pair = Pair::start().await;
    let target = &mut pair.sessions[1];
    run(
        &mut target.conn,
        "INSERT INTO ringwright.range_owners (lo, hi, generation, state, target) VALUES
            (0, 1000, 5, 'cleaned', 0), (1000, 2000, 5, 'owned', NULL), (2000, 3000, 5, 'moved', 0);
         ALTER TABLE ringwright.contact_claims DISABLE TRIGGER ringwright_fence",
    )
    .await;
    write_claims(target, [9_000]).await;
    run(
        &mut target.conn,
        "ALTER TABLE ringwright.contact_claims ENABLE TRIGGER ringwright_fence",
    )
    .await;
    for (lo, hi, generation) in [
        (500, 1001, 6),
        (1500, 1600, 6),
        (2500, 2600, 6),
        (8_000, 10_000, 6),
        (0, 500, 4),
    ] {
        let fine = import(100_000, 200_000, 1);
        let outcome = begin(target, new_move(), &[fine, import(lo, hi, generation)]).await;
        assert!(is_refused(&outcome), "[{lo}, {hi}) of {generation}: {outcome:?}");
    }
    assert_eq!(book(target).await.len(), 3, "nothing was left of what was refused");
    assert_eq!(moves::copies(target).await.unwrap(), []);

    let move_id = new_move();
    for _ in 0..2 {
        begin(target, move_id, &[import(200, 300, 6), import(9_001, 9_002, 1)])
            .await
            .unwrap();
    }
    let rows: Vec<_> = book(target)
        .await
        .into_iter()
        .map(|row| (row.range.lo, row.range.hi, row.state, row.generation.0))
        .collect();
    assert_eq!(
        rows,
        [
            (0, 200, RangeState::Cleaned, 5),
            (200, 300, RangeState::Importing, 6),
            (300, 1000, RangeState::Cleaned, 5),
            (1000, 2000, RangeState::Owned, 5),
            (2000, 3000, RangeState::Moved, 5),
            (9_001, 9_002, RangeState::Importing, 1),
        ]
    );
    let copies = moves::copies(target).await.unwrap();
    assert_eq!((copies.len(), copies[0].state), (1, CopyState::Waiting));
    pair.end().await;
}

#[tokio::test]
async fn only_an_owned_range_or_this_moves_own_freeze_is_frozen_and_only_as_it_stands_in_the_book() {
    let mut pair = Pair::start().await;
    let move_id = published(&mut pair).await;
    let hosts = ["h:1".to_owned()];
    let source = &mut pair.sessions[0];
    let wrong = batch(move_id, 0, HALF - 1);
    assert!(
        is_refused(&moves::freeze(source, &wrong, Ordinal(1), &hosts, LONG).await),
        "no range of the book"
    );
    let other = batch(new_move(), 0, HALF);
    assert!(
        is_refused(&moves::freeze(source, &other, Ordinal(1), &hosts, LONG).await),
        "no publication"
    );
    assert_eq!(freeze(&mut pair, move_id, LONG).await, Attempt(1));
    assert_eq!(
        freeze(&mut pair, move_id, LONG).await,
        Attempt(2),
        "again by the same move"
    );
    let source = &mut pair.sessions[0];
    moves::ensure_publication(source, other.move_id, &[other.range])
        .await
        .unwrap();
    assert!(
        is_refused(&moves::freeze(source, &other, Ordinal(1), &hosts, LONG).await),
        "another move's freeze"
    );
    assert_eq!(refusal(&mut source.conn, claim_at(5)).await, "SR002");
    let whole = Range { lo: 0, hi: HALF };
    assert!(
        !moves::split_range(source, whole, 500).await.unwrap(),
        "its marker names the range"
    );
    pair.end().await;
}

#[tokio::test]
async fn the_commit_point_needs_the_very_freeze_it_was_verified_for() {
    let mut pair = Pair::start().await;
    let move_id = published(&mut pair).await;
    let ours = batch(move_id, 0, HALF);
    let attempt = freeze(&mut pair, move_id, LONG).await;
    let source = &mut pair.sessions[0];
    for (batch, attempt) in [
        (ours, Attempt(attempt.0 - 1)),
        (ours, attempt.next()),
        (batch(new_move(), 0, HALF), attempt),
        (batch(move_id, 0, HALF - 1), attempt),
    ] {
        assert!(!moves::commit_move(source, &batch, attempt).await.unwrap());
    }
    assert!(moves::thaw_now(source, &ours, attempt).await.unwrap());
    assert!(
        !moves::commit_move(source, &ours, attempt).await.unwrap(),
        "it was thawed"
    );
    run(&mut source.conn, claim_at(5)).await;
    let attempt = freeze(&mut pair, move_id, LONG).await;
    let source = &mut pair.sessions[0];
    for _ in 0..2 {
        assert!(
            moves::commit_move(source, &ours, attempt).await.unwrap(),
            "and again the same"
        );
    }
    assert!(!moves::thaw_now(source, &ours, attempt).await.unwrap(), "never undone");
    assert!(!moves::commit_move(source, &ours, attempt.next()).await.unwrap());
    assert_eq!(refusal(&mut source.conn, claim_at(5)).await, "SR001");
    pair.end().await;
}

#[tokio::test]
async fn anybody_may_end_a_freeze_when_its_time_is_over_or_the_clock_stands_before_it() {
    let mut pair = Pair::start().await;
    let move_id = published(&mut pair).await;
    let thaw = |attempt: Attempt| format!("SELECT ringwright.thaw(0, {HALF}, '{move_id}', {})", attempt.0);
    let attempt = freeze(&mut pair, move_id, LONG).await;
    let mut app = crate::tests::fence::connect(pair.shards.database(0), crate::admin::Role::App).await;
    let mut ask = async |sql: String| -> bool {
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .fetch_one(&mut app)
            .await
            .unwrap()
    };
    assert!(!ask(thaw(attempt)).await, "its deadline is far away");
    for over in ["deadline = now()", "frozen_at = now() + interval '1 hour'"] {
        let attempt = freeze(&mut pair, move_id, LONG).await;
        let sql = format!("UPDATE ringwright.range_owners SET {over} WHERE lo = 0");
        run(&mut pair.sessions[0].conn, sql).await;
        assert!(!ask(thaw(Attempt(attempt.0 - 1))).await, "another freeze");
        assert!(ask(thaw(attempt)).await, "{over}");
        assert!(!ask(thaw(attempt)).await, "once");
        let row = row_at(&mut pair.sessions[0], 0).await;
        assert_eq!(
            (row.state, row.attempt, row.move_id),
            (RangeState::Owned, attempt, None)
        );
    }
    pair.end().await;
}

#[tokio::test]
async fn what_was_verified_is_activated_and_nothing_else() {
    let mut pair = Pair::start().await;
    let move_id = published(&mut pair).await;
    let ours = batch(move_id, 0, HALF);
    let other = batch(new_move(), 0, HALF);
    let target = &mut pair.sessions[1];
    let generation = Generation(1);
    assert!(
        !moves::activate(target, &ours, Attempt(3), generation).await.unwrap(),
        "not verified"
    );
    assert!(
        !moves::mark_verified(target, &other, Attempt(3)).await.unwrap(),
        "another move"
    );
    assert!(moves::mark_verified(target, &ours, Attempt(3)).await.unwrap());
    assert!(
        !moves::mark_verified(target, &ours, Attempt(2)).await.unwrap(),
        "it only grows"
    );
    assert!(!moves::activate(target, &ours, Attempt(2), generation).await.unwrap());
    assert!(!moves::activate(target, &ours, Attempt(4), generation).await.unwrap());
    assert!(!moves::activate(target, &other, Attempt(3), generation).await.unwrap());
    for _ in 0..2 {
        assert!(moves::activate(target, &ours, Attempt(3), generation).await.unwrap());
        let row = row_at(target, 0).await;
        assert_eq!(
            (row.state, row.generation.0, row.attempt),
            (RangeState::Owned, 2, Attempt(3))
        );
    }
    assert!(
        !moves::mark_verified(target, &ours, Attempt(4)).await.unwrap(),
        "not imported any more"
    );
    // Long after: split, and a part of it given away.
    assert!(moves::split_range(target, ours.range, 7).await.unwrap());
    run(
        &mut target.conn,
        "UPDATE ringwright.range_owners SET state = 'moved', target = 5 WHERE lo = 0",
    )
    .await;
    assert!(
        moves::activate(target, &ours, Attempt(3), generation).await.unwrap(),
        "it has been done"
    );
    assert!(
        !moves::activate(target, &ours, Attempt(3), Generation(2)).await.unwrap(),
        "not this one"
    );
    pair.end().await;
}

#[tokio::test]
async fn verifying_cuts_and_joins_what_is_imported_to_what_was_frozen() {
    let mut pair = Pair::start().await;
    let move_id = published(&mut pair).await;
    let target = &mut pair.sessions[1];
    assert!(
        moves::mark_verified(target, &batch(move_id, 100, 200), Attempt(1))
            .await
            .unwrap()
    );
    let rows = |rows: Vec<moves::RangeRow>| -> Vec<_> {
        rows.into_iter()
            .map(|row| {
                (
                    row.range.lo,
                    row.range.hi,
                    row.verified_attempt.map(|attempt| attempt.0),
                )
            })
            .collect()
    };
    assert_eq!(
        rows(book(target).await),
        [(0, 100, None), (100, 200, Some(1)), (200, HALF, None)]
    );
    assert!(
        !moves::mark_verified(target, &batch(move_id, 50, 150), Attempt(0))
            .await
            .unwrap(),
        "older than a part"
    );
    assert!(
        moves::mark_verified(target, &batch(move_id, 50, 150), Attempt(2))
            .await
            .unwrap()
    );
    assert_eq!(
        rows(book(target).await),
        [
            (0, 50, None),
            (50, 150, Some(2)),
            (150, 200, Some(1)),
            (200, HALF, None)
        ]
    );
    assert!(
        !moves::mark_verified(target, &batch(move_id, 0, HALF + 1), Attempt(9))
            .await
            .unwrap(),
        "not all of it"
    );
    pair.end().await;
}

#[tokio::test]
async fn an_import_is_left_only_as_it_was_read_and_only_for_a_source_that_cannot_commit_it() {
    let mut pair = Pair::start().await;
    let move_id = published(&mut pair).await;
    let ours = batch(move_id, 0, HALF);
    let target = &mut pair.sessions[1];
    moves::mark_verified(target, &ours, Attempt(2)).await.unwrap();
    for (verified, source_attempt) in [(None, 5), (Some(1), 5), (Some(2), 1)] {
        let left = moves::leave_import(target, &ours, verified.map(Attempt), Attempt(source_attempt)).await;
        assert!(!left.unwrap(), "{verified:?} {source_attempt}");
    }
    for _ in 0..2 {
        assert!(
            moves::leave_import(target, &ours, Some(Attempt(2)), Attempt(2))
                .await
                .unwrap()
        );
    }
    assert!(
        !moves::mark_verified(target, &ours, Attempt(3)).await.unwrap(),
        "a verification that comes late"
    );
    assert!(!moves::activate(target, &ours, Attempt(2), Generation(1)).await.unwrap());
    let row = row_at(target, 0).await;
    assert_eq!(
        (row.state, row.generation.0, row.target),
        (RangeState::Moved, 1, Some(Ordinal(0)))
    );
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_has_moved_is_cleaned_and_only_by_a_session_that_is_not_replicated() {
    let mut pair = Pair::start().await;
    write_claims(&mut pair.sessions[0], [1, 2, 0x9000_0000]).await;
    let range = Range { lo: 0, hi: HALF };
    let move_id = pair.copy(0, &[range]).await;
    let ours = batch(move_id, 0, HALF);
    let (source, target) = pair.ends(0);
    assert!(is_refused(&moves::clean_rows(source, &ours, 10).await), "still owned");
    until_done(source, target, &ours).await;
    assert!(
        is_refused(&moves::clean_rows(source, &ours, 10).await),
        "its slot is still there"
    );
    drop_replication(source, target, move_id).await;
    assert!(
        is_refused(&moves::clean_rows(source, &batch(new_move(), 0, HALF), 10).await),
        "another move"
    );
    assert!(
        is_refused(&moves::clean_rows(source, &batch(move_id, 0, 7), 10).await),
        "no range of the book"
    );
    assert!(
        is_refused(&moves::clean_rows(target, &ours, 10).await),
        "the target owns it"
    );
    let without_origin = format!("SELECT ringwright.clean_rows('{move_id}', 0, {HALF}, 10)");
    assert_eq!(refusal(&mut source.conn, without_origin).await, "SR007");
    assert_eq!(
        refusal(&mut source.conn, "DELETE FROM ringwright.contact_claims").await,
        "SR001"
    );
    assert!(!moves::mark_cleaned(source, &ours).await.unwrap(), "rows are left");

    // Of all that a session with an origin could do there, only a delete passes.
    run(
        &mut source.conn,
        "SELECT pg_replication_origin_create('ringwright_test_refusals');
         SELECT pg_replication_origin_session_setup('ringwright_test_refusals')",
    )
    .await;
    assert_eq!(refusal(&mut source.conn, claim_at(3)).await, "SR001");
    let update = "UPDATE ringwright.contact_claims SET updated_at = now() WHERE claim_id < '80000000-0000-0000-0000-000000000000'";
    assert_eq!(refusal(&mut source.conn, update).await, "SR001");
    run(
        &mut source.conn,
        "SELECT pg_replication_origin_session_reset(); SELECT pg_replication_origin_drop('ringwright_test_refusals')",
    )
    .await;

    assert_eq!(moves::clean_rows(source, &ours, 1).await.unwrap(), 1);
    assert_eq!(moves::clean_rows(source, &ours, 10).await.unwrap(), 1);
    clean(source, &ours).await;
    assert!(moves::mark_cleaned(source, &ours).await.unwrap(), "and again");
    assert!(
        is_refused(&moves::clean_rows(source, &ours, 10).await),
        "cleaned is not moved"
    );
    assert_eq!((count_claims(source).await, count_claims(target).await), (1, 2));
    pair.assert_settled().await;
    pair.end().await;
}

#[tokio::test]
async fn a_long_writer_makes_a_step_wait_for_a_moment_and_then_try_again_later() {
    let mut pair = Pair::start().await;
    let move_id = published(&mut pair).await;
    let mut writer = pair.shards.superuser(Ordinal(0)).await;
    run(&mut writer, format!("BEGIN; {}", claim_at(5))).await;
    let source = &mut pair.sessions[0];
    let frozen = moves::freeze(source, &batch(move_id, 0, HALF), Ordinal(1), &["h:1".to_owned()], LONG).await;
    assert!(matches!(frozen, Err(MoveError::Busy { .. })), "{frozen:?}");
    let split = moves::split_range(source, Range { lo: 0, hi: HALF }, 10).await;
    assert!(matches!(split, Err(MoveError::Busy { .. })), "{split:?}");
    assert!(
        moves::split_range(source, Range { lo: HALF, hi: ALL }, HALF + 1)
            .await
            .unwrap()
    );
    run(&mut writer, "COMMIT").await;
    assert!(moves::split_range(source, Range { lo: 0, hi: HALF }, 10).await.unwrap());
    drop(writer);
    pair.end().await;
}

#[tokio::test]
async fn neighbours_that_say_the_same_become_one_and_never_of_a_lower_generation() {
    let mut pair = Pair::start().await;
    let session = &mut pair.sessions[1];
    run(
        &mut session.conn,
        "INSERT INTO ringwright.range_owners (lo, hi, generation, attempt, state, target) VALUES
            (0, 10, 1, 4, 'owned', NULL), (10, 20, 1, 9, 'owned', NULL), (20, 30, 1, 2, 'owned', NULL),
            (30, 40, 2, 0, 'owned', NULL),
            (40, 50, 2, 0, 'cleaned', 7), (50, 60, 2, 0, 'cleaned', 7), (60, 70, 2, 0, 'cleaned', 8),
            (80, 90, 2, 0, 'cleaned', 8), (90, 95, 2, 0, 'moved', 8), (95, 99, 2, 0, 'moved', 8)",
    )
    .await;
    let mut fewer = Vec::new();
    loop {
        match moves::merge_ranges(session).await.unwrap() {
            0 => break,
            merged => fewer.push(merged),
        }
    }
    assert_eq!(fewer, [2, 1]);
    let rows: Vec<_> = book(session)
        .await
        .into_iter()
        .map(|row| (row.range.lo, row.range.hi, row.generation.0, row.attempt.0))
        .collect();
    assert_eq!(
        rows,
        [
            (0, 30, 1, 9),
            (30, 40, 2, 0),
            (40, 60, 2, 0),
            (60, 70, 2, 0),
            (80, 90, 2, 0),
            (90, 95, 2, 0),
            (95, 99, 2, 0),
        ]
    );
    pair.end().await;
}

#[tokio::test]
async fn a_cut_leaves_at_most_so_many_rows_before_it_and_at_least_one_position() {
    let mut pair = Pair::start().await;
    let session = &mut pair.sessions[0];
    write_claims(session, [10, 20, 20, 20, 30, 40]).await;
    for (lo, hi, max_rows, cut) in [
        (0, 100, 6, None),
        (0, 100, 5, Some(40)),
        (0, 100, 4, Some(30)),
        (0, 100, 3, Some(20)),
        (0, 100, 1, Some(20)),
        (20, 100, 2, Some(21)),
        (20, 21, 2, None),
        (50, 100, 1, None),
    ] {
        let range = Range { lo, hi };
        assert_eq!(
            moves::next_cut(session, range, max_rows).await.unwrap(),
            cut,
            "{range} {max_rows}"
        );
    }
    pair.end().await;
}

#[tokio::test]
async fn rows_that_no_range_of_the_book_may_hold_are_counted_and_can_be_deleted_as_is_documented() {
    let mut pair = Pair::start().await;
    let session = &mut pair.sessions[0];
    write_claims(session, [10, 20, 0x8000_0000, 0xffff_ffff]).await;
    assert_eq!(moves::rows_outside(session).await.unwrap(), []);
    run(
        &mut session.conn,
        "DELETE FROM ringwright.range_owners;
         INSERT INTO ringwright.range_owners (lo, hi, generation, state, target) VALUES
            (0, 15, 1, 'moved', 1), (15, 25, 1, 'cleaned', 1), (2147483648, 2147483649, 1, 'importing', 1)",
    )
    .await;
    let outside = moves::rows_outside(session).await.unwrap();
    assert_eq!(
        outside,
        [("ringwright.contact_claims".to_owned(), 2)],
        "the cleaned one, and the last"
    );
    run(
        &mut session.conn,
        "BEGIN; ALTER TABLE ringwright.contact_claims DISABLE TRIGGER ringwright_fence;
         DELETE FROM ringwright.contact_claims WHERE ringwright.position_of(claim_id) IN (20, 4294967295);
         ALTER TABLE ringwright.contact_claims ENABLE TRIGGER ringwright_fence; COMMIT",
    )
    .await;
    assert_eq!(moves::rows_outside(session).await.unwrap(), []);
    assert_eq!(
        refusal(&mut session.conn, claim_at(20)).await,
        "SR001",
        "the fence is back"
    );
    pair.end().await;
}

#[tokio::test]
async fn there_is_no_way_back_from_an_abort_that_was_decided() {
    let mut pair = Pair::start().await;
    let move_id = published(&mut pair).await;
    let target = &mut pair.sessions[1];
    let because = Some("the disk is full");
    moves::set_copy_state(target, move_id, CopyState::Copying, None)
        .await
        .unwrap();
    moves::set_copy_state(target, move_id, CopyState::Aborting, because)
        .await
        .unwrap();
    assert!(is_refused(
        &moves::set_copy_state(target, move_id, CopyState::Copying, None).await
    ));
    assert!(is_refused(
        &moves::set_copy_state(target, new_move(), CopyState::Copying, None).await
    ));
    let copies = moves::copies(target).await.unwrap();
    assert_eq!(
        (copies[0].state, copies[0].last_error.as_deref()),
        (CopyState::Aborting, because)
    );
    assert!(
        !moves::forget_copy(target, move_id).await.unwrap(),
        "it imports a range"
    );
    pair.end().await;
}
