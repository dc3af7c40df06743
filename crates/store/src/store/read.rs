//! Reads from whichever member answers first and may answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use ring::{Generation, Ordinal};
use sqlx::Row;
use sqlx::postgres::PgRow;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::Inner;
use super::fault::Fault;
use super::member::Need;
use super::monitor::{Member, Shard};
use super::place::Way;
use super::pool::{AcquireError, RETRY_PAUSE};
use super::query::{Here, Query, RangeHere, Verdict};
use super::write::{Place, row_position};
use crate::config::ReadRace;
use crate::error::StoreError;
use crate::reading::{Answer, Consistency, ReadAt};
use crate::token::{ReadToken, Term};

/// What one member answered, after its role and term were checked.
struct Observation {
    from_master: bool,
    term: Term,
    here: Here,
    rows: Vec<PgRow>,
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
enum Silence {
    Retry(String),
    Final(sqlx::Error),
}

/// Turns the rows of an answer into a value.
pub(crate) type Decode<T> = fn(&[PgRow]) -> Result<T, String>;

impl Inner {
    /// Reads what belongs to one key.
    pub(crate) async fn read_one<T>(
        &self,
        key: Uuid,
        at: &ReadAt,
        query: Query,
        decode: Decode<T>,
    ) -> Result<Answer<T>, StoreError> {
        let began = Instant::now();
        let deadline = began + self.config.read_deadline;
        let query = Arc::new(query);
        let mut way = Way::default();
        let mut only_master = at.consistency == Consistency::Strong;
        loop {
            let ordinal = way.shard().unwrap_or_else(|| self.places.locate(row_position(key)));
            let shard = self.shard(ordinal)?;
            let why = match self.contest(&shard, &query, at, only_master, deadline).await {
                Ok(seen) => {
                    let bad = |why| StoreError::BadRow {
                        operation: query.operation,
                        shard: ordinal,
                        why,
                    };
                    let head = seen
                        .rows
                        .first()
                        .ok_or_else(|| bad("the statement gave no row".to_owned()))?;
                    let range = RangeHere::read(head).map_err(|error| bad(error.to_string()))?;
                    match range.judge(seen.from_master, other_generation(at, ordinal)) {
                        Verdict::Serve(generation) => {
                            let value = decode(&seen.rows).map_err(bad)?;
                            return Ok(Answer {
                                value,
                                token: seen.token(ordinal, generation),
                            });
                        }
                        Verdict::AskMaster => only_master = true,
                        Verdict::Elsewhere(redirect) => {
                            self.follow(Place::Key(key), &mut way, &redirect, ordinal, deadline)
                                .await;
                        }
                    }
                    "the position is not served there".to_owned()
                }
                Err(Silence::Final(source)) => {
                    return Err(StoreError::Database {
                        operation: query.operation,
                        shard: ordinal,
                        source,
                    });
                }
                Err(Silence::Retry(why)) => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                    why
                }
            };
            if Instant::now() >= deadline {
                return Err(self.unavailable(query.operation, ordinal, &why, began.elapsed()));
            }
        }
    }

    /// Reads rows of many keys, one statement a shard; what a shard does not serve is asked for singly. `many` binds
    /// the ids of one shard, `one` a single id.
    pub(crate) async fn read_many<T>(
        &self,
        ids: &[Uuid],
        at: &ReadAt,
        many: fn(Vec<Uuid>) -> Query,
        one: fn(Uuid) -> Query,
        decode: Decode<T>,
    ) -> Vec<Result<Answer<T>, StoreError>> {
        let mut groups: Vec<(Ordinal, Vec<usize>)> = Vec::new();
        for (index, id) in ids.iter().enumerate() {
            let ordinal = self.places.locate(row_position(*id));
            match groups.iter_mut().find(|(shard, _)| *shard == ordinal) {
                Some((_, group)) => group.push(index),
                None => groups.push((ordinal, vec![index])),
            }
        }
        let groups = groups.into_iter().map(|(ordinal, indexes)| async move {
            let keys: Vec<Uuid> = indexes.iter().map(|index| ids[*index]).collect();
            let answers = self.read_group(ordinal, &keys, at, many(keys.clone()), decode).await;
            // Singly, so that one key's trouble is not another's.
            let complete = join_all(answers.into_iter().zip(keys).map(|(answer, key)| async move {
                match answer {
                    Some(answer) => answer,
                    None => self.read_one(key, at, one(key), decode).await,
                }
            }));
            indexes.into_iter().zip(complete.await).collect::<Vec<_>>()
        });
        let mut all: Vec<_> = join_all(groups).await.into_iter().flatten().collect();
        all.sort_by_key(|(index, _)| *index);
        all.into_iter().map(|(_, answer)| answer).collect()
    }

