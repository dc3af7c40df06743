//! Members that cannot follow their master any more, told from those that only take their time. Pure.
//!
//! Patroni mends most of it: it rewinds a former master, and copies anew what cannot be rewound. What it does not mend is a
//! standby whose next piece of the log the master has thrown away: that one asks for it for ever. A copy is only thrown
//! away on evidence that it is useless; time alone proves nothing, for a network may come back.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use store::admin::Lsn;

use super::members::Member;
use super::rollout::View;

/// A standby stands still for so long before the master is asked about it. One that was started anew first replays the log
/// it has, and a reader may hold it up for 30 s at a time (`max_standby_archive_delay`).
const STANDS_STILL: Duration = Duration::from_secs(120);
/// Patroni rewinds within seconds; one that has not been rewound after this time will not be.
const NOT_REWOUND: Duration = Duration::from_secs(300);

/// Why a member cannot follow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stranded {
    /// "requested WAL segment ... has already been removed".
    #[error("the master no longer has the log it needs: it stands at {stands}, the log begins at {begins}")]
    LogGone { stands: Lsn, begins: Lsn },
    /// It wrote, or received, what the master's history does not have.
    #[error(
        "it went on at {stands} on timeline {timeline}, which the master's history left at {left}, and was not rewound"
    )]
    Diverged { stands: Lsn, timeline: i64, left: Lsn },
}

/// A member that stands still, for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Still<'a> {
    pub member: &'a Member,
    pub since: Duration,
}

/// Since when members stand where they stand, on the operator's own monotonic clock.
#[derive(Debug, Clone, Default)]
pub(crate) struct RejoinWatch(HashMap<String, (Place, Instant)>);

/// Where a member stands.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    uid: String,
    timeline: Option<i64>,
    position: Option<u64>,
}

impl RejoinWatch {
    /// Takes in what is seen now; the members that have stood still for long enough to ask the master about them.
    pub(crate) fn look<'a>(&mut self, view: &View<'a>, now: Instant) -> Vec<Still<'a>> {
        let candidates: Vec<&Member> = candidates(view).collect();
        self.0.retain(|name, _| candidates.iter().any(|m| m.name == *name));
        candidates
            .into_iter()
            .filter_map(|member| {
                let place = Place {
                    uid: member.uid.clone(),
                    timeline: member.timeline(),
                    position: member.position(),
                };
                let (seen, since) = self
                    .0
                    .entry(member.name.clone())
                    .or_insert_with(|| (place.clone(), now));
                if *seen != place {
                    (*seen, *since) = (place, now);
                }
                let since = now.duration_since(*since);
                (since >= STANDS_STILL).then_some(Still { member, since })
            })
            .collect()
    }
}

/// Replicas that run and do not stream. Never the master, never one that the list of standbys says has every acknowledged
/// commit, never one that is on its way out; and none while there is no master, who alone could be copied from.
fn candidates<'a>(view: &View<'a>) -> impl Iterator<Item = &'a Member> {
    let (master, consensus, instances) = (view.master, view.consensus, view.instances);
    let calm = master.is_some() && !consensus.switchover_pending;
    view.members.iter().filter(move |member| {
        let runs_alone = member
            .patroni
            .as_ref()
            .is_some_and(|p| p.state == "running" && p.role == "replica" && p.replication_state.is_none());
        calm && runs_alone
            && !member.terminating
            && master.is_some_and(|m| m.name != member.name)
            && consensus.leader.as_deref() != Some(member.name.as_str())
            && !consensus.sync_standbys.contains(&member.name)
            && member.index().is_some_and(|index| index < instances)
    })
}

/// One member is copied at a time: each copy is load on the master.
pub(crate) fn is_copying(members: &[Member]) -> bool {
    members
        .iter()
        .filter_map(|m| m.patroni.as_ref())
        .any(|p| p.state.contains("creating replica"))
}

/// Why a member that stands still cannot follow a master whose log begins at `oldest`; `None` while nothing proves it.
pub(crate) fn stranded(
    still: &Still<'_>,
    master: &Member,
    oldest: Option<Lsn>,
    history: &BTreeMap<i64, u64>,
) -> Option<Stranded> {
    let stands = Lsn(still.member.position()?);
    if let Some(begins) = oldest.filter(|begins| stands < *begins) {
        return Some(Stranded::LogGone { stands, begins });
    }
    let (own, masters) = (still.member.timeline()?, master.timeline()?);
    // The history names each timeline that the master has left, and where.
    let left = history.get(&own).map(|left| Lsn(*left)).filter(|_| own < masters)?;
    (stands > left && still.since >= NOT_REWOUND).then_some(Stranded::Diverged {
        stands,
        timeline: own,
        left,
    })
}

#[cfg(test)]
#[path = "rejoin_tests.rs"]
mod tests;
