//! Histories made by hand: one of each offence, and innocent ones that look like it.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::contents::{Claim, Contact, Contents, StoredRow};
use super::ownership::{BookRow, RangeState};
use super::reads::OLDEST;
use super::record::*;
use super::{Kind, check};

/// One shard owns everything; one user, with what the clients did to it.
#[derive(Default)]
struct Case {
    history: History,
    stored: Option<(i64, OperationId)>,
}

const USER: Uuid = Uuid::from_u128(0x1234_5678_0000_8000_8000_0000_0000_0001);

fn span(start: u64, end: u64) -> Span {
    Span {
        start: Moment(start),
        end: Moment(end),
    }
}

fn token(lsn: u64) -> Token {
    Token { shard: 0, term: 1, lsn }
}

impl Case {
    /// A user created at [0, 10], covered by position 1 of the log, and stored as it was.
    fn new() -> Self {
        let mut case = Self::default();
        let creation = case.wish(Intent::CreateUser);
        case.done(creation, (0, 10), 1);
        case.stored = Some((1, creation));
        case
    }

    fn wish(&mut self, intent: Intent) -> OperationId {
        self.history.operations.push(intent);
        OperationId(self.history.operations.len() as u32 - 1)
    }

    fn attempt(&mut self, operation: OperationId, at: (u64, u64), outcome: Outcome) {
        let span = span(at.0, at.1);
        self.history.attempts.push(Attempt {
            operation,
            span,
            outcome,
        });
    }

    /// Acknowledged with this version; the log's position is the version too.
    fn done(&mut self, operation: OperationId, at: (u64, u64), version: i64) {
        let done = Done {
            key: USER,
            version,
            covers: [token(version as u64)].into(),
            answer: u64::from(operation.0),
        };
        self.attempt(operation, at, Outcome::Done(done));
    }

    fn unknown(&mut self, operation: OperationId, at: (u64, u64)) {
        self.attempt(operation, at, Outcome::Unknown("the connection broke".into()));
    }

    fn update(&mut self, base: i64) -> OperationId {
        self.wish(Intent::UpdateUser { user: USER, base })
    }

    fn read(&mut self, consistency: Consistency, at: (u64, u64), seen: Option<(i64, OperationId)>) {
        let seen = seen.map_or(Sight::Absent, |(version, by)| Sight::Found {
            version,
            content: Content {
                by,
                status: Status::Created,
            },
            covers: [token(version as u64)].into(),
        });
        self.history.reads.push(Read {
            key: USER,
            span: span(at.0, at.1),
            consistency,
            seen,
        });
    }

    fn contents(&self) -> Contents {
        let everything = BookRow {
            lo: 0,
            hi: 1 << 32,
            generation: 1,
            state: RangeState::Owned,
            peer: None,
        };
        let claim = |number, contact| Claim {
            shard: 0,
            key: Uuid::from_u128(number),
            user: USER,
            contact,
            is_held: true,
        };
        let stored = self.stored.map(|(version, by)| StoredRow {
            shard: 0,
            key: USER,
            version,
            created_by: Some(OperationId(0)),
            content: Some(Content {
                by,
                status: Status::Created,
            }),
        });
        Contents {
            users: stored.into_iter().collect(),
            claims: match self.stored {
                Some(_) => vec![claim(1, Contact::Email), claim(2, Contact::Mobile)],
                None => Vec::new(),
            },
            books: BTreeMap::from([(0, vec![everything])]),
            ..Contents::default()
        }
    }

    fn kinds(&self) -> Vec<Kind> {
        self.kinds_with(&self.contents())
    }

    fn kinds_with(&self, contents: &Contents) -> Vec<Kind> {
        let mut kinds: Vec<Kind> = check(&self.history, &[], contents)
            .into_iter()
            .map(|violation| violation.kind)
            .collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }
}

#[test]
fn a_plain_story_is_innocent() {
    let mut case = Case::new();
    let update = case.update(1);
    case.done(update, (20, 30), 2);
    case.read(Consistency::Strong, (31, 40), Some((2, update)));
    // Without a token an older version is no offence.
    case.read(Consistency::Session([].into()), (50, 60), Some((1, OperationId(0))));
    case.stored = Some((2, update));
    assert_eq!(case.kinds(), []);
}

