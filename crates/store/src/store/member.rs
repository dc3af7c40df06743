//! What is known of a shard's members, and who may answer a read. Pure: no clock, no connection.

use std::time::{Duration, Instant};

use super::positions::Positions;
use crate::token::{Lsn, Term};

/// A replica whose last message from the master is older than this does not answer. One that has not been heard of for as
/// long is not waited for.
pub(crate) const MESSAGE_LIMIT: Duration = Duration::from_secs(1);
/// How far a token may be ahead of the log of its term before it is refused. A position told before the master crashed
/// can lie within a record that was not written to its end; no record is as long as this.
const UNFINISHED_RECORD: u64 = 16 << 20;

/// One look at a member, as it saw itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sample {
    /// When the look began, by this process's monotonic clock: what it shows is at least that new.
    pub(crate) began: Instant,
    /// The timeline: of a replica, the one it streams.
    pub(crate) term: Option<Term>,
    /// Flushed on a master, replayed on a replica.
    pub(crate) lsn: Lsn,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Master {
        /// The replicas that stream from it, by their `application_name` (Patroni: the pod's name).
        standbys: Vec<String>,
    },
    Replica {
        streaming: bool,
        /// Age of the last message from the master when the look was taken.
        last_message: Option<Duration>,
    },
}

impl Sample {
    /// For how long a replica that streams has heard nothing from its master.
    pub(crate) fn last_message(&self, now: Instant) -> Option<Duration> {
        match self.kind {
            Kind::Replica {
                streaming: true,
                last_message: Some(age),
            } => Some(age + now.saturating_duration_since(self.began)),
            _ => None,
        }
    }
}

/// What is known of one member.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) host: String,
    pub(crate) last: Result<Sample, String>,
}

impl View {
    pub(crate) fn sample(&self) -> Option<&Sample> {
        self.last.as_ref().ok()
    }

    /// Whether it has shown itself within [`MESSAGE_LIMIT`].
    pub(crate) fn is_heard(&self, now: Instant) -> bool {
        self.sample()
            .is_some_and(|sample| now.saturating_duration_since(sample.began) < MESSAGE_LIMIT)
    }

    /// The name under which it streams.
    pub(crate) fn name(&self) -> &str {
        member_name(&self.host)
    }
}

/// The name under which a member streams: the first label of its host name.
pub(crate) fn member_name(host: &str) -> &str {
    host.split(['.', ':']).next().unwrap_or(host)
}

/// What is known of a shard.
#[derive(Debug, Clone, Default)]
pub(crate) struct ShardView {
    pub(crate) members: Vec<View>,
    /// The highest term ever seen: a master of a lower one has been deposed.
    pub(crate) highest_term: Option<Term>,
    /// Where the log of that term's master stood at the last looks at it.
    pub(crate) positions: Positions,
    /// When a master came in sight: another one, or the same one again.
    pub(crate) master_since: Option<Instant>,
}

impl ShardView {
    /// The master of the newest term, if it has been reached.
    pub(crate) fn master(&self) -> Option<(&View, &Sample)> {
        self.members
            .iter()
            .filter_map(|view| Some((view, view.sample()?)))
            .filter(|(_, sample)| matches!(sample.kind, Kind::Master { .. }) && sample.term >= self.highest_term)
            .max_by_key(|(_, sample)| sample.term)
    }

    /// Whether looks at all of `hosts` that began at or after `since` show that none of them has come to `term` yet.
    ///
    /// Then a token of `term` that was there before `since` is not this shard's: whoever gave it was in that term, and a
    /// member's term only grows. As long as one member is out of reach, or does not stream and so tells no term, nothing
    /// is certain.
    pub(crate) fn never_reached(&self, term: Term, hosts: &[String], since: Instant) -> bool {
        let below = |host: &String| {
            let view = self.members.iter().find(|view| view.host == *host);
            view.and_then(View::sample)
                .is_some_and(|sample| sample.began >= since && sample.term.is_some_and(|seen| seen < term))
        };
        self.master().is_some() && self.highest_term < Some(term) && hosts.iter().all(below)
    }

    /// Replaces what is known of a member.
    pub(crate) fn record(&mut self, host: &str, last: Result<Sample, String>) {
        if let Ok(Sample {
            began,
            term: Some(term),
            lsn,
            kind: Kind::Master { .. },
        }) = &last
        {
            self.highest_term = self.highest_term.max(Some(*term));
            if self.highest_term == Some(*term) {
                self.positions.record(*term, *began, *lsn);
            }
        }
        match self.members.iter_mut().find(|view| view.host == host) {
            Some(view) => view.last = last,
            None => self.members.push(View {
                host: host.to_owned(),
                last,
            }),
        }
    }
}

/// What a session read needs of the shard that answers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Need {
    /// The client's token for this shard.
    pub(crate) token: Option<(Term, Lsn)>,
    /// A replica shows every commit acknowledged until so long before the read, whatever the token asks for.
    pub(crate) max_staleness: Duration,
}

impl Need {
    /// Whether a master of this term may answer: one of an older term than the token may have lost what it covers.
    pub(crate) fn met_by_master(&self, term: Option<Term>) -> bool {
        self.token
            .is_none_or(|(needed, _)| term.is_some_and(|term| term >= needed))
    }

    /// Whether the token is certainly not of this shard, whose master was at `lsn` of `term` after the token had come:
    /// the log of the token's own term does not reach so far.
    pub(crate) fn is_past_the_end(&self, term: Term, lsn: Lsn) -> bool {
        self.token
            .is_some_and(|(of, needed)| of == term && needed.0 > lsn.0.saturating_add(UNFINISHED_RECORD))
    }

    /// Whether this replica may answer a read sent at `now`.
    ///
    /// A position alone is not enough: a deposed master answers as a replica with rows that were never acknowledged.
    /// So the replica must be in the master's own list, in its term, and streaming. What it shows must be new enough:
    /// a sample finished before the read has it at or past the token, and at or past where the master's log stood at
    /// some look within the allowed staleness. One that receives but does not replay hears from its master all the
    /// time, heartbeats included, and is found out by its position alone.
    pub(crate) fn met_by_replica(&self, shard: &ShardView, replica: &View, now: Instant) -> bool {
        let Some((_, master)) = shard.master() else {
            return false;
        };
        let Kind::Master { standbys } = &master.kind else {
            return false;
        };
        let Some(sample) = replica.sample() else { return false };
        let (Some(silence), Some(term)) = (sample.last_message(now), sample.term) else {
            return false;
        };
        let master_age = now.saturating_duration_since(master.began);
        standbys.iter().any(|name| name == replica.name())
            && master.term == Some(term)
            && silence < MESSAGE_LIMIT
            && master_age < MESSAGE_LIMIT
            && self.token.is_none_or(|(of, lsn)| of == term && sample.lsn >= lsn)
            && shard.positions.are_met_by(term, sample.lsn, self.max_staleness, now)
    }
}

#[cfg(test)]
#[path = "member_tests.rs"]
mod tests;
