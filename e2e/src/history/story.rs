//! The history sorted by operation and by row, as the checks need it.

use std::collections::HashMap;

use uuid::Uuid;

use super::record::{Attempt, Content, Done, History, Intent, Moment, OperationId, Outcome, Read, Sight, Span, Status};
use super::terms::Terms;

/// What became of one operation over all its attempts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fate<'h> {
    /// Before the first attempt; it cannot have taken effect earlier.
    pub(super) began: Moment,
    /// Its first acknowledgement, and before that the whole time in which it may have taken effect.
    pub(super) done: Option<(&'h Done, Span)>,
    /// Whether an attempt's outcome is not known.
    pub(super) unknown: bool,
}

impl Fate<'_> {
    /// Whether it did or may have taken effect.
    pub(super) fn may_have_happened(&self) -> bool {
        self.done.is_some() || self.unknown
    }
}

/// An acknowledged write of a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Write<'h> {
    pub(super) operation: OperationId,
    pub(super) done: &'h Done,
    /// From the start of the first attempt to the end of the one that was acknowledged.
    pub(super) span: Span,
}

/// All that was done to one row.
#[derive(Debug, Clone, Default)]
pub(super) struct Story<'h> {
    /// Acknowledged, by version; of two with one version, in the order of their spans.
    pub(super) writes: Vec<Write<'h>>,
    /// Changes of which it is not known whether they were made.
    pub(super) maybe: Vec<OperationId>,
}

impl Story<'_> {
    /// How many versions the row can have come to: the first, and one for each change that may have been made.
    fn most_versions(&self) -> i64 {
        let changes = self.writes.iter().filter(|write| write.done.version > 1).count() + self.maybe.len();
        1 + changes as i64
    }
}

/// The history, sorted.
#[derive(Debug)]
pub(super) struct Stories<'h> {
    pub(super) history: &'h History,
    /// By operation; `None` where it was never sent.
    fates: Vec<Option<Fate<'h>>>,
    rows: HashMap<Uuid, Story<'h>>,
    /// Every attempt's operation and index, in order.
    attempts: Vec<(OperationId, usize)>,
    terms: Terms,
}

impl<'h> Stories<'h> {
    pub(super) fn new(history: &'h History) -> Self {
        let mut fates: Vec<Option<Fate<'h>>> = vec![None; history.operations.len()];
        for attempt in &history.attempts {
            if let Some(fate) = fates.get_mut(attempt.operation.0 as usize) {
                *fate = Some(add(fate.take(), attempt));
            }
        }
        let mut rows: HashMap<Uuid, Story<'h>> = HashMap::new();
        for (number, fate) in fates.iter().enumerate() {
            let (Some(fate), operation) = (fate, OperationId(number as u32)) else {
                continue;
            };
            match fate.done {
                Some((done, span)) => rows
                    .entry(done.key)
                    .or_default()
                    .writes
                    .push(Write { operation, done, span }),
                None if fate.unknown => {
                    if let Some(key) = history.operations[number].changes() {
                        rows.entry(key).or_default().maybe.push(operation);
                    }
                }
                None => {}
            }
        }
        for story in rows.values_mut() {
            story.writes.sort_by_key(|write| (write.done.version, write.span.start));
        }
        let attempts = history.attempts.iter().enumerate();
        let mut attempts: Vec<(OperationId, usize)> =
            attempts.map(|(index, attempt)| (attempt.operation, index)).collect();
        attempts.sort_unstable();
        Self {
            history,
            fates,
            rows,
            attempts,
            terms: Terms::of(history),
        }
    }

    /// The attempts at an operation as lines, for a proof.
    pub(super) fn lines_of(&self, operation: OperationId) -> Vec<String> {
        let Some(intent) = self.history.intent(operation) else {
            return vec![format!("{operation}: no client asked for this")];
        };
        let first = self.attempts.partition_point(|(other, _)| *other < operation);
        let attempts = self.attempts[first..]
            .iter()
            .take_while(|(other, _)| *other == operation);
        attempts
            .map(|(_, index)| &self.history.attempts[*index])
            .map(|attempt| format!("{} {operation}: {intent}: {}", attempt.span, attempt.outcome))
            .collect()
    }

