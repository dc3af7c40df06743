//! Invariant 4: a strong read sees the newest write acknowledged before it began; a session read is never older than
//! its token; and no read sees what nobody wrote.

use std::collections::HashMap;

use uuid::Uuid;

use super::record::{Consistency, Moment, Read, Sight, Token};
use super::story::{Stories, Story};
use super::verdict::{Kind, Violation};

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
                    // From the newest version down: the first that is covered is what it has to see.
                    let covered = told.iter().find(|told| is_covered(told.covers, tokens));
                    if let Some(missed) = covered.filter(|told| told.version > version) {
                        found.push(stale(stories, Kind::StaleSessionRead, read, missed));
                    }
                }
            }
        }
    }
    found
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
    let Sight::Found { version, content, .. } = &read.seen else {
        return;
    };
    let authors = stories.authors(read.key, *version, *content);
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
