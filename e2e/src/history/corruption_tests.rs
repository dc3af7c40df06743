//! The judge is trusted because it is tried: it finds nothing in histories of a store that keeps its word, and finds
//! each single thing that is then broken on purpose.

use proptest::prelude::*;
use proptest::sample::Index;
use uuid::Uuid;

use super::contents::{Claim, StoredRow};
use super::corruptions_of_answers::*;
use super::ownership::{BookRow, RangeState, Sample};
use super::record::*;
use super::simulation::{Evidence, run};
use super::{Kind, check, report};

const REQUESTS: usize = 400;

/// Breaks one thing and names what has to be found; `None` where the history offers no occasion.
type Corruption = fn(&mut Evidence, Index) -> Option<Kind>;

const CORRUPTIONS: [(&str, Corruption); 33] = [
    ("an acknowledged row is gone", drop_row),
    ("an acknowledged update is gone", lose_update),
    ("an update is overwritten by an older one", overwrite),
    ("an update is overwritten by one of unknown outcome", overwrite_by_maybe),
    ("an order is stored under two ids", duplicate_order),
    ("a row lies on two shards", copy_row),
    ("a row lies on the wrong shard", misplace_row),
    ("a row appears from nowhere", phantom),
    ("a version is given out twice", repeat_version),
    ("a version is shown with two contents", show_two_contents),
    (
        "a version is stored with other contents than shown",
        store_other_contents,
    ),
    ("a repeat gets another answer", change_answer),
    ("what was done is refused when it is repeated", forget_key),
    ("writes change places", swap_versions),
    ("a refusal has no cause", refuse),
    ("an update finds no row", deny),
    ("an order finds no user", deny_user),
    ("a creation is refused for no reason", refuse_creation),
    ("a strong read is stale", stale_strong),
    ("a strong read goes back behind another", stale_after_read),
    ("a session read is older than its token", stale_session),
    ("a read without a token is seconds old", stale_loose),
    ("a read sees what nobody wrote", dream),
    ("an event stays in the outbox", keep_event),
    ("a notification row is gone", drop_notice),
    ("a message never arrived", drop_message),
    ("a message arrived twice", double_message),
    ("a claim is gone", drop_claim),
    ("a user has claimed two addresses", double_claim),
    ("a claim is held for nobody", hold_for_nobody),
    ("a second shard owns a range", second_owner),
    ("a range is not given away before it is taken", forget_move),
    ("nobody owns a range in the end", orphan),
];

fn verdict(evidence: &Evidence) -> Vec<super::Violation> {
    check(&evidence.history, &evidence.samples, &evidence.contents)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_store_that_keeps_its_word_is_found_innocent(seed in any::<u64>()) {
        let found = verdict(&run(seed, REQUESTS));
        prop_assert!(found.is_empty(), "{}", report(&found));
    }

    #[test]
    fn each_single_thing_broken_is_found(
        seed in any::<u64>(),
        which in 0..CORRUPTIONS.len(),
        pick in any::<Index>(),
    ) {
        let mut evidence = run(seed, REQUESTS);
        let (name, corrupt) = CORRUPTIONS[which];
        let expected = corrupt(&mut evidence, pick);
        prop_assume!(expected.is_some());
        let found = verdict(&evidence);
        prop_assert!(
            found.iter().any(|violation| Some(violation.kind) == expected),
            "{name}: expected {expected:?}, found: {}", report(&found)
        );
    }
}

#[test]
fn every_corruption_finds_its_occasion() {
    for (number, (name, corrupt)) in CORRUPTIONS.iter().enumerate() {
        let occasions = (0..30).filter(|seed| {
            let mut evidence = run(*seed, REQUESTS);
            corrupt(&mut evidence, index(number + 1)).is_some()
        });
        assert!(occasions.count() >= 15, "{name} is hardly ever tried");
    }
}

/// Also where an order was changed by somebody who got no answer, and so told no version.
#[test]
fn a_read_of_a_version_that_nobody_can_have_come_to_is_found_whatever_row_it_is_of() {
    for seed in 0..3 {
        let evidence = run(seed, REQUESTS);
        let reads = evidence.history.reads.len();
        for read in 0..reads {
            let mut evidence = run(seed, REQUESTS);
            let Sight::Found { version, .. } = &mut evidence.history.reads[read].seen else {
                continue;
            };
            *version += 1_000;
            let found = verdict(&evidence);
            assert!(
                found.iter().any(|violation| violation.kind == Kind::ReadFromNowhere),
                "seed {seed}, read {read}: {}",
                report(&found)
            );
        }
    }
}

