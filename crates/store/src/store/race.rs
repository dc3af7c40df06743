//! The race for one read: who of a shard's members may answer, who is asked, and whose answer counts.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ring::{Generation, Ordinal};
use sqlx::postgres::PgRow;
use tokio::sync::mpsc;

use super::Inner;
use super::fault::Fault;
use super::member::Need;
use super::monitor::{Member, Shard};
use super::pool::AcquireError;
use super::query::{Here, Query};
use crate::config::ReadRace;
use crate::error::StoreError;
use crate::reading::ReadAt;
use crate::token::{ReadToken, Term};

/// What one member answered, after its role and term were checked.
pub(super) struct Observation {
    pub(super) from_master: bool,
    term: Term,
    here: Here,
    pub(super) rows: Vec<PgRow>,
}

/// A member that may answer, and in which role.
struct Candidate {
    member: Arc<Member>,
    role: Role,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Of this term or a later one.
    Master(Term),
    /// Of exactly this term.
    Replica(Term),
}

/// Why no member answered.
pub(super) enum Silence {
    /// Another try may help: a connection had gone stale, or the master has just moved.
    Retry(String),
    /// More callers wait for connections than may, or this one has waited its share. Another try would only make the
    /// queue longer.
    Full,
    /// The caller's token names a state that this shard was never in.
    ForeignToken,
    /// The database refused the statement.
    Final(sqlx::Error),
}

impl Observation {
    pub(super) fn token(&self, shard: Ordinal, generation: Generation) -> ReadToken {
        ReadToken {
            shard,
            term: self.term,
            lsn: self.here.lsn,
            generation,
        }
    }
}

impl Inner {
    /// Asks the members that may answer, by the configured race; the first good answer wins.
    pub(super) async fn contest(
        &self,
        shard: &Arc<Shard>,
        query: &Arc<Query>,
        at: &ReadAt,
        only_master: bool,
        deadline: Instant,
    ) -> Result<Observation, Silence> {
        let need = self.need(at, shard.ordinal);
        let epoch = self.places.ring().epoch();
        let Contestants { candidates, master } = tokio::select! {
            biased;
            found = contestants(shard, &need, only_master, deadline) => found?,
            // The shard may have left, and nobody of it ever answer again.
            () = self.another_ring(|other| other == epoch) => {
                return Err(Silence::Retry("no member may answer, and the ring has changed".to_owned()));
            }
        };
        let mut candidates = candidates.into_iter();
        let mut deposed = pin!(shard.master_moves_from(&master));
        let Some(first) = candidates.next() else {
            return Err(Silence::Retry("no member may answer now".to_owned()));
        };
        shard.hedges.earn();
        let patience = match at.race.unwrap_or(self.config.reads.race) {
            ReadRace::Race => Duration::ZERO,
            ReadRace::Hedged => first.member.latency.p95(),
        };
        let (answers, mut answered) = mpsc::channel(2);
        let mut asked = 1;
        let mut silent = pin!(falls_silent(shard, first.role, first.member.host.clone()));
        ask(first, shard, query, deadline, answers.clone());
        let mut second = candidates.next();
        let mut may_hedge = true;
        let mut is_full = false;
        loop {
            let answer = tokio::select! {
                answer = answered.recv() => answer,
                // A master that has been deposed may be gone, and never answer.
                () = &mut deposed => {
                    return Err(Silence::Retry("its master changed".to_owned()));
                }
                // It died without a word, most likely: asking the other is no hedge but the next try.
                () = &mut silent, if second.is_some() => {
                    if let Some(second) = second.take() {
                        asked += 1;
                        ask(second, shard, query, deadline, answers.clone());
                    }
                    continue;
                }
                () = tokio::time::sleep(patience), if may_hedge && second.is_some() => {
                    may_hedge = false;
                    let paid = patience.is_zero() || shard.hedges.spend();
                    // Unpaid it still stands by, for the case that the first one fails.
                    if paid && let Some(second) = second.take() {
                        if !patience.is_zero() {
                            self.metrics.hedges.inc();
                        }
                        asked += 1;
                        ask(second, shard, query, deadline, answers.clone());
                    }
                    continue;
                }
            };
            asked -= 1;
            match answer {
                Some(Err(silence @ (Silence::Retry(_) | Silence::Full))) => {
                    is_full |= matches!(silence, Silence::Full);
                    match second.take() {
                        // The first one failed: asking the other is no hedge but the next try.
                        Some(second) => {
                            asked += 1;
                            ask(second, shard, query, deadline, answers.clone());
                        }
                        None if asked > 0 => {}
                        None if is_full => return Err(Silence::Full),
                        None => return Err(silence),
                    }
                }
                Some(Ok(seen)) if seen.from_master && need.is_past_the_end(seen.term, seen.here.lsn) => {
                    return Err(Silence::ForeignToken);
                }
                Some(Ok(seen)) => {
                    let by_role = if seen.from_master {
                        &self.metrics.reads_by_master
                    } else {
                        &self.metrics.reads_by_replica
                    };
                    by_role.inc();
                    return Ok(seen);
                }
                Some(refused) => return refused,
                None => return Err(Silence::Retry("no member answered".to_owned())),
            }
        }
    }