#[test]
fn what_is_concurrent_may_have_happened_in_any_order() {
    let mut case = Case::new();
    let (one, other) = (case.update(1), case.update(1));
    case.done(one, (20, 40), 2);
    case.attempt(other, (25, 35), Outcome::Refused(Refusal::Stale));
    case.read(Consistency::Strong, (22, 38), Some((1, OperationId(0))));
    case.read(Consistency::Strong, (23, 39), Some((2, one)));
    case.stored = Some((2, one));
    assert_eq!(case.kinds(), []);
}

#[test]
fn an_unknown_outcome_may_be_there_or_not() {
    for stored in [1, 2] {
        let mut case = Case::new();
        let update = case.update(1);
        case.unknown(update, (20, 30));
        case.stored = Some(if stored == 1 { (1, OperationId(0)) } else { (2, update) });
        assert_eq!(case.kinds(), [], "at version {stored}");
    }
}

#[test]
fn an_unknown_outcome_that_was_seen_by_a_strong_read_has_to_stay() {
    let mut case = Case::new();
    let update = case.update(1);
    case.unknown(update, (20, 30));
    case.read(Consistency::Strong, (40, 50), Some((2, update)));
    case.read(Consistency::Strong, (60, 70), Some((1, OperationId(0))));
    assert_eq!(case.kinds(), [Kind::StaleStrongRead]);
}

#[test]
fn an_unknown_outcome_cannot_be_there_twice() {
    let mut case = Case::new();
    let update = case.update(1);
    case.unknown(update, (20, 30));
    case.stored = Some((3, update));
    assert_eq!(case.kinds(), [Kind::WrittenByNobody]);
}

#[test]
fn a_lost_row_and_a_lost_update_are_found() {
    let mut case = Case::new();
    case.stored = None;
    assert_eq!(case.kinds(), [Kind::LostWrite]);
    let mut case = Case::new();
    let update = case.update(1);
    case.done(update, (20, 30), 2);
    assert_eq!(case.kinds(), [Kind::LostWrite]);
}

#[test]
fn one_version_for_two_updates_is_found() {
    let mut case = Case::new();
    let (one, other) = (case.update(1), case.update(1));
    case.done(one, (20, 30), 2);
    case.done(other, (22, 32), 2);
    case.stored = Some((2, other));
    assert_eq!(case.kinds(), [Kind::VersionTwice]);
}

#[test]
fn a_repeat_that_makes_a_second_version_is_found() {
    let mut case = Case::new();
    let update = case.update(1);
    case.unknown(update, (20, 30));
    case.done(update, (40, 50), 3);
    case.stored = Some((3, update));
    assert!(case.kinds().contains(&Kind::VersionTwice));
}

#[test]
fn a_refusal_by_a_version_that_nobody_wrote_is_found() {
    let mut case = Case::new();
    let update = case.update(1);
    case.attempt(update, (20, 30), Outcome::Refused(Refusal::Stale));
    assert_eq!(case.kinds(), [Kind::RefusedWithoutCause]);
}

#[test]
fn reads_that_miss_what_they_must_see_are_found() {
    let mut case = Case::new();
    let update = case.update(1);
    case.done(update, (20, 30), 2);
    case.stored = Some((2, update));
    case.read(Consistency::Strong, (31, 40), Some((1, OperationId(0))));
    assert_eq!(case.kinds(), [Kind::StaleStrongRead]);

    case.history.reads.clear();
    case.read(
        Consistency::Session([token(2)].into()),
        (31, 40),
        Some((1, OperationId(0))),
    );
    assert_eq!(case.kinds(), [Kind::StaleSessionRead]);

    // A token of another shard, or of before, asks for nothing of the kind.
    case.history.reads.clear();
    let elsewhere = Token { shard: 1, ..token(9) };
    case.read(
        Consistency::Session([token(1), elsewhere].into()),
        (31, 40),
        Some((1, OperationId(0))),
    );
    assert_eq!(case.kinds(), []);
    // One of a later term covers all that was acknowledged before.
    let later = Token { term: 2, ..token(0) };
    case.read(
        Consistency::Session([later].into()),
        (50, 60),
        Some((1, OperationId(0))),
    );
    assert_eq!(case.kinds(), [Kind::StaleSessionRead]);
}