/// An index as proptest would draw it.
fn index(number: usize) -> Index {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut index = None;
    for _ in 0..number {
        index = Some(any::<Index>().new_tree(&mut runner).unwrap().current());
    }
    index.unwrap()
}

pub(super) fn pick<T>(mut items: Vec<T>, pick: Index) -> Option<T> {
    (!items.is_empty()).then(|| items.swap_remove(pick.index(items.len())))
}

/// The acknowledged writes: (attempt's index, row, version), first acknowledgements only.
pub(super) fn acknowledged(history: &History) -> Vec<(usize, Uuid, i64)> {
    let mut seen = std::collections::HashSet::new();
    let attempts = history.attempts.iter().enumerate();
    attempts
        .filter_map(|(index, attempt)| match &attempt.outcome {
            Outcome::Done(done) if seen.insert(attempt.operation) => Some((index, done.key, done.version)),
            _ => None,
        })
        .collect()
}

pub(super) fn stored(evidence: &mut Evidence, key: Uuid) -> Option<&mut StoredRow> {
    let contents = &mut evidence.contents;
    let mut rows = contents.users.iter_mut().chain(&mut contents.orders);
    rows.find(|row| row.key == key)
}

/// What a row held at a version, as the history of its acknowledged writes tells.
pub(super) fn content_at(history: &History, key: Uuid, version: i64) -> Option<Content> {
    let (index, ..) = acknowledged(history)
        .into_iter()
        .find(|(_, row, written)| *row == key && *written == version)?;
    let operation = history.attempts[index].operation;
    let status = match history.intent(operation)? {
        Intent::Process { .. } => Status::Processed,
        Intent::Cancel { .. } => Status::Cancelled,
        _ => Status::Created,
    };
    let by = match history.intent(operation)? {
        Intent::Process { order } | Intent::Cancel { order } => content_at(history, *order, 1)?.by,
        _ => operation,
    };
    Some(Content { by, status })
}

fn drop_row(evidence: &mut Evidence, at: Index) -> Option<Kind> {
    let (_, key, _) = pick(acknowledged(&evidence.history), at)?;
    evidence.contents.users.retain(|row| row.key != key);
    evidence.contents.orders.retain(|row| row.key != key);
    Some(Kind::LostWrite)
}

/// Rows whose stored version was acknowledged, and is not the first, and whose version before was acknowledged too.
fn updated(evidence: &mut Evidence) -> Vec<(Uuid, i64, Content)> {
    let history = evidence.history.clone();
    let writes = acknowledged(&history)
        .into_iter()
        .filter(|(_, _, version)| *version > 1);
    let found = writes.filter_map(|(_, key, version)| {
        let before = content_at(&history, key, version - 1)?;
        (stored(evidence, key)?.version == version).then_some((key, version, before))
    });
    found.collect()
}

fn lose_update(evidence: &mut Evidence, at: Index) -> Option<Kind> {
    let (key, version, before) = pick(updated(evidence), at)?;
    let row = stored(evidence, key)?;
    (row.version, row.content) = (version - 1, Some(before));
    Some(Kind::LostWrite)
}

fn overwrite(evidence: &mut Evidence, at: Index) -> Option<Kind> {
    let (key, _, before) = pick(updated(evidence), at)?;
    stored(evidence, key)?.content = Some(before);
    Some(Kind::LostWrite)
}

/// As if two updates had been written over each other, of which the one that is there was never answered.
fn overwrite_by_maybe(evidence: &mut Evidence, at: Index) -> Option<Kind> {
    let users: Vec<Uuid> = evidence.contents.users.iter().map(|user| user.key).collect();
    let updated = updated(evidence).into_iter();
    let (user, version, _) = pick(updated.filter(|(key, ..)| users.contains(key)).collect(), at)?;
    let base = version - 1;
    let by = unanswered(evidence, Intent::UpdateUser { user, base });
    let status = Status::Created;
    stored(evidence, user)?.content = Some(Content { by, status });
    Some(Kind::LostWrite)
}

