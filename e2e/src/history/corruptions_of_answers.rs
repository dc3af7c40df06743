//! Answers broken on purpose: what writes were told, and what reads saw.

use proptest::sample::Index;
use uuid::Uuid;

use super::Kind;
use super::corruption_tests::{acknowledged, content_at, pick, stored, the_end};
use super::reads::OLDEST;
use super::record::*;
use super::simulation::Evidence;

/// An operation is tried after everything else, with this outcome.
fn tried(evidence: &mut Evidence, intent: Intent, outcome: Outcome) -> OperationId {
    let span = the_end(evidence);
    evidence.history.operations.push(intent);
    let operation = OperationId(evidence.history.operations.len() as u32 - 1);
    evidence.history.attempts.push(Attempt {
        operation,
        span,
        outcome,
    });
    operation
}

/// An operation gets no answer.
pub(super) fn unanswered(evidence: &mut Evidence, intent: Intent) -> OperationId {
    tried(evidence, intent, Outcome::Unknown("no answer".into()))
}

pub(super) fn change_answer(evidence: &mut Evidence, at: Index) -> Option<Kind> {
    let (index, ..) = pick(acknowledged(&evidence.history), at)?;
    let mut repeat = evidence.history.attempts[index].clone();
    let Outcome::Done(done) = &mut repeat.outcome else {
        return None;
    };
    done.answer += 1;
    evidence.history.attempts.push(repeat);
    Some(Kind::OtherAnswer)
}

/// The key's answer is lost: a repeat is done anew, and finds that it cannot be.
pub(super) fn forget_key(evidence: &mut Evidence, at: Index) -> Option<Kind> {
    let (index, ..) = pick(acknowledged(&evidence.history), at)?;
    let operation = evidence.history.attempts[index].operation;
    let refusal = match evidence.history.intent(operation)? {
        Intent::CreateUser => Refusal::Other(409),
        Intent::CreateOrder { .. } => Refusal::Absent,
        Intent::UpdateUser { .. } => Refusal::Stale,
        Intent::Process { .. } | Intent::Cancel { .. } => Refusal::Status,
    };
    let span = the_end(evidence);
    evidence.history.attempts.push(Attempt {
        operation,
        span,
        outcome: Outcome::Refused(refusal),
    });
    Some(Kind::OtherAnswer)
}

pub(super) fn refuse(evidence: &mut Evidence, at: Index) -> Option<Kind> {
    let row = pick(evidence.contents.users.clone(), at)?;
    let acknowledged = acknowledged(&evidence.history);
    acknowledged.iter().find(|write| write.1 == row.key)?;
    let base = row.version;
    // Nobody else may have tried to replace the same version.
    let tried = evidence.history.operations.iter();
    let mut rivals = tried.filter(
        |intent| matches!(intent, Intent::UpdateUser { user, base: other } if *user == row.key && *other >= base),
    );
    if rivals.next().is_some() {
        return None;
    }
    refused(evidence, Intent::UpdateUser { user: row.key, base }, Refusal::Stale);
    Some(Kind::RefusedWithoutCause)
}

fn refused(evidence: &mut Evidence, intent: Intent, refusal: Refusal) {
    tried(evidence, intent, Outcome::Refused(refusal));
}

pub(super) fn deny(evidence: &mut Evidence, at: Index) -> Option<Kind> {
    let creations = acknowledged(&evidence.history).into_iter();
    let (_, key, _) = pick(creations.filter(|write| write.2 == 1).collect(), at)?;
    refused(evidence, Intent::Process { order: key }, Refusal::Absent);
    Some(Kind::RefusedWithoutCause)
}

pub(super) fn deny_user(evidence: &mut Evidence, at: Index) -> Option<Kind> {
    let users: Vec<Uuid> = evidence.contents.users.iter().map(|user| user.key).collect();
    let creations = acknowledged(&evidence.history).into_iter();
    let (_, user, _) = pick(creations.filter(|write| users.contains(&write.1)).collect(), at)?;
    refused(evidence, Intent::CreateOrder { user }, Refusal::Absent);
    Some(Kind::RefusedWithoutCause)
}

pub(super) fn refuse_creation(evidence: &mut Evidence, at: Index) -> Option<Kind> {
    let user = pick(evidence.contents.users.clone(), at)?.key;
    let intents = [Intent::CreateUser, Intent::CreateOrder { user }];
    let refusals = [
        Refusal::Other(409),
        Refusal::Other(422),
        Refusal::Stale,
        Refusal::Status,
    ];
    refused(evidence, intents[at.index(2)], refusals[at.index(4)]);
    Some(Kind::RefusedWithoutCause)
}

