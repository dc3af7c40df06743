//! The rules of a move, each taken away: a checker of what was acknowledged has to see the loss, or the rule (or the
//! checker) is worth nothing. With the rule in place, the same history is clean.
//!
//! Rules that are SQL are taken out of the database's own text, by a replacement that has to be found there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use ring::{Ordinal, Range};
use sqlx::AssertSqlSafe;
use tokio::sync::Notify;
use uuid::Uuid;

use super::pair::{
    Pair, batch, book, carve, claim_at, clean, doubly_owned_or_lost, drop_replication, new_move, patient, until_done,
};
use super::undone::killed_at;
use crate::moves::{self, Batch, HandOver, MoveId, RangeState, Rule, ShardSession, at_checkpoint, without};
use crate::tests::shards::{refusal, run, superuser};

const ALL: u64 = 1 << 32;

/// A rule in a database function: what it says, and what it says without the rule.
type Mutation = (&'static str, &'static [(&'static str, &'static str)]);

/// Loads a function without its rule; panics if the function does not have it any more.
async fn mutate(session: &mut ShardSession, (function, replacements): Mutation) {
    let sql = format!("SELECT pg_get_functiondef('ringwright.{function}'::regproc)");
    let mut text: String = sqlx::query_scalar(AssertSqlSafe(sql))
        .fetch_one(&mut session.conn)
        .await
        .unwrap();
    for (rule, without) in replacements {
        assert_eq!(
            text.matches(rule).count(),
            1,
            "{function} does not say `{rule}` once: the mutation proves nothing"
        );
        text = text.replace(rule, without);
    }
    run(&mut session.conn, text).await;
}

/// What was acknowledged: claims that were written, less those that were deleted.
#[derive(Default)]
struct History {
    acknowledged: BTreeSet<Uuid>,
}

impl History {
    async fn write(&mut self, session: &mut ShardSession, position: u32) -> Uuid {
        run(&mut session.conn, claim_at(position)).await;
        let id: Uuid =
            sqlx::query_scalar("SELECT claim_id FROM ringwright.contact_claims ORDER BY created_at DESC LIMIT 1")
                .fetch_one(&mut session.conn)
                .await
                .unwrap();
        self.acknowledged.insert(id);
        id
    }

    /// What is wrong with the shards, by this history.
    async fn violation(&self, pair: &mut Pair) -> Option<String> {
        let mut owned = Vec::new();
        let mut served = BTreeSet::new();
        for session in &mut pair.sessions {
            for row in book(session).await.into_iter().filter(|row| row.state.is_here()) {
                owned.push((row.range, session.shard.0));
                served.extend(claims(session, row.range).await);
            }
        }
        if let Some(position) = doubly_owned_or_lost(owned) {
            return Some(format!("position {position:08x} is owned twice, or by nobody"));
        }
        if let Some(lost) = self.acknowledged.difference(&served).next() {
            return Some(format!("{lost} was acknowledged and is lost"));
        }
        if let Some(undead) = served.difference(&self.acknowledged).next() {
            return Some(format!("{undead} was never written, or has been deleted"));
        }
        for session in &mut pair.sessions {
            if let Some((relation, rows)) = moves::rows_outside(session).await.unwrap().first() {
                return Some(format!("{rows} stray rows of {relation} on shard {}", session.shard));
            }
        }
        None
    }
}

async fn claims(session: &mut ShardSession, range: Range) -> Vec<Uuid> {
    sqlx::query_scalar(
        "SELECT claim_id FROM ringwright.contact_claims
         WHERE claim_id >= ringwright.lowest_id($1) AND claim_id < ringwright.end_id($2)",
    )
    .bind(range.lo.cast_signed())
    .bind(range.hi.cast_signed())
    .fetch_all(&mut session.conn)
    .await
    .unwrap()
}

/// The history as it is with the rule, and as it is without.
fn assert_rule(rule: &str, kept: Option<String>, taken: Option<String>) {
    assert_eq!(kept, None, "{rule}: the rule is there");
    assert!(taken.is_some(), "{rule}: nobody notices that it is not there");
}