#[test]
fn a_read_of_the_future_is_found() {
    let mut case = Case::new();
    let update = case.update(1);
    case.done(update, (20, 30), 2);
    case.stored = Some((2, update));
    case.read(Consistency::Strong, (12, 19), Some((2, update)));
    assert_eq!(case.kinds(), [Kind::ReadFromNowhere]);
}

#[test]
fn an_acknowledged_update_is_not_excused_by_one_of_unknown_outcome() {
    let mut case = Case::new();
    let (acknowledged, rival) = (case.update(1), case.update(1));
    case.done(acknowledged, (20, 30), 2);
    case.unknown(rival, (20, 30));
    case.stored = Some((2, rival));
    assert_eq!(case.kinds(), [Kind::LostWrite]);

    case.stored = Some((2, acknowledged));
    case.read(Consistency::Strong, (40, 50), Some((2, rival)));
    assert_eq!(case.kinds(), [Kind::VersionTwice, Kind::ReadFromNowhere]);
}

#[test]
fn one_version_of_two_unknown_outcomes_may_be_seen_of_either_and_not_of_both() {
    let mut case = Case::new();
    let (one, other) = (case.update(1), case.update(1));
    case.unknown(one, (20, 30));
    case.unknown(other, (20, 30));
    case.stored = Some((2, one));
    case.read(Consistency::Strong, (40, 50), Some((2, one)));
    assert_eq!(case.kinds(), []);
    case.read(Consistency::Session([].into()), (40, 50), Some((2, other)));
    assert_eq!(case.kinds(), [Kind::VersionTwice]);
}

#[test]
fn what_was_seen_of_a_master_that_died_right_after_may_be_undone() {
    let mut case = Case::new();
    let (died, survived) = (case.update(1), case.update(1));
    case.unknown(died, (20, 30));
    case.read(Consistency::Session([].into()), (21, 25), Some((2, died)));
    let later = |operation, at, version, lsn| Attempt {
        operation,
        span: at,
        outcome: Outcome::Done(Done {
            key: USER,
            version,
            covers: [Token { term: 2, ..token(lsn) }].into(),
            answer: u64::from(operation.0),
        }),
    };
    case.history.attempts.push(later(survived, span(40, 50), 2, 2));
    case.stored = Some((2, survived));
    assert_eq!(case.kinds(), []);

    // Not if the old term went on: what was acknowledged in it later proves that the master had lost nothing.
    let next = case.update(2);
    case.done(next, (26, 60), 3);
    case.stored = Some((3, next));
    assert_eq!(case.kinds(), [Kind::ReadFromNowhere]);
}

#[test]
fn a_refusal_of_what_was_done_is_found_whatever_the_cause() {
    for refusal in [Refusal::Stale, Refusal::Status, Refusal::Absent, Refusal::Other(422)] {
        let mut case = Case::new();
        let (update, next) = (case.update(1), case.update(2));
        case.done(update, (20, 30), 2);
        case.done(next, (31, 35), 3);
        case.attempt(update, (40, 50), Outcome::Refused(refusal));
        case.stored = Some((3, next));
        assert!(case.kinds().contains(&Kind::OtherAnswer), "{refusal:?}");
    }
    // One that was still under way when the other was answered may have come before it, and had a cause then.
    let mut case = Case::new();
    let (update, next) = (case.update(1), case.update(2));
    case.attempt(update, (20, 40), Outcome::Refused(Refusal::Stale));
    case.done(update, (25, 30), 2);
    case.done(next, (31, 35), 3);
    case.stored = Some((3, next));
    assert_eq!(case.kinds(), []);
}

#[test]
fn refusals_of_creations_are_judged() {
    let order = Intent::CreateOrder { user: USER };
    for (intent, refusal) in [
        (order, Refusal::Absent),
        (order, Refusal::Other(422)),
        (Intent::CreateUser, Refusal::Other(409)),
        (Intent::CreateUser, Refusal::Absent),
    ] {
        let mut case = Case::new();
        let creation = case.wish(intent);
        // That an attempt of its own was lost is no cause: the key is there for that.
        case.unknown(creation, (11, 15));
        case.attempt(creation, (20, 30), Outcome::Refused(refusal));
        assert_eq!(case.kinds(), [Kind::RefusedWithoutCause], "{intent} {refusal:?}");
    }
    // While the user is being created, it may not be there yet.
    let mut case = Case::new();
    let early = case.wish(order);
    case.attempt(early, (5, 30), Outcome::Refused(Refusal::Absent));
    assert_eq!(case.kinds(), []);
}