    fn need(&self, at: &ReadAt, shard: Ordinal) -> Need {
        let tokens = at.consistency.tokens().as_slice();
        let token = tokens.iter().find(|token| token.shard == shard);
        Need {
            token: token.map(|token| (token.term, token.lsn)),
            max_staleness: at.max_staleness.unwrap_or(self.config.reads.max_staleness),
        }
    }

    /// What a caller is told when no member answered and no other try is made.
    pub(super) fn unanswered(
        &self,
        silence: Silence,
        operation: &'static str,
        shard: Ordinal,
        waited: Duration,
    ) -> StoreError {
        match silence {
            Silence::Retry(why) => self.unavailable(operation, shard, &why, waited),
            Silence::Full => self.unavailable(operation, shard, "all connections are busy", waited),
            Silence::ForeignToken => StoreError::ForeignToken { shard },
            Silence::Final(source) => StoreError::Database {
                operation,
                shard,
                source,
            },
        }
    }
}

/// Who may answer a read.
struct Contestants {
    /// At least one; the faster first.
    candidates: Vec<Candidate>,
    /// The host of the master by whose word they may.
    master: String,
}

/// Who may answer; waits until somebody may.
async fn contestants(shard: &Shard, need: &Need, only_master: bool, deadline: Instant) -> Result<Contestants, Silence> {
    let began = Instant::now();
    let mut view = shard.view.subscribe();
    shard.mark_read();
    loop {
        if let Some(found) = eligible(shard, need, only_master) {
            return Ok(found);
        }
        // A token may be newer than what was seen last: a replica was promoted a moment ago. Looks that begin now settle
        // it, and the nudge below asks for them.
        if need.token.is_some_and(|(term, _)| shard.never_reached(term, began)) {
            return Err(Silence::ForeignToken);
        }
        shard.nudge_all();
        match tokio::time::timeout_at(deadline.into(), view.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return Err(Silence::Retry("no member may answer now".to_owned())),
        }
    }
}

fn eligible(shard: &Shard, need: &Need, only_master: bool) -> Option<Contestants> {
    let now = Instant::now();
    let view = shard.view.borrow();
    let (master, sample) = view.master()?;
    let mut found = Vec::new();
    let mut add = |host: &str, role: Option<Role>| {
        if let (Some(member), Some(role)) = (shard.member(host), role) {
            found.push(Candidate { member, role });
        }
    };
    if need.met_by_master(sample.term) {
        add(&master.host, sample.term.map(Role::Master));
    }
    if !only_master {
        for replica in view
            .members
            .iter()
            .filter(|replica| need.met_by_replica(&view, replica, now))
        {
            add(&replica.host, sample.term.map(Role::Replica));
        }
    }
    found.sort_by_key(|candidate| candidate.member.latency.average());
    (!found.is_empty()).then(|| Contestants {
        candidates: found,
        master: master.host.clone(),
    })
}

/// Returns when a replica that was asked has not been heard of for so long that it would not be asked now.
///
/// Of a master nothing is concluded: nobody may answer in its place while none has taken it.
async fn falls_silent(shard: &Shard, role: Role, host: String) {
    match role {
        Role::Master(_) => std::future::pending().await,
        Role::Replica(_) => shard.falls_silent(&host).await,
    }
}