/// Runs a future up to a checkpoint, does something else, and lets it go on.
async fn held_at<F, T>(point: &'static str, operator: F, meanwhile: impl Future<Output = ()>) -> T
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let (reached, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (told, waits) = (Arc::clone(&reached), Arc::clone(&go_on));
    let hold = move || -> BoxFuture<'static, ()> {
        let (told, waits) = (Arc::clone(&told), Arc::clone(&waits));
        Box::pin(async move {
            told.notify_one();
            waits.notified().await;
        })
    };
    let operator = tokio::spawn(at_checkpoint(point, hold, operator));
    reached.notified().await;
    meanwhile.await;
    go_on.notify_one();
    operator.await.unwrap()
}

/// A target that applies nothing until this transaction ends.
async fn stall(pair: &Pair) -> sqlx::PgConnection {
    let mut conn = superuser(pair.shards.database(1)).await;
    let lock = "BEGIN; LOCK TABLE ringwright.contact_claims IN SHARE ROW EXCLUSIVE MODE";
    run(&mut conn, lock).await;
    conn
}

async fn split_under_a_writer(mutation: Option<Mutation>) -> Option<String> {
    let mut pair = Pair::start().await;
    let mut history = History::default();
    if let Some(mutation) = mutation {
        mutate(&mut pair.sessions[0], mutation).await;
    }
    let move_id = pair.copy(0, &[Range::ALL]).await;
    let mut writer = ShardSession::open(superuser(pair.shards.database(0)).await, Ordinal(0), vec![], vec![])
        .await
        .unwrap();
    run(&mut writer.conn, "BEGIN").await;
    history.write(&mut writer, 5).await;
    let ours = batch(move_id, 0, 1_000);
    let (source, target) = pair.ends(0);
    if matches!(moves::split_range(source, Range::ALL, 1_000).await, Ok(true)) {
        until_done(source, target, &ours).await;
    }
    run(&mut writer.conn, "COMMIT").await;
    carve(source, ours.range).await;
    until_done(source, target, &ours).await;
    let violation = history.violation(&mut pair).await;
    drop(writer);
    pair.end().await;
    violation
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_split_that_does_not_take_its_parents_lock_loses_a_write() {
    let without_lock: Mutation = (
        "split_range",
        &[(
            "r := ringwright.lock_range(range_lo, range_hi);",
            "SELECT * INTO r FROM ringwright.range_owners o WHERE o.lo = range_lo AND o.hi = range_hi;",
        )],
    );
    let kept = split_under_a_writer(None).await;
    let taken = split_under_a_writer(Some(without_lock)).await;
    assert_rule("the parent's lock at a split", kept, taken);
}

/// An operator has verified and is paused; its freeze ends, a write is acknowledged that the target does not have, and
/// (if `again`) another operator freezes anew. Then the first one wakes up.
async fn an_operator_wakes_up(mutations: &[Mutation], again: bool) -> Option<String> {
    let mut pair = Pair::start().await;
    let mut history = History::default();
    history.write(&mut pair.sessions[0], 5).await;
    for mutation in mutations {
        mutate(&mut pair.sessions[0], *mutation).await;
    }
    let move_id = pair.copy(0, &[Range::ALL]).await;
    let all = batch(move_id, 0, ALL);
    let [mut source, mut target] = pair.other_sessions().await;
    let operator = async move { moves::hand_over(&mut source, &mut target, &all, &patient()).await };
    let mut stalled = stall(&pair).await;
    let woken = held_at("verified", operator, async {
        let (source, target) = pair.ends(0);
        let frozen = super::pair::row_at(source, 0).await;
        assert!(moves::thaw_now(source, &all, frozen.attempt).await.unwrap());
        history.write(source, 7).await;
        if again {
            let hosts = target.hosts.clone();
            moves::freeze(source, &all, Ordinal(1), &hosts, patient().pause)
                .await
                .unwrap();
        }
    })
    .await;
    run(&mut stalled, "ROLLBACK").await;
    let (source, target) = pair.ends(0);
    if matches!(woken, Ok(HandOver::Expired { .. })) {
        until_done(source, target, &all).await;
    }
    let violation = history.violation(&mut pair).await;
    drop(stalled);
    pair.end().await;
    violation.or_else(|| {
        woken
            .err()
            .map(|error| format!("unclear: {}", error.in_full()))
            .filter(|_| mutations.is_empty())
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_point_that_does_not_compare_the_attempt_loses_a_write() {
    let any_attempt: Mutation = (
        "commit_move",
        &[(
            "AND o.move_id = commit_move_id AND o.attempt = commit_attempt",
            "AND o.move_id = commit_move_id",
        )],
    );
    let kept = an_operator_wakes_up(&[], true).await;
    let taken = an_operator_wakes_up(&[any_attempt], true).await;
    assert_rule("the attempt at the commit point", kept, taken);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_point_that_does_not_ask_whether_it_is_frozen_loses_a_write() {
    let not_frozen: Mutation = ("commit_move", &[("o.state = 'frozen' AND ", "")]);
    // A thawed range does not name its move any more, which is the second line.
    let still_named: Mutation = (
        "thaw_now",
        &[("move_id = NULL, target = NULL, target_hosts = NULL, ", "")],
    );
    let kept = an_operator_wakes_up(&[], false).await;
    let second_line = an_operator_wakes_up(&[not_frozen], false).await;
    assert_eq!(second_line, None);
    let taken = an_operator_wakes_up(&[not_frozen, still_named], false).await;
    assert_rule("frozen at the commit point", kept, taken);
}

async fn there_and_back_and_a_late_cleaner(mutation: Option<Mutation>) -> Option<String> {
    let mut pair = Pair::start().await;
    let mut history = History::default();
    history.write(&mut pair.sessions[0], 5).await;
    let first = pair.copy(0, &[Range::ALL]).await;
    pair.hand_all_over(0, first, 100).await;
    pair.finish(0, first).await;
    let second = pair.copy(1, &[Range::ALL]).await;
    pair.hand_all_over(1, second, 100).await;
    pair.finish(1, second).await;
    let source = &mut pair.sessions[0];
    if let Some(mutation) = mutation {
        mutate(source, mutation).await;
    }
    let cleaned = moves::clean_rows(source, &batch(first, 0, ALL), 100).await;
    assert_eq!(cleaned.is_ok(), mutation.is_some(), "{cleaned:?}");
    let violation = history.violation(&mut pair).await;
    pair.end().await;
    violation
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cleaner_that_does_not_look_at_the_book_deletes_what_came_back() {
    let unguarded: Mutation = (
        "clean_rows",
        &[(
            "IF r.state IS DISTINCT FROM 'moved' OR r.move_id IS DISTINCT FROM clean_move_id THEN",
            "IF false THEN",
        )],
    );
    let kept = there_and_back_and_a_late_cleaner(None).await;
    let taken = there_and_back_and_a_late_cleaner(Some(unguarded)).await;
    assert_rule("the guard of the cleanup", kept, taken);
}

async fn moved_all(pair: &mut Pair) -> MoveId {
    let move_id = pair.copy(0, &[Range::ALL]).await;
    let all = batch(move_id, 0, ALL);
    pair.hand_over(0, &all).await;
    move_id
}

async fn marked_before_it_is_clean(mutation: Option<Mutation>) -> Option<String> {
    let mut pair = Pair::start().await;
    let mut history = History::default();
    history.write(&mut pair.sessions[0], 5).await;
    if let Some(mutation) = mutation {
        mutate(&mut pair.sessions[0], mutation).await;
    }
    let move_id = moved_all(&mut pair).await;
    let (source, target) = pair.ends(0);
    drop_replication(source, target, move_id).await;
    let all = batch(move_id, 0, ALL);
    if !moves::mark_cleaned(source, &all).await.unwrap() {
        clean(source, &all).await;
    }
    let violation = history.violation(&mut pair).await;
    pair.end().await;
    violation
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_that_is_called_clean_without_a_look_keeps_stray_rows() {
    let unseen: Mutation = ("mark_cleaned", &[(" OR ringwright.holds_rows(range_lo, range_hi)", "")]);
    let kept = marked_before_it_is_clean(None).await;
    let taken = marked_before_it_is_clean(Some(unseen)).await;
    assert_rule("the proof that a range is clean", kept, taken);
}

async fn a_delete_comes_late(mutation: Option<Mutation>) -> Option<String> {
    let mut pair = Pair::start().await;
    let mut history = History::default();
    let id = history.write(&mut pair.sessions[0], 5).await;
    if let Some(mutation) = mutation {
        mutate(&mut pair.sessions[0], mutation).await;
    }
    let move_id = moved_all(&mut pair).await;
    let mut old = crate::tests::fence::connect(pair.shards.database(0), crate::admin::Role::App).await;
    let delete = format!("DELETE FROM ringwright.contact_claims WHERE claim_id = '{id}'");
    if refusal(&mut old, delete).await == "accepted" {
        history.acknowledged.remove(&id);
    }
    pair.finish(0, move_id).await;
    let violation = history.violation(&mut pair).await;
    pair.end().await;
    violation
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fence_that_lets_any_session_delete_what_has_moved_loses_the_delete() {
    let anybody: Mutation = ("refuse_write", &[(" AND pg_replication_origin_session_is_setup()", "")]);
    let kept = a_delete_comes_late(None).await;
    let taken = a_delete_comes_late(Some(anybody)).await;
    assert_rule("deletes of the cleaner only", kept, taken);
}

const OVER_ANYTHING: (&str, &str) = (
    "IF r.state <> 'cleaned' OR r.generation > generations[i] THEN",
    "IF false THEN",
);
const OVER_ROWS: (&str, &str) = ("IF ringwright.holds_rows(los[i], his[i]) THEN", "IF false THEN");

async fn an_old_plan_is_begun(mutation: Option<Mutation>) -> Option<String> {
    let mut pair = Pair::start().await;
    let mut history = History::default();
    history.write(&mut pair.sessions[0], 5).await;
    let move_id = moved_all(&mut pair).await;
    pair.finish(0, move_id).await;
    let target = &mut pair.sessions[1];
    if let Some(mutation) = mutation {
        mutate(target, mutation).await;
    }
    let old = moves::ImportRange {
        range: Range::ALL,
        generation: ring::Generation(1),
        attempt: moves::Attempt(0),
    };
    let begun = moves::begin_import(target, new_move(), Ordinal(0), &["h:1".to_owned()], &[old]).await;
    assert_eq!(begun.is_ok(), mutation.is_some(), "{begun:?}");
    let violation = history.violation(&mut pair).await;
    pair.end().await;
    violation
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_over_a_range_that_is_not_empty_takes_it_from_its_owner() {
    let kept = an_old_plan_is_begun(None).await;
    let over_anything: Mutation = ("begin_import", &[OVER_ANYTHING, OVER_ROWS]);
    let taken = an_old_plan_is_begun(Some(over_anything)).await;
    assert_rule("import only where nothing is", kept, taken);
}

/// A row lies at the target that belongs to nobody, as an import that was not cleaned would leave it.
async fn a_row_was_left_behind(mutation: Option<Mutation>, skipped: &'static [Rule]) -> Option<String> {
    let mut pair = Pair::start().await;
    let mut history = History::default();
    history.write(&mut pair.sessions[0], 5).await;
    let stray = format!(
        "SET session_replication_role = replica; ALTER TABLE ringwright.contact_claims DISABLE TRIGGER ALL; {};
        ALTER TABLE ringwright.contact_claims ENABLE TRIGGER ALL; ALTER TABLE ringwright.contact_claims
        ENABLE REPLICA TRIGGER ringwright_apply_guard; RESET session_replication_role",
        claim_at(9)
    );
    run(&mut pair.sessions[1].conn, stray).await;
    let Some(mutation) = mutation else {
        let import = moves::ImportRange {
            range: Range::ALL,
            generation: ring::Generation(1),
            attempt: moves::Attempt(0),
        };
        let begun = moves::begin_import(&mut pair.sessions[1], new_move(), Ordinal(0), &[], &[import]).await;
        assert!(begun.is_err());
        pair.end().await;
        return None;
    };
    mutate(&mut pair.sessions[1], mutation).await;
    let move_id = pair.copy(0, &[Range::ALL]).await;
    let all = batch(move_id, 0, ALL);
    let (source, target) = pair.ends(0);
    let outcome = without(skipped, moves::hand_over(source, target, &all, &patient())).await;
    let differs = matches!(outcome, Err(moves::MoveError::Differs { .. }));
    assert_eq!(differs, skipped.is_empty(), "{outcome:?}");
    // Nothing was handed over, so nothing is wrong yet; the stray row lies in a range that may hold rows.
    let violation = history.violation(&mut pair).await;
    pair.end().await;
    violation
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_beside_old_rows_makes_them_live_again_unless_they_are_compared() {
    let beside: Mutation = ("begin_import", &[OVER_ROWS]);
    let kept = a_row_was_left_behind(None, &[]).await;
    assert_eq!(
        a_row_was_left_behind(Some(beside), &[]).await,
        None,
        "the comparison is the second line"
    );
    let taken = a_row_was_left_behind(Some(beside), &[Rule::Comparison]).await;
    assert_rule("import only beside no rows, with the comparison", kept, taken);
}

/// The source is cleaned while the subscription is still there.
async fn cleaned_too_early(guarded: bool, with_origin: bool) -> Option<String> {
    let mut pair = Pair::start().await;
    let mut history = History::default();
    history.write(&mut pair.sessions[0], 5).await;
    let move_id = moved_all(&mut pair).await;
    mutate(
        &mut pair.sessions[0],
        (
            "clean_rows",
            &[(
                "IF EXISTS (SELECT FROM pg_replication_slots s",
                "IF false AND EXISTS (SELECT FROM pg_replication_slots s",
            )],
        ),
    )
    .await;
    if !with_origin {
        mutate(
            &mut pair.sessions[0],
            (
                "clean_rows",
                &[("IF NOT pg_replication_origin_session_is_setup() THEN", "IF false THEN")],
            ),
        )
        .await;
        mutate(
            &mut pair.sessions[0],
            ("refuse_write", &[(" AND pg_replication_origin_session_is_setup()", "")]),
        )
        .await;
    }
    if !guarded {
        let unguarded: Mutation = (
            "apply_guard_contact_claims",
            &[("IF now_state = 'importing' AND key < found_hi THEN", "IF true THEN")],
        );
        mutate(&mut pair.sessions[1], unguarded).await;
    }
    let all = batch(move_id, 0, ALL);
    let (source, target) = pair.ends(0);
    if with_origin {
        assert_eq!(moves::clean_rows(source, &all, 100).await.unwrap(), 1);
    } else {
        run(
            &mut source.conn,
            format!("SELECT ringwright.clean_rows('{move_id}', 0, {ALL}, 100)"),
        )
        .await;
    }
    if guarded && !with_origin {
        super::guards::wait_until_stopped(target).await;
    } else {
        moves::catch_up(source, target, move_id, Duration::from_secs(60))
            .await
            .unwrap();
    }
    assert!(moves::mark_cleaned(source, &all).await.unwrap());
    let violation = history.violation(&mut pair).await;
    pair.end().await;
    violation
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletes_of_the_cleaner_reach_the_new_owner_only_without_both_guards() {
    assert_eq!(cleaned_too_early(false, true).await, None, "an origin alone is enough");
    let kept = cleaned_too_early(true, false).await;
    let taken = cleaned_too_early(false, false).await;
    assert_rule("the apply guard, with deletes that are replicated", kept, taken);
}

/// The target has not applied the last write when the range is frozen.
async fn frozen_while_the_target_is_behind(skipped: &'static [Rule]) -> (String, Option<String>) {
    let mut pair = Pair::start().await;
    let mut history = History::default();
    let move_id = pair.copy(0, &[Range::ALL]).await;
    let all = batch(move_id, 0, ALL);
    let mut stalled = stall(&pair).await;
    history.write(&mut pair.sessions[0], 5).await;
    let mut limits = patient();
    if skipped.is_empty() {
        // It is to run out.
        limits.pause = Duration::from_secs(1);
    }
    let (source, target) = pair.ends(0);
    let outcome = without(skipped, moves::hand_over(source, target, &all, &limits)).await;
    run(&mut stalled, "ROLLBACK").await;
    if !matches!(outcome, Ok(HandOver::Done { .. })) {
        until_done(source, target, &all).await;
    }
    let violation = history.violation(&mut pair).await;
    drop(stalled);
    pair.end().await;
    (format!("{outcome:?}"), violation)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_marker_and_comparison_a_target_that_is_behind_loses_a_write() {
    let (outcome, kept) = frozen_while_the_target_is_behind(&[]).await;
    assert!(outcome.contains("Expired"), "{outcome}");
    let (outcome, second_line) = frozen_while_the_target_is_behind(&[Rule::Marker]).await;
    assert!(outcome.contains("Differs"), "{outcome}");
    assert_eq!(second_line, None);
    let (_, taken) = frozen_while_the_target_is_behind(&[Rule::Marker, Rule::Comparison]).await;
    assert_rule("the marker, with the comparison", kept, taken);
}

/// The operator dies at `died_at`, and what its last step wrote is on the source's master only. A successor goes on, and
/// then the source fails over to a member that has nothing of it.
async fn failed_over_after(died_at: &'static str, skipped: &'static [Rule]) -> Option<String> {
    let mut pair = Pair::start().await;
    let mut history = History::default();
    history.write(&mut pair.sessions[0], 5).await;
    let move_id = pair.copy(0, &[Range::ALL]).await;
    let all: Batch = batch(move_id, 0, ALL);
    let (source, target) = pair.ends(0);
    killed_at(died_at, moves::hand_over(source, target, &all, &patient())).await;
    source.standbys = vec!["a-member-that-has-not-flushed".to_owned()];
    let outcome = without(skipped, moves::hand_over(source, target, &all, &patient())).await;
    assert_eq!(
        matches!(outcome, Ok(HandOver::NotDurable { .. })),
        skipped.is_empty(),
        "{outcome:?}"
    );
    source.standbys.clear();
    // The member that is promoted: the range as it was before the freeze.
    run(
        &mut source.conn,
        "UPDATE ringwright.range_owners SET state = 'owned', move_id = NULL, target = NULL, deadline = NULL, frozen_at = NULL",
    )
    .await;
    let violation = history.violation(&mut pair).await;
    pair.end().await;
    violation
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_point_that_a_failover_forgets_gives_a_range_two_owners() {
    let kept = failed_over_after("verified", &[]).await;
    let taken = failed_over_after("verified", &[Rule::Durability]).await;
    assert_rule("durable steps", kept, taken);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_was_only_read_and_not_confirmed_gives_a_range_two_owners() {
    let kept = failed_over_after("committed", &[]).await;
    let taken = failed_over_after("committed", &[Rule::Confirmation]).await;
    assert_rule("the commit of whoever acts on a state he read", kept, taken);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checker_that_sees_everything_is_silent_about_a_move_that_went_well() {
    let mut pair = Pair::start().await;
    let mut history = History::default();
    for position in [5, 0x8000_0000, 0xffff_ffff] {
        history.write(&mut pair.sessions[0], position).await;
    }
    let move_id = pair.copy(0, &[Range { lo: 6, hi: ALL }]).await;
    pair.hand_all_over(0, move_id, 1).await;
    pair.finish(0, move_id).await;
    assert_eq!(history.violation(&mut pair).await, None);
    assert!(
        book(&mut pair.sessions[0])
            .await
            .iter()
            .any(|row| row.state == RangeState::Cleaned)
    );
    history.acknowledged.insert(Uuid::nil());
    assert!(history.violation(&mut pair).await.is_some());
    pair.end().await;
}