/// Two updates of one version, neither of them answered, each of which somebody has seen.
pub(super) fn show_two_contents(evidence: &mut Evidence, at: Index) -> Option<Kind> {
    let user = pick(evidence.contents.users.clone(), at)?;
    for _ in 0..2 {
        shown_update(evidence, user.key, user.version);
    }
    Some(Kind::VersionTwice)
}

/// The same, where one was seen and the other is there in the end.
pub(super) fn store_other_contents(evidence: &mut Evidence, at: Index) -> Option<Kind> {
    let user = pick(evidence.contents.users.clone(), at)?;
    let base = user.version;
    shown_update(evidence, user.key, base);
    let by = unanswered(evidence, Intent::UpdateUser { user: user.key, base });
    let row = stored(evidence, user.key)?;
    row.version = base + 1;
    row.content = Some(Content {
        by,
        status: Status::Created,
    });
    Some(Kind::VersionTwice)
}

/// An update that gets no answer, and a read that sees it.
fn shown_update(evidence: &mut Evidence, user: Uuid, base: i64) {
    let by = unanswered(evidence, Intent::UpdateUser { user, base });
    let read = Read {
        key: user,
        span: the_end(evidence),
        consistency: Consistency::Session([].into()),
        seen: Sight::Found {
            version: base + 1,
            content: Content {
                by,
                status: Status::Created,
            },
            covers: [].into(),
        },
    };
    evidence.history.reads.push(read);
}

/// A read of a row in its state before `version`, by the history; of version 1, that there is none.
fn sight_before(evidence: &Evidence, key: Uuid, version: i64, covers: &[Token]) -> Option<Sight> {
    if version == 1 {
        return Some(Sight::Absent);
    }
    Some(Sight::Found {
        version: version - 1,
        content: content_at(&evidence.history, key, version - 1)?,
        covers: covers.into(),
    })
}

pub(super) fn stale_strong(evidence: &mut Evidence, at: Index) -> Option<Kind> {
    let (_, key, version) = pick(acknowledged(&evidence.history), at)?;
    let read = Read {
        key,
        span: the_end(evidence),
        consistency: Consistency::Strong,
        seen: sight_before(evidence, key, version, &[])?,
    };
    evidence.history.reads.push(read);
    Some(Kind::StaleStrongRead)
}

pub(super) fn stale_after_read(evidence: &mut Evidence, at: Index) -> Option<Kind> {
    let strong = evidence
        .history
        .reads
        .iter()
        .filter(|read| read.consistency == Consistency::Strong);
    let seen = strong.filter(|read| read.seen.version().is_some_and(|version| version > 0));
    let earlier = pick(seen.cloned().collect(), at)?;
    let mut read = earlier.clone();
    // Long after it: then it matters no more whether the write's own answer ever came.
    read.span = the_end(evidence);
    read.seen = sight_before(evidence, read.key, earlier.seen.version()?, &[])?;
    evidence.history.reads.push(read);
    Some(Kind::StaleStrongRead)
}

pub(super) fn stale_session(evidence: &mut Evidence, at: Index) -> Option<Kind> {
    let (index, key, version) = pick(acknowledged(&evidence.history), at)?;
    let Outcome::Done(done) = evidence.history.attempts[index].outcome.clone() else {
        return None;
    };
    let read = Read {
        key,
        span: the_end(evidence),
        consistency: Consistency::Session(done.covers.clone()),
        seen: sight_before(evidence, key, version, &done.covers)?,
    };
    evidence.history.reads.push(read);
    Some(Kind::StaleSessionRead)
}

/// Long after everything, what was acknowledged has reached every replica that may answer.
pub(super) fn stale_loose(evidence: &mut Evidence, at: Index) -> Option<Kind> {
    let (_, key, version) = pick(acknowledged(&evidence.history), at)?;
    let Span { start, end } = the_end(evidence);
    let read = Read {
        key,
        span: Span {
            start: Moment(start.0 + OLDEST),
            end: Moment(end.0 + OLDEST),
        },
        consistency: Consistency::Session([].into()),
        seen: sight_before(evidence, key, version, &[])?,
    };
    evidence.history.reads.push(read);
    Some(Kind::StaleSessionRead)
}

pub(super) fn dream(evidence: &mut Evidence, at: Index) -> Option<Kind> {
    let reads = evidence.history.reads.iter().enumerate();
    let found = reads.filter(|(_, read)| matches!(read.seen, Sight::Found { .. }));
    let index = pick(found.map(|(index, _)| index).collect(), at)?;
    if let Sight::Found { version, .. } = &mut evidence.history.reads[index].seen {
        *version += 1_000;
    }
    Some(Kind::ReadFromNowhere)
}