fn duplicate_order(evidence: &mut Evidence, at: Index) -> Option<Kind> {
    let mut row = pick(evidence.contents.orders.clone(), at)?;
    row.key = Uuid::from_u128(row.key.as_u128() ^ 77);
    evidence.contents.orders.push(row);
    Some(Kind::WrittenTwice)
}

fn copy_row(evidence: &mut Evidence, at: Index) -> Option<Kind> {
    let mut row = pick(evidence.contents.users.clone(), at)?;
    row.shard = (row.shard + 1) % 3;
    evidence.contents.users.push(row);
    Some(Kind::WrittenTwice)
}

fn misplace_row(evidence: &mut Evidence, at: Index) -> Option<Kind> {
    let key = pick(evidence.contents.keys.iter().map(|placed| placed.key).collect(), at)?;
    let placed = evidence.contents.keys.iter_mut().find(|placed| placed.key == key)?;
    placed.shard = (placed.shard + 1) % 3;
    Some(Kind::StrayRow)
}

fn phantom(evidence: &mut Evidence, at: Index) -> Option<Kind> {
    let mut row = pick(evidence.contents.orders.clone(), at)?;
    row.key = Uuid::from_u128(row.key.as_u128() ^ 78);
    row.created_by = None;
    row.content = None;
    evidence.contents.orders.push(row);
    Some(Kind::WrittenByNobody)
}

fn repeat_version(evidence: &mut Evidence, at: Index) -> Option<Kind> {
    let updates = acknowledged(&evidence.history).into_iter();
    let (index, ..) = pick(updates.filter(|write| write.2 > 2).collect(), at)?;
    let operation = evidence.history.attempts[index].operation;
    for attempt in &mut evidence.history.attempts {
        if let (true, Outcome::Done(done)) = (attempt.operation == operation, &mut attempt.outcome) {
            done.version -= 1;
        }
    }
    Some(Kind::VersionTwice)
}

/// A write takes effect before one that had been acknowledged: its request is put after the end of everything.
fn swap_versions(evidence: &mut Evidence, at: Index) -> Option<Kind> {
    let writes = acknowledged(&evidence.history);
    let followed = |key: Uuid, version: i64| writes.iter().any(|write| write.1 == key && write.2 == version + 1);
    let early = writes
        .iter()
        .filter(|write| followed(write.1, write.2))
        .copied()
        .collect();
    let (index, ..) = pick(early, at)?;
    let operation = evidence.history.attempts[index].operation;
    let late = the_end(evidence);
    for attempt in &mut evidence.history.attempts {
        if attempt.operation == operation {
            attempt.span = late;
        }
    }
    Some(Kind::WriteOutOfOrder)
}

/// A time after everything.
pub(super) fn the_end(evidence: &Evidence) -> Span {
    let attempts = evidence.history.attempts.iter().map(|attempt| attempt.span);
    let reads = evidence.history.reads.iter().map(|read| read.span);
    let looks = evidence.samples.iter().map(|sample| sample.span);
    let last = attempts
        .chain(reads)
        .chain(looks)
        .map(|span| span.end.0)
        .max()
        .unwrap_or(0);
    Span {
        start: Moment(last + 10),
        end: Moment(last + 20),
    }
}

fn keep_event(evidence: &mut Evidence, at: Index) -> Option<Kind> {
    let row = pick(evidence.contents.keys.clone(), at)?;
    evidence.contents.outbox.push(row);
    Some(Kind::NotDelivered)
}

fn drop_notice(evidence: &mut Evidence, at: Index) -> Option<Kind> {
    let gone = pick(evidence.contents.notices.clone(), at)?;
    evidence.contents.notices.retain(|notice| *notice != gone);
    Some(Kind::NotDelivered)
}

fn drop_message(evidence: &mut Evidence, at: Index) -> Option<Kind> {
    let gone = pick(evidence.contents.received.clone(), at)?;
    evidence.contents.received.retain(|message| *message != gone);
    Some(Kind::NotDelivered)
}

fn double_message(evidence: &mut Evidence, at: Index) -> Option<Kind> {
    let again = pick(evidence.contents.received.clone(), at)?;
    evidence.contents.received.push(again);
    Some(Kind::DeliveredTwice)
}

