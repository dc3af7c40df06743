//! Invariant 3: an acknowledged write survives, once.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::contents::{Contents, StoredRow};
use super::record::{Attempt, Intent, OperationId, Outcome, Refusal};
use super::story::{Stories, Story, Write};
use super::verdict::{Kind, Violation};

/// What the answers alone prove.
pub(super) fn check_answers(stories: &Stories<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    repeats_get_the_first_answer(stories, &mut found);
    for (key, story) in stories.rows() {
        versions_are_given_out_once(stories, key, story, &mut found);
        writes_keep_their_order(stories, story, &mut found);
    }
    refusals_have_a_cause(stories, &mut found);
    found
}

/// A repeat gets the first answer. An attempt may be refused while another one is done, but not when it began after that
/// had been answered: the key's answer is kept for a day, which is longer than any run.
fn repeats_get_the_first_answer(stories: &Stories<'_>, found: &mut Vec<Violation>) {
    for attempt in &stories.history.attempts {
        let Some((first, span)) = stories.fate(attempt.operation).and_then(|fate| fate.done) else {
            continue;
        };
        let what = match &attempt.outcome {
            Outcome::Done(done)
                if (first.key, first.version, first.answer) != (done.key, done.version, done.answer) =>
            {
                format!("{} was answered in two ways", attempt.operation)
            }
            Outcome::Refused(refusal) if span.precedes(attempt.span) => {
                format!("{} was done, and then refused ({refusal:?})", attempt.operation)
            }
            _ => continue,
        };
        let proof = stories.lines_of(attempt.operation);
        found.push(Violation::new(Kind::OtherAnswer, what, proof));
    }
}

fn versions_are_given_out_once(stories: &Stories<'_>, key: Uuid, story: &Story<'_>, found: &mut Vec<Violation>) {
    for pair in story.writes.windows(2) {
        if pair[0].done.version == pair[1].done.version {
            let what = format!("row {key}: version {} was given to two writes", pair[0].done.version);
            found.push(Violation::new(Kind::VersionTwice, what, lines(stories, pair)));
        }
    }
    for write in &story.writes {
        let intent = stories.history.intent(write.operation);
        let wrong = match intent {
            Some(Intent::UpdateUser { user, base }) => *user != key || write.done.version != base + 1,
            Some(Intent::Process { order } | Intent::Cancel { order }) => *order != key || write.done.version < 2,
            Some(Intent::CreateUser | Intent::CreateOrder { .. }) => write.done.version != 1,
            None => true,
        };
        if wrong {
            let what = format!("row {key}: {} got version {}", write.operation, write.done.version);
            let proof = lines(stories, std::slice::from_ref(write));
            found.push(Violation::new(Kind::VersionTwice, what, proof));
        }
    }
}

/// A write that began after another was acknowledged comes after it.
fn writes_keep_their_order(stories: &Stories<'_>, story: &Story<'_>, found: &mut Vec<Violation>) {
    // By version: of those with higher versions, one that ended first.
    let mut earliest_above: Option<&Write<'_>> = None;
    for write in story.writes.iter().rev() {
        if let Some(above) = earliest_above
            && above.done.version > write.done.version
            && above.span.precedes(write.span)
        {
            let what = format!(
                "row {}: version {} was written after version {} had been acknowledged",
                write.done.key, write.done.version, above.done.version
            );
            found.push(Violation::new(
                Kind::WriteOutOfOrder,
                what,
                lines(stories, &[*above, *write]),
            ));
        }
        if earliest_above.is_none_or(|above| write.span.end < above.span.end) {
            earliest_above = Some(write);
        }
    }
}

/// A refusal tells of a state. It has to have been so: somebody else's write must be able to explain it.
fn refusals_have_a_cause(stories: &Stories<'_>, found: &mut Vec<Violation>) {
    for attempt in &stories.history.attempts {
        let Outcome::Refused(refusal) = attempt.outcome else {
            continue;
        };
        let Some(intent) = stories.history.intent(attempt.operation) else {
            continue;
        };
        let empty = Story::default();
        let story = intent.needs().and_then(|key| stories.row(key)).unwrap_or(&empty);
        if !has_cause(stories, attempt, *intent, refusal, story) {
            let mut proof = stories.lines_of(attempt.operation);
            proof.extend(lines(stories, &story.writes));
            let what = format!(
                "{} was refused ({refusal:?}) by a state that was not so",
                attempt.operation
            );
            found.push(Violation::new(Kind::RefusedWithoutCause, what, proof));
        }
    }
}

/// Whether a refusal can be explained; `story` is that of the row which the operation needs.
fn has_cause(stories: &Stories<'_>, attempt: &Attempt, intent: Intent, refusal: Refusal, story: &Story<'_>) -> bool {
    let others = story.writes.iter().map(|write| write.operation);
    let mut others = others
        .chain(story.maybe.iter().copied())
        .filter(|other| *other != attempt.operation)
        .filter(|other| stories.fate(*other).is_some_and(|fate| fate.began <= attempt.span.end))
        .filter_map(|other| stories.history.intent(other));
    match (refusal, intent) {
        (Refusal::Stale, Intent::UpdateUser { base, .. }) => {
            others.any(|other| matches!(other, Intent::UpdateUser { base: taken, .. } if *taken >= base))
        }
        (Refusal::Status, Intent::Process { .. } | Intent::Cancel { .. }) => {
            others.any(|other| matches!(other, Intent::Process { .. } | Intent::Cancel { .. }))
        }
        // The row was there if its creation was acknowledged before; the load deletes none.
        (
            Refusal::Absent,
            Intent::CreateOrder { .. } | Intent::UpdateUser { .. } | Intent::Process { .. } | Intent::Cancel { .. },
        ) => !story
            .writes
            .iter()
            .any(|write| write.done.version == 1 && write.span.precedes(attempt.span)),
        // Everything else the load never gives cause for. A new user's address and number are no other operation's, and
        // to a repeat the key answers, whatever an attempt before it has left behind.
        _ => false,
    }
}