    /// One statement for the keys of one shard; `None` for a key that has to be asked for singly.
    async fn read_group<T>(
        &self,
        ordinal: Ordinal,
        keys: &[Uuid],
        at: &ReadAt,
        query: Query,
        decode: Decode<T>,
    ) -> Vec<Option<Result<Answer<T>, StoreError>>> {
        let began = Instant::now();
        let operation = query.operation;
        let only_master = at.consistency == Consistency::Strong;
        let shard = match self.shard(ordinal) {
            Ok(shard) => shard,
            Err(_) => return keys.iter().map(|_| None).collect(),
        };
        let seen = self
            .contest(
                &shard,
                &Arc::new(query),
                at,
                only_master,
                began + self.config.read_deadline,
            )
            .await;
        let seen = match seen {
            Ok(seen) => seen,
            Err(Silence::Final(_)) => return keys.iter().map(|_| None).collect(),
            // The time is not over: a connection had gone stale, or the master has just moved. Each key tries by itself.
            Err(Silence::Retry(_)) if began.elapsed() < self.config.read_deadline => {
                return keys.iter().map(|_| None).collect();
            }
            // Each key would wait as long again and learn the same.
            Err(Silence::Retry(why)) => {
                let unavailable = |_| Some(Err(self.unavailable(operation, ordinal, &why, began.elapsed())));
                return keys.iter().map(unavailable).collect();
            }
        };
        let answer = |key: &Uuid| {
            let row = seen
                .rows
                .iter()
                .find(|row| row.try_get::<Uuid, _>("key").is_ok_and(|found| found == *key))?;
            match RangeHere::read(row)
                .ok()?
                .judge(seen.from_master, other_generation(at, ordinal))
            {
                Verdict::Serve(generation) => {
                    let bad = |why| StoreError::BadRow {
                        operation,
                        shard: ordinal,
                        why,
                    };
                    let value = decode(std::slice::from_ref(row)).map_err(bad);
                    Some(value.map(|value| Answer {
                        value,
                        token: seen.token(ordinal, generation),
                    }))
                }
                Verdict::AskMaster | Verdict::Elsewhere(_) => None,
            }
        };
        keys.iter().map(answer).collect()
    }

    /// Asks the members that may answer, by the configured race; the first good answer wins.
    async fn contest(
        &self,
        shard: &Arc<Shard>,
        query: &Arc<Query>,
        at: &ReadAt,
        only_master: bool,
        deadline: Instant,
    ) -> Result<Observation, Silence> {
        let need = self.need(at, shard.ordinal);
        let candidates = candidates(shard, &need, only_master, deadline).await;
        let mut candidates = candidates
            .ok_or_else(|| Silence::Retry("no member may answer now".to_owned()))?
            .into_iter();
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
        ask(first, shard, query, deadline, answers.clone());
        let mut second = candidates.next();
        let mut may_hedge = true;
        loop {
            let answer = tokio::select! {
                answer = answered.recv() => answer,
                () = tokio::time::sleep(patience), if may_hedge && second.is_some() => {
                    may_hedge = false;
                    let paid = patience.is_zero() || shard.hedges.spend();
                    // Unpaid it still stands by, for the case that the first one fails.
                    if paid && let Some(second) = second.take() {
                        asked += 1;
                        ask(second, shard, query, deadline, answers.clone());
                    }
                    continue;
                }
            };
            asked -= 1;
            match answer {
                Some(Err(silence @ Silence::Retry(_))) => match second.take() {
                    // The first one failed: asking the other is no hedge but the next try.
                    Some(second) => {
                        asked += 1;
                        ask(second, shard, query, deadline, answers.clone());
                    }
                    None if asked > 0 => {}
                    None => return Err(silence),
                },
                Some(outcome) => return outcome,
                None => return Err(Silence::Retry("no member answered".to_owned())),
            }
        }
    }

    fn need(&self, at: &ReadAt, shard: Ordinal) -> Need {
        let token = match &at.consistency {
            Consistency::Session(tokens) => tokens.as_slice().iter().find(|token| token.shard == shard),
            Consistency::Strong => None,
        };
        Need {
            token: token.map(|token| (token.term, token.lsn)),
            max_staleness: at.max_staleness.unwrap_or(self.config.reads.max_staleness),
        }
    }
}

impl Observation {
    fn token(&self, shard: Ordinal, generation: Generation) -> ReadToken {
        ReadToken {
            shard,
            term: self.term,
            lsn: self.here.lsn,
            generation,
        }
    }
}

/// The highest generation in tokens of other shards.
fn other_generation(at: &ReadAt, shard: Ordinal) -> Option<Generation> {
    match &at.consistency {
        Consistency::Session(tokens) => tokens
            .as_slice()
            .iter()
            .filter(|token| token.shard != shard)
            .map(|token| token.generation)
            .max(),
        Consistency::Strong => None,
    }
}

/// Who may answer, the faster first; waits until somebody may.
async fn candidates(shard: &Shard, need: &Need, only_master: bool, deadline: Instant) -> Option<Vec<Candidate>> {
    let mut view = shard.view.subscribe();
    shard.mark_read();
    loop {
        let found = eligible(shard, need, only_master);
        if !found.is_empty() {
            for candidate in &found {
                candidate.member.mark_used();
            }
            return Some(found);
        }
        shard.nudge_all();
        match tokio::time::timeout_at(deadline.into(), view.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return None,
        }
    }
}

fn eligible(shard: &Shard, need: &Need, only_master: bool) -> Vec<Candidate> {
    let now = Instant::now();
    let view = shard.view.borrow();
    let Some((master, sample)) = view.master() else {
        return Vec::new();
    };
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
            .filter(|view| need.met_by_replica(sample, view, now))
        {
            add(&replica.host, sample.term.map(Role::Replica));
        }
    }
    found.sort_by_key(|candidate| candidate.member.latency.average());
    found
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
        AcquireError::Full => Silence::Retry("all connections are busy".to_owned()),
        AcquireError::Dial(error) => {
            member.lost_a_connection();
            Silence::Retry(error.to_string())
        }
    })?;
    let rows = match query.ask(&mut lease.conn).await {
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
                _ => Silence::Retry(error.to_string()),
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
