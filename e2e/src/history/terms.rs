//! What the history tells of failovers.

use std::collections::HashMap;

use super::record::{History, Moment, Outcome, Read, Sight, Token};

/// A master shows a commit to others before its standby has it. If it dies just then, the commit is gone, and a read may
/// have seen what then was never there. Nobody was told that the write is done, so this breaks no promise; it can only
/// be so at the end of a master's term, of which this knows.
#[derive(Debug)]
pub(super) struct Terms {
    /// The newest term of each shard that an answer told of.
    newest: HashMap<u16, u32>,
    /// By shard and term: when the last write began that was acknowledged in it. Its commit came later still, and all
    /// that the log had before that commit is as lasting.
    settled: HashMap<(u16, u32), Moment>,
}

impl Terms {
    pub(super) fn of(history: &History) -> Self {
        let mut terms = Self {
            newest: HashMap::new(),
            settled: HashMap::new(),
        };
        for attempt in &history.attempts {
            let Outcome::Done(done) = &attempt.outcome else {
                continue;
            };
            for token in &done.covers {
                terms.hear(token);
                let last = terms.settled.entry((token.shard, token.term)).or_default();
                *last = (*last).max(attempt.span.start);
            }
        }
        for read in &history.reads {
            if let Sight::Found { covers, .. } = &read.seen {
                covers.iter().for_each(|token| terms.hear(token));
            }
        }
        terms
    }

    fn hear(&mut self, token: &Token) {
        let newest = self.newest.entry(token.shard).or_default();
        *newest = (*newest).max(token.term);
    }

    /// Whether what a read saw may have died with its master: another term followed, and no write that began after the
    /// read was acknowledged before that.
    pub(super) fn may_be_undone(&self, read: &Read) -> bool {
        let Sight::Found { covers, .. } = &read.seen else {
            return false;
        };
        covers.iter().any(|token| {
            let is_over = self.newest.get(&token.shard).is_some_and(|newest| token.term < *newest);
            let settled = self.settled.get(&(token.shard, token.term));
            is_over && settled.is_none_or(|last| *last <= read.span.end)
        })
    }
}