/// What the shards hold in the end against what was acknowledged.
pub(super) fn check_contents(stories: &Stories<'_>, contents: &Contents) -> Vec<Violation> {
    let mut found = Vec::new();
    let rows = contents.users.iter().chain(&contents.orders);
    let mut stored: HashMap<Uuid, &StoredRow> = HashMap::new();
    let mut creations: HashMap<OperationId, &StoredRow> = HashMap::new();
    for row in rows {
        if let Some(other) = stored.insert(row.key, row) {
            let what = format!("row {} is stored twice", row.key);
            found.push(Violation::new(Kind::WrittenTwice, what, vec![other.line(), row.line()]));
        } else if let Some(creation) = row.created_by
            && let Some(other) = creations.insert(creation, row)
        {
            let mut proof = stories.lines_of(creation);
            proof.extend([other.line(), row.line()]);
            let what = format!("{creation} made two rows");
            found.push(Violation::new(Kind::WrittenTwice, what, proof));
        }
        somebody_wrote_it(stories, row, &mut found);
    }
    for (key, story) in stories.rows() {
        it_survives(stories, key, story, stored.get(&key).copied(), &mut found);
    }
    found.extend(strays(contents));
    found
}

/// A stored row was written as it is by somebody who may have done so.
fn somebody_wrote_it(stories: &Stories<'_>, row: &StoredRow, found: &mut Vec<Violation>) {
    let authors = row
        .content
        .map_or(Vec::new(), |content| stories.authors(row.key, row.version, content));
    if authors.is_empty() {
        let mut proof = vec![row.line()];
        if let Some(story) = stories.row(row.key) {
            proof.extend(lines(stories, &story.writes));
        }
        // What was acknowledged with this version is not what is there.
        let kind = if stories.is_acknowledged(row.key, row.version) {
            Kind::LostWrite
        } else {
            Kind::WrittenByNobody
        };
        let what = format!("row {} holds what nobody wrote into version {}", row.key, row.version);
        found.push(Violation::new(kind, what, proof));
    }
}

/// A row with an acknowledged write is there, at least at that version, and every version in between has an author.
fn it_survives(
    stories: &Stories<'_>,
    key: Uuid,
    story: &Story<'_>,
    stored: Option<&StoredRow>,
    found: &mut Vec<Violation>,
) {
    let Some(newest) = story.writes.last() else { return };
    let Some(stored) = stored else {
        let what = format!("row {key} is on no shard");
        found.push(Violation::new(Kind::LostWrite, what, lines(stories, &story.writes)));
        return;
    };
    if stored.version < newest.done.version {
        let what = format!("row {key} has lost its version {}", newest.done.version);
        let mut proof = lines(stories, &[*newest]);
        proof.push(stored.line());
        found.push(Violation::new(Kind::LostWrite, what, proof));
    }
    let acknowledged: HashSet<i64> = story.writes.iter().map(|write| write.done.version).collect();
    for version in (2..=stored.version).filter(|version| !acknowledged.contains(version)) {
        let mut maybe = story.maybe.iter().map(|operation| stories.history.intent(*operation));
        let explained = maybe.any(|intent| match intent {
            Some(Intent::UpdateUser { base, .. }) => base + 1 == version,
            Some(Intent::Process { .. } | Intent::Cancel { .. }) => true,
            _ => false,
        });
        if !explained {
            let what = format!("row {key}: nobody wrote version {version}");
            let mut proof = lines(stories, &story.writes);
            proof.push(stored.line());
            found.push(Violation::new(Kind::WrittenByNobody, what, proof));
        }
    }
}

/// Every row lies where its position is owned, and no key of any table lies twice.
fn strays(contents: &Contents) -> Vec<Violation> {
    let rows = contents.users.iter().map(|row| ("users", row.shard, row.key));
    let rows = rows.chain(contents.orders.iter().map(|row| ("orders", row.shard, row.key)));
    let rows = rows.chain(contents.notices.iter().map(|row| ("notifications", row.shard, row.key)));
    let rows = rows.chain(contents.outbox.iter().map(|row| ("outbox", row.shard, row.key)));
    let rows = rows.chain(contents.keys.iter().map(|row| ("idempotency keys", row.shard, row.key)));
    let rows = rows.chain(contents.claims.iter().map(|row| ("contact claims", row.shard, row.key)));
    let mut found = Vec::new();
    let mut lies_on: HashMap<(&str, Uuid), u16> = HashMap::new();
    for (table, shard, key) in rows {
        if !contents.owns(shard, key) {
            let what = format!("{table}: {key} lies on shard {shard}, which does not own it");
            found.push(Violation::new(Kind::StrayRow, what, Vec::new()));
        }
        // Rows of users and orders are looked at above, with their history.
        if let Some(other) = lies_on.insert((table, key), shard)
            && !matches!(table, "users" | "orders")
        {
            let what = format!("{table}: {key} lies on shards {other} and {shard}");
            found.push(Violation::new(Kind::WrittenTwice, what, Vec::new()));
        }
    }
    found
}

/// The lines of these writes.
fn lines(stories: &Stories<'_>, writes: &[Write<'_>]) -> Vec<String> {
    // The last few: the story of a busy row is long.
    let shown = &writes[writes.len().saturating_sub(6)..];
    shown
        .iter()
        .flat_map(|write| stories.lines_of(write.operation))
        .collect()
}