/// Asks one member, in a task of its own: the loser of a race finishes its statement and gives its connection back in
/// order, which costs less than a cancel request over a connection of its own would.
fn ask(
    candidate: Candidate,
    shard: &Arc<Shard>,
    query: &Arc<Query>,
    deadline: Instant,
    answers: mpsc::Sender<Result<Observation, Silence>>,
) {
    let (shard, query) = (Arc::clone(shard), Arc::clone(query));
    tokio::spawn(async move {
        let Candidate { member, role } = candidate;
        let began = Instant::now();
        let outcome = match tokio::time::timeout_at(deadline.into(), ask_member(&member, role, &query)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Silence::Retry(format!("{} did not answer in time", member.host))),
        };
        match &outcome {
            Ok(_) => member.latency.record(began.elapsed()),
            // Too much to do says nothing of who is master.
            Err(Silence::Full) => {}
            Err(_) => {
                member.nudge();
                shard.nudge_all();
            }
        }
        let _ = answers.send(outcome).await;
    });
}

async fn ask_member(member: &Arc<Member>, role: Role, query: &Query) -> Result<Observation, Silence> {
    let mut lease = member.reads.acquire().await.map_err(|error| match error {
        AcquireError::Full => Silence::Full,
        AcquireError::Closed => Silence::Retry("its member has left the ring".to_owned()),
        AcquireError::Dial(error) => Silence::Retry(telemetry::chain(&error)),
    })?;
    let gone = lease.server_is_gone();
    let asked = tokio::select! {
        asked = query.ask(lease.conn()) => asked,
        () = gone => return Err(Silence::Retry("its server was started anew".to_owned())),
    };
    let rows = match asked {
        Ok(rows) => {
            lease.give_back();
            rows
        }
        Err(error) => {
            let fault = Fault::of(&error);
            match fault {
                Fault::Lost => member.lost_a_connection(),
                _ if fault.keeps_connection() => lease.give_back(),
                _ => {}
            }
            return Err(match fault {
                Fault::Refused => Silence::Final(error),
                _ => Silence::Retry(telemetry::chain(&error)),
            });
        }
    };
    let here = rows.first().map(Here::read).transpose().map_err(Silence::Final)?;
    let here = here.ok_or_else(|| Silence::Retry("the statement gave no row".to_owned()))?;
    let term = still_in_role(role, here).ok_or_else(|| Silence::Retry(format!("{} changed its role", member.host)))?;
    Ok(Observation {
        from_master: matches!(role, Role::Master(_)),
        term,
        here,
        rows,
    })
}

/// The answer itself says what its member was when it answered.
fn still_in_role(role: Role, here: Here) -> Option<Term> {
    let fits = match role {
        Role::Master(term) => !here.in_recovery && here.term >= Some(term),
        Role::Replica(term) => here.in_recovery && here.term == Some(term),
    };
    here.term.filter(|_| fits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::Lsn;

    fn here(in_recovery: bool, term: Option<u32>) -> Here {
        Here {
            in_recovery,
            term: term.map(Term),
            lsn: Lsn(1),
        }
    }

    #[test]
    fn an_answer_counts_only_in_the_role_and_term_it_was_asked_in() {
        assert_eq!(
            still_in_role(Role::Master(Term(3)), here(false, Some(3))),
            Some(Term(3))
        );
        assert_eq!(
            still_in_role(Role::Master(Term(3)), here(false, Some(4))),
            Some(Term(4)),
            "promoted again"
        );
        assert_eq!(
            still_in_role(Role::Master(Term(3)), here(true, Some(3))),
            None,
            "demoted"
        );
        assert_eq!(still_in_role(Role::Master(Term(3)), here(false, Some(2))), None);
        assert_eq!(
            still_in_role(Role::Replica(Term(3)), here(true, Some(3))),
            Some(Term(3))
        );
        assert_eq!(
            still_in_role(Role::Replica(Term(3)), here(false, Some(4))),
            None,
            "promoted"
        );
        assert_eq!(
            still_in_role(Role::Replica(Term(3)), here(true, Some(4))),
            None,
            "follows another master"
        );
        assert_eq!(
            still_in_role(Role::Replica(Term(3)), here(true, None)),
            None,
            "streams no more"
        );
    }
}
