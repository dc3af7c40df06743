//! Invariant 4: a strong read sees the newest write acknowledged before it began; a session read is never older than
//! its token; and no read sees what nobody wrote.

use std::collections::HashMap;

use uuid::Uuid;

use super::record::{Consistency, Moment, Read, Sight, Token};
use super::story::{Stories, Story};
use super::verdict::{Kind, Violation};

/// Nanoseconds: what was known so long before a read began, the read sees, whatever tokens it sends.
///
/// The store promises 1 s (`store::config::ReadDefaults::max_staleness`), and counts it so that it can be held to it from
/// outside: a replica answers if, when it is chosen, it has replayed what the master's log held at a look that began no
/// more than 1 s before. The read had begun by then, and what it finds is the replica's state when the statement runs,
/// later still. What was acknowledged before the look is in the log of the look. So however long a program, the load or a
/// database stands still in between, the answer only becomes newer against the read's start, and a write counts here only
/// from when the load had read its answer, after the store gave it. All processes run on one machine's monotonic clock.
/// The other 3 s are for what is not thought of here: a read that is older still is wrong beyond doubt.
///
/// One thing is older by right: what a master answers that was cut off and has not noticed. The campaigns kill masters and
/// cut off none, and strong reads are held to more than this.
pub(super) const OLDEST: u64 = 4_000_000_000;

/// Somebody was told of a version of a row.
#[derive(Clone, Copy)]
struct Told<'h> {
    version: i64,
    at: Moment,
    covers: &'h [Token],
    how: How<'h>,
}

#[derive(Clone, Copy)]
enum How<'h> {
    Write(super::record::OperationId),
    Read(&'h Read),
}

/// Checks all reads.
pub(super) fn check(stories: &Stories<'_>) -> Vec<Violation> {
    let mut by_row: HashMap<Uuid, Vec<&Read>> = HashMap::new();
    for read in &stories.history.reads {
        by_row.entry(read.key).or_default().push(read);
    }
    let empty = Story::default();
    let mut found = Vec::new();
    for (key, reads) in by_row {
        let story = stories.row(key).unwrap_or(&empty);
        let newest = Newest::of(story, &reads);
        let told = told(story, &reads);
        for read in reads {
            let Some(version) = read.seen.version() else { continue };
            it_was_written(stories, read, &mut found);
            match &read.consistency {
                Consistency::Strong => {
                    if let Some(missed) = newest.before(read.span.start).filter(|told| told.version > version) {
                        found.push(stale(stories, Kind::StaleStrongRead, read, &missed));
                    }
                }
                Consistency::Session(tokens) => {
                    let missed = session_floor(&newest, &told, read.span.start, tokens);
                    if let Some(missed) = missed.filter(|told| told.version > version) {
                        found.push(stale(stories, Kind::StaleSessionRead, read, &missed));
                    }
                }
            }
        }
    }
    found
}

/// The newest version that a session read has to see: of what its tokens cover, and of what was known for long.
///
/// A token asks for nothing that nobody was sure of when the read began. A write counts once it is acknowledged; a replica
/// may show others a version before that, and so may a master that dies: what a session read saw counts once a write or a
/// strong read has confirmed that version or a later one.
fn session_floor<'h>(newest: &Newest<'h>, told: &[Told<'h>], start: Moment, tokens: &[Token]) -> Option<Told<'h>> {
    let sure = newest.before(start)?.version;
    let counts = |told: &&Told<'_>| match told.how {
        How::Write(_) => told.at < start,
        How::Read(_) => told.version <= sure,
    };
    // From the newest version down: the first that is covered is what it has to see.
    let mut told = told.iter().filter(counts);
    let covered = told.find(|told| is_covered(told.covers, tokens)).copied();
    let long_known = start.0.checked_sub(OLDEST).and_then(|then| newest.before(Moment(then)));
    covered.into_iter().chain(long_known).max_by_key(|told| told.version)
}

/// Whether whoever sends `tokens` is to see what an answer with `covers` told. An answer to a batch covers several
/// shards and does not say which of them had the row: all have to be covered then.
fn is_covered(covers: &[Token], tokens: &[Token]) -> bool {
    let sent = |needed: &Token| {
        tokens
            .iter()
            .any(|token| token.shard == needed.shard && token >= needed)
    };
    !covers.is_empty() && covers.iter().all(sent)
}

/// Every version that an answer told of, the newest first.
fn told<'h>(story: &Story<'h>, reads: &[&'h Read]) -> Vec<Told<'h>> {
    let writes = story.writes.iter().map(|write| Told {
        version: write.done.version,
        at: write.span.end,
        covers: &write.done.covers,
        how: How::Write(write.operation),
    });
    let reads = reads.iter().filter_map(|read| match &read.seen {
        Sight::Found { version, covers, .. } => Some(Told {
            version: *version,
            at: read.span.end,
            covers,
            how: How::Read(read),
        }),
        _ => None,
    });
    let mut told: Vec<Told<'h>> = writes.chain(reads).collect();
    told.sort_by_key(|told| std::cmp::Reverse(told.version));
    told
}

/// The newest version that a strong read has to see, by the time it begins: what was acknowledged, and what earlier
/// strong reads saw, for time does not run backwards for those who ask the master.
struct Newest<'h>(Vec<Told<'h>>);

impl<'h> Newest<'h> {
    fn of(story: &Story<'h>, reads: &[&'h Read]) -> Self {
        let all = told(story, reads);
        let mut proofs: Vec<Told<'h>> = all
            .into_iter()
            .filter(|told| match told.how {
                How::Write(_) => true,
                How::Read(read) => read.consistency == Consistency::Strong,
            })
            .collect();
        proofs.sort_by_key(|told| told.at);
        // From here on each entry is the newest of all up to it.
        let mut newest: Option<Told<'h>> = None;
        for told in &mut proofs {
            match newest {
                Some(before) if before.version >= told.version => *told = Told { at: told.at, ..before },
                _ => newest = Some(*told),
            }
        }
        Self(proofs)
    }

    fn before(&self, start: Moment) -> Option<Told<'h>> {
        let end = self.0.partition_point(|told| told.at < start);
        self.0[..end].last().copied()
    }
}

/// What a read saw was written, and not after it ended.
fn it_was_written(stories: &Stories<'_>, read: &Read, found: &mut Vec<Violation>) {
    let Sight::Found { version, .. } = &read.seen else {
        return;
    };
    let authors = stories.authors_of_seen(read);
    let in_time = authors
        .iter()
        .filter_map(|author| stories.fate(*author))
        .any(|fate| fate.began <= read.span.end);
    if !in_time {
        let mut proof = vec![read.to_string()];
        proof.extend(authors.iter().flat_map(|author| stories.lines_of(*author)));
        let what = format!("a read of {} saw version {version}, which nobody had written", read.key);
        found.push(Violation::new(Kind::ReadFromNowhere, what, proof));
    }
}

fn stale(stories: &Stories<'_>, kind: Kind, read: &Read, missed: &Told<'_>) -> Violation {
    let what = format!(
        "a read of {} saw version {}, and had to see version {}",
        read.key,
        read.seen.version().unwrap_or_default(),
        missed.version
    );
    let mut proof = match missed.how {
        How::Write(operation) => stories.lines_of(operation),
        How::Read(earlier) => vec![earlier.to_string()],
    };
    proof.push(read.to_string());
    Violation::new(kind, what, proof)
}