    /// What became of an operation; `None` if no client ever sent it.
    pub(super) fn fate(&self, operation: OperationId) -> Option<&Fate<'h>> {
        self.fates.get(operation.0 as usize)?.as_ref()
    }

    /// Every row of which something is known, in no order.
    pub(super) fn rows(&self) -> impl Iterator<Item = (Uuid, &Story<'h>)> {
        self.rows.iter().map(|(key, story)| (*key, story))
    }

    /// What was done to a row.
    pub(super) fn row(&self, key: Uuid) -> Option<&Story<'h>> {
        self.rows.get(&key)
    }

    /// The operations that can have given a row this version with this content: what was acknowledged so; only where
    /// nothing was, what may have happened and would have been so.
    pub(super) fn authors(&self, key: Uuid, version: i64, content: Content) -> Vec<OperationId> {
        let mut authors = self.candidates(key, version, content);
        let acknowledged = |operation: &OperationId| {
            let mut writes = self.row(key).into_iter().flat_map(|story| &story.writes);
            writes.any(|write| write.done.version == version && write.operation == *operation)
        };
        if self.is_acknowledged(key, version) {
            authors.retain(acknowledged);
        }
        authors
    }

    /// The authors of what a read saw. It may have seen a write that its master then took with it, and the version was
    /// given to another one: all that may have happened counts then.
    pub(super) fn authors_of_seen(&self, read: &Read) -> Vec<OperationId> {
        let Sight::Found { version, content, .. } = &read.seen else {
            return Vec::new();
        };
        if self.terms.may_be_undone(read) {
            self.candidates(read.key, *version, *content)
        } else {
            self.authors(read.key, *version, *content)
        }
    }

    /// Whether what a read saw may have died with its master.
    pub(super) fn may_be_undone(&self, read: &Read) -> bool {
        self.terms.may_be_undone(read)
    }

    /// Whether a write of this version was acknowledged.
    pub(super) fn is_acknowledged(&self, key: Uuid, version: i64) -> bool {
        let story = self.row(key);
        story.is_some_and(|story| story.writes.iter().any(|write| write.done.version == version))
    }

    /// The operations that would have given a row this version with this content, if nobody else did.
    fn candidates(&self, key: Uuid, version: i64, content: Content) -> Vec<OperationId> {
        let fits = |operation: OperationId| self.result(operation, version) == Some(content.status);
        if version == 1 {
            let Some(fate) = self.fate(content.by) else {
                return Vec::new();
            };
            let here = fate.done.is_none_or(|(done, _)| done.key == key && done.version == 1);
            let possible = here && fate.may_have_happened() && self.creates(content.by) && fits(content.by);
            return if possible { vec![content.by] } else { Vec::new() };
        }
        let Some(story) = self.row(key) else { return Vec::new() };
        let acknowledged = story.writes.iter().filter(|write| write.done.version == version);
        // Of a change of an order that was not acknowledged the version is not known, only how high it can be.
        let maybe = story.maybe.iter().copied();
        let maybe = maybe.filter(|operation| !self.changes_order(*operation) || version <= story.most_versions());
        let candidates = acknowledged.map(|write| write.operation).chain(maybe);
        candidates
            .filter(|operation| fits(*operation) && self.carries(*operation, content.by))
            .collect()
    }

    fn changes_order(&self, operation: OperationId) -> bool {
        let intent = self.history.intent(operation);
        matches!(intent, Some(Intent::Process { .. } | Intent::Cancel { .. }))
    }

    fn creates(&self, operation: OperationId) -> bool {
        self.history
            .intent(operation)
            .is_some_and(|intent| intent.changes().is_none())
    }

    /// The status of a row after an operation that made this version of it; `None` if it cannot have made it.
    fn result(&self, operation: OperationId, version: i64) -> Option<Status> {
        match self.history.intent(operation)? {
            Intent::CreateUser | Intent::CreateOrder { .. } => (version == 1).then_some(Status::Created),
            Intent::UpdateUser { base, .. } => (version == base + 1).then_some(Status::Created),
            Intent::Process { .. } => (version > 1).then_some(Status::Processed),
            Intent::Cancel { .. } => (version > 1).then_some(Status::Cancelled),
        }
    }

    /// Whether a row written by `operation` names `by`: users name who wrote them last, orders who placed them.
    fn carries(&self, operation: OperationId, by: OperationId) -> bool {
        match self.history.intent(operation) {
            Some(Intent::Process { order } | Intent::Cancel { order }) => {
                let placed = self.row(*order).and_then(|story| story.writes.first());
                placed.is_none_or(|first| first.done.version != 1 || first.operation == by)
            }
            _ => operation == by,
        }
    }
}

fn add<'h>(fate: Option<Fate<'h>>, attempt: &'h Attempt) -> Fate<'h> {
    let mut fate = fate.unwrap_or(Fate {
        began: attempt.span.start,
        done: None,
        unknown: false,
    });
    fate.began = fate.began.min(attempt.span.start);
    match &attempt.outcome {
        Outcome::Done(done) => {
            if fate.done.is_none_or(|(_, span)| attempt.span.end < span.end) {
                fate.done = Some((done, attempt.span));
            }
        }
        Outcome::Unknown(_) => fate.unknown = true,
        Outcome::Refused(_) => {}
    }
    if let Some((_, span)) = &mut fate.done {
        span.start = fate.began;
    }
    fate
}
