//! What is known of a shard's members, and who may answer a read. Pure: no clock, no connection.

use std::time::{Duration, Instant};

use crate::token::{Lsn, Term};

/// A replica whose last message from the master is older than this does not answer.
pub(crate) const MESSAGE_LIMIT: Duration = Duration::from_secs(1);

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

    /// Replaces what is known of a member.
    pub(crate) fn record(&mut self, host: &str, last: Result<Sample, String>) {
        if let Ok(Sample {
            term,
            kind: Kind::Master { .. },
            ..
        }) = &last
        {
            self.highest_term = self.highest_term.max(*term);
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
    /// Without a token, how old the sample of a replica may be.
    pub(crate) max_staleness: Duration,
}

impl Need {
    /// Whether a master of this term may answer: one of an older term than the token may have lost what it covers.
    pub(crate) fn met_by_master(&self, term: Option<Term>) -> bool {
        self.token
            .is_none_or(|(needed, _)| term.is_some_and(|term| term >= needed))
    }

    /// Whether this replica of this master may answer a read sent at `now`.
    ///
    /// A position alone is not enough: a deposed master answers as a replica with rows that were never acknowledged.
    /// So the replica must be in the master's own list, in its term, and streaming, and a sample finished before the
    /// read shows it at or past the token.
    pub(crate) fn met_by_replica(&self, master: &Sample, replica: &View, now: Instant) -> bool {
        let Kind::Master { standbys } = &master.kind else {
            return false;
        };
        let Some(sample) = replica.sample() else { return false };
        let Some(silence) = sample.last_message(now) else {
            return false;
        };
        let age = now.saturating_duration_since(sample.began);
        let master_age = now.saturating_duration_since(master.began);
        standbys.iter().any(|name| name == replica.name())
            && sample.term.is_some()
            && sample.term == master.term
            && silence < MESSAGE_LIMIT
            && master_age < MESSAGE_LIMIT
            && match self.token {
                Some((term, lsn)) => sample.term == Some(term) && sample.lsn >= lsn,
                None => age <= self.max_staleness,
            }
    }
}

#[cfg(test)]
#[path = "member_tests.rs"]
mod tests;