fn drop_claim(evidence: &mut Evidence, at: Index) -> Option<Kind> {
    let gone = pick(users_claims(evidence), at)?;
    evidence.contents.claims.retain(|claim| *claim != gone);
    Some(Kind::LostWrite)
}

/// The claims of users that are stored.
fn users_claims(evidence: &Evidence) -> Vec<Claim> {
    let users = &evidence.contents.users;
    let claims = evidence.contents.claims.iter();
    let claims = claims.filter(|claim| users.iter().any(|user| user.key == claim.user));
    claims.cloned().collect()
}

fn double_claim(evidence: &mut Evidence, at: Index) -> Option<Kind> {
    let mut again = pick(users_claims(evidence), at)?;
    again.key = Uuid::from_u128(again.key.as_u128() ^ 79);
    evidence.contents.claims.push(again);
    Some(Kind::WrittenTwice)
}

fn hold_for_nobody(evidence: &mut Evidence, at: Index) -> Option<Kind> {
    let mut left = pick(users_claims(evidence), at)?;
    left.key = Uuid::from_u128(left.key.as_u128() ^ 80);
    left.user = Uuid::from_u128(80);
    left.is_held = true;
    evidence.contents.claims.push(left);
    Some(Kind::WrittenByNobody)
}

/// A shard says at the end that it owns a range of another, at the lowest generation.
fn second_owner(evidence: &mut Evidence, at: Index) -> Option<Kind> {
    let books = evidence.contents.books.iter();
    let owned = books.flat_map(|(shard, rows)| rows.iter().map(|row| (*shard, row.clone())));
    let owned =
        owned.filter(|(shard, row)| row.state.may_write() && was_seen(evidence, *shard, row.lo, row.generation));
    let (owner, row) = pick(owned.collect(), at)?;
    let shard = (owner + 1) % 3;
    let mut rows = evidence.contents.books[&shard].clone();
    rows.retain(|other| other.lo != row.lo);
    rows.push(BookRow { generation: 1, ..row });
    rows.sort_by_key(|row| row.lo);
    let span = the_end(evidence);
    evidence.samples.push(Sample {
        shard,
        span,
        rows: rows.into(),
    });
    Some(Kind::TwoOwners)
}

/// Whether a look showed that the shard owned the range beginning at `lo` at this generation.
fn was_seen(evidence: &Evidence, shard: u16, lo: u64, generation: i64) -> bool {
    let shows = |row: &BookRow| row.lo == lo && row.state.may_write() && row.generation == generation;
    let mut looks = evidence.samples.iter().filter(|sample| sample.shard == shard);
    looks.any(|sample| sample.rows.iter().any(shows))
}

/// A shard that gave a range away says once more, at the end, that it never did so at that generation.
fn forget_move(evidence: &mut Evidence, at: Index) -> Option<Kind> {
    let books = evidence.contents.books.iter();
    let given = books.flat_map(|(shard, rows)| rows.iter().map(|row| (*shard, row.clone())));
    let (shard, row) = pick(given.filter(|(_, row)| row.state == RangeState::Cleaned).collect(), at)?;
    // Only where both were seen: else no look has proven the hand-over.
    if !(was_seen(evidence, shard, row.lo, row.generation) && was_seen(evidence, row.peer?, row.lo, row.generation + 1))
    {
        return None;
    }
    let rows = evidence.contents.books[&shard].iter();
    let rows = rows.filter(|other| other.lo != row.lo).cloned().collect::<Vec<_>>();
    let last_is_taker = evidence.contents.books[&row.peer?]
        .iter()
        .any(|other| other.lo == row.lo && other.state.may_write() && other.generation == row.generation + 1);
    let span = the_end(evidence);
    evidence.samples.push(Sample {
        shard,
        span,
        rows: rows.into(),
    });
    last_is_taker.then_some(Kind::NotHandedOver)
}

fn orphan(evidence: &mut Evidence, at: Index) -> Option<Kind> {
    let owners = evidence.contents.books.iter();
    let owners: Vec<u16> = owners
        .filter(|(_, rows)| rows.iter().any(|row| row.state.may_write()))
        .map(|(shard, _)| *shard)
        .collect();
    let shard = pick(owners, at)?;
    let rows = evidence.contents.books.get_mut(&shard)?;
    let index = rows.iter().position(|row| row.state.may_write())?;
    rows.remove(index);
    Some(Kind::NotHandedOver)
}