#[test]
fn a_read_sees_what_was_known_for_seconds_whatever_its_tokens() {
    let elsewhere = Token { shard: 1, ..token(9) };
    for tokens in [vec![], vec![token(1)], vec![elsewhere]] {
        let mut case = Case::new();
        let update = case.update(1);
        case.done(update, (20, 30), 2);
        case.stored = Some((2, update));
        let session = Consistency::Session(tokens.into());
        case.read(session.clone(), (30 + OLDEST, 40 + OLDEST), Some((1, OperationId(0))));
        assert_eq!(case.kinds(), []);
        case.read(session.clone(), (31 + OLDEST, 40 + OLDEST), Some((1, OperationId(0))));
        assert_eq!(case.kinds(), [Kind::StaleSessionRead]);
        case.history.reads.clear();
        case.read(session, (31 + OLDEST, 40 + OLDEST), None);
        assert_eq!(case.kinds(), [Kind::StaleSessionRead]);
    }
}

#[test]
fn a_token_asks_for_nothing_that_nobody_was_sure_of_yet() {
    // Not acknowledged before the read began: whoever had such a token had it of another write.
    let mut case = Case::new();
    let update = case.update(1);
    case.done(update, (20, 30), 2);
    case.stored = Some((2, update));
    let with_token = || Consistency::Session([token(2)].into());
    case.read(with_token(), (25, 40), Some((1, OperationId(0))));
    assert_eq!(case.kinds(), []);

    // A replica has shown it to one: to the next it may be gone with the master, unless it is confirmed.
    case.history.reads.clear();
    case.history.attempts.pop();
    case.unknown(update, (20, 30));
    case.read(with_token(), (21, 25), Some((2, update)));
    case.read(with_token(), (60, 70), Some((1, OperationId(0))));
    assert_eq!(case.kinds(), []);
    case.read(Consistency::Strong, (40, 50), Some((2, update)));
    assert_eq!(case.kinds(), [Kind::StaleSessionRead]);
}

#[test]
fn every_stored_user_has_one_claim_of_each_kind_and_nobody_else_holds_one() {
    let case = Case::new();
    let kinds = |change: fn(&mut Vec<Claim>)| {
        let mut contents = case.contents();
        change(&mut contents.claims);
        case.kinds_with(&contents)
    };
    assert_eq!(kinds(|_| {}), []);
    assert_eq!(kinds(|claims| claims[1].is_held = false), []);
    assert_eq!(kinds(|claims| claims.truncate(1)), [Kind::LostWrite]);
    assert_eq!(
        kinds(|claims| claims[1].contact = Contact::Email),
        [Kind::LostWrite, Kind::WrittenTwice]
    );
    let of_another = |claims: &mut Vec<Claim>| {
        let claim = claims[0].clone();
        claims.push(Claim {
            key: Uuid::from_u128(7),
            user: Uuid::from_u128(7),
            ..claim
        });
    };
    assert_eq!(kinds(of_another), [Kind::WrittenByNobody]);
    let pending = |claims: &mut Vec<Claim>| {
        let claim = claims[0].clone();
        claims.push(Claim {
            key: Uuid::from_u128(7),
            user: Uuid::from_u128(7),
            is_held: false,
            ..claim
        });
    };
    assert_eq!(kinds(pending), []);
}

#[test]
fn the_report_carries_the_lines_that_prove_it() {
    let mut case = Case::new();
    let update = case.update(1);
    case.done(update, (20, 30), 2);
    let found = check(&case.history, &[], &case.contents());
    let report = super::report(&found);
    assert!(report.contains("LostWrite (invariant 3): 1"), "{report}");
    assert!(
        report.contains(&format!("update user {USER} at version 1: done")),
        "{report}"
    );
    assert!(report.contains(&format!("shard 0 has {USER} at version 1")), "{report}");
}
