//! Transactions on the master that owns a position.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ring::{Generation, Ordinal};
use sqlx::PgConnection;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::Inner;
use super::commit::{Position, commit};
use super::fault::{Fault, Freeze, Redirect, Refusal};
use super::monitor::{Member, Shard};
use super::pause::await_hand_over;
use super::place::{Turn, Way};
use super::pool::{AcquireError, Lease};
use super::query::{RangeHere, range_columns};
use crate::error::StoreError;
use crate::token::ReadToken;

/// What a caller is told to wait when a shard could not serve it.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long a rollback may take before the connection is closed instead.
const ROLLBACK_LIMIT: Duration = Duration::from_secs(1);

/// How long past its deadline a commit is left to a connection that does not answer. One that waits for a standby is left
/// alone: the server would not notice, and a new connection would come to stand beside it.
const ABANDONED_AFTER: Duration = Duration::from_secs(900);
/// How long a shard that the ring does not list is waited for, before it is asked again who has the position.
const UNLISTED_PATIENCE: Duration = Duration::from_millis(500);

/// The body of a transaction. It may run more than once, so it changes nothing but the database, and its repetition
/// after a commit of unknown outcome finds what the first run did (by its idempotency key or by its nature).
pub(crate) trait Work: Send + Sync + 'static {
    /// What it gives when it is committed.
    type Output: Send + 'static;
    /// For messages: "could not ...".
    const OPERATION: &'static str;

    fn run(&self, conn: &mut PgConnection) -> impl Future<Output = Result<Self::Output, Refusal>> + Send;
}

/// Where a transaction belongs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place {
    /// To the owner of this id's position.
    Key(Uuid),
    /// To this shard, whatever it owns.
    Shard(Ordinal),
}

/// A committed transaction.
pub(crate) struct Committed<T> {
    pub(crate) value: T,
    pub(crate) token: ReadToken,
}

/// Why one try did not end in an answer.
pub(super) enum Setback {
    Final(StoreError),
    Redirected(Redirect),
    Frozen(Option<Freeze>),
    Wait(String),
    Unknown(String),
}

impl Inner {
    /// Runs a transaction to its end in a task of its own: a caller that goes away must not end a session in COMMIT.
    pub(crate) async fn write<W: Work>(
        self: &Arc<Self>,
        place: Place,
        work: W,
    ) -> Result<Committed<W::Output>, StoreError> {
        self.write_by(self.write_deadline(), place, work).await
    }

    /// When a write that begins now gives up.
    pub(crate) fn write_deadline(&self) -> Instant {
        Instant::now() + self.config.write_deadline
    }

    /// The same as [`Inner::write`] for one of several transactions that share a deadline.
    pub(crate) async fn write_by<W: Work>(
        self: &Arc<Self>,
        deadline: Instant,
        place: Place,
        work: W,
    ) -> Result<Committed<W::Output>, StoreError> {
        let inner = Arc::clone(self);
        match tokio::spawn(async move { inner.write_until_settled(deadline, place, &work).await }).await {
            Ok(outcome) => outcome,
            Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
            Err(_) => Err(self.unavailable(
                W::OPERATION,
                self.shard_of(place),
                "the program is ending",
                Duration::ZERO,
            )),
        }
    }

    async fn write_until_settled<W: Work>(
        self: Arc<Self>,
        deadline: Instant,
        place: Place,
        work: &W,
    ) -> Result<Committed<W::Output>, StoreError> {
        let began = Instant::now();
        let mut way = Way::default();
        let mut unknown = None;
        let mut last = String::new();
        loop {
            let ordinal = way
                .under(self.places.ring().epoch())
                .unwrap_or_else(|| self.shard_of(place));
            let tried = Instant::now();
            let setback = match self.try_once(place, ordinal, work, deadline).await {
                Ok(committed) => {
                    self.metrics.unknown_settled.inc_by(u64::from(unknown.is_some()));
                    return Ok(committed);
                }
                Err(setback) => setback,
            };
            match setback {
                // Not an answer of the shop's rules, so the earlier commit may have happened.
                Setback::Final(error) if unknown.is_some() && !settles(&error) => {
                    let why = format!("{}; trying again: {error}", unknown.unwrap_or_default());
                    return Err(self.outcome_unknown(W::OPERATION, ordinal, why));
                }
                Setback::Final(error) => {
                    self.metrics.unknown_settled.inc_by(u64::from(unknown.is_some()));
                    return Err(error);
                }
                Setback::Redirected(redirect) => {
                    last = "the position is not owned there".to_owned();
                    self.follow(place, &mut way, &redirect, ordinal, deadline).await;
                }
                Setback::Frozen(freeze) => {
                    last = "the range is frozen by a move".to_owned();
                    self.metrics.frozen_retries.inc();
                    let thawed = match freeze {
                        Some(freeze) if freeze.expired => self.thaw(ordinal, freeze, deadline).await,
                        _ => false,
                    };
                    if !thawed {
                        await_hand_over(&mut way, deadline).await;
                    }
                }
                Setback::Wait(why) => {
                    last = why;
                    self.await_better(ordinal, tried, &mut way, deadline).await;
                }
                // Doing it again settles it: the key row of the first run is there or it is not.
                Setback::Unknown(why) => {
                    tracing::warn!(shard = %ordinal, operation = W::OPERATION, why, "a commit's outcome is unknown; settling it");
                    unknown = Some(why);
                }
            }
            if Instant::now() >= deadline {
                return Err(match unknown {
                    Some(why) => self.outcome_unknown(W::OPERATION, ordinal, why),
                    None => self.unavailable(W::OPERATION, ordinal, &last, began.elapsed()),
                });
            }
        }
    }

    /// Turns where a redirect of shard `from` points, or waits for the ring to tell more.
    pub(super) async fn follow(
        &self,
        place: Place,
        way: &mut Way,
        redirect: &Redirect,
        from: Ordinal,
        deadline: Instant,
    ) {
        let Place::Key(key) = place else {
            return await_hand_over(way, deadline).await;
        };
        match way.redirected(redirect) {
            Turn::Go(target) => {
                self.metrics.redirects.inc();
                self.places.learn(redirect);
                self.shards.get_or_add(target, &redirect.hosts);
            }
            Turn::GoSoon(target) => {
                self.metrics.redirects.inc();
                self.shards.get_or_add(target, &redirect.hosts);
                let finished = match redirect.ends(from) {
                    Some((source, target)) if way.is_unattended(Instant::now()) => {
                        self.roll_forward(key, source, target, deadline).await
                    }
                    _ => false,
                };
                if !finished {
                    await_hand_over(way, deadline).await;
                }
            }
            Turn::Stay => await_hand_over(way, deadline).await,
            Turn::AskTheRing => {
                self.places.forget(row_position(key));
                self.await_ring(way, deadline).await;
            }
        }
    }

    pub(super) async fn try_once<W: Work>(
        &self,
        place: Place,
        ordinal: Ordinal,
        work: &W,
        deadline: Instant,
    ) -> Result<Committed<W::Output>, Setback> {
        if Instant::now() >= deadline {
            return Err(Setback::Wait("its deadline had passed before it began".to_owned()));
        }
        let shard = self.shard(ordinal).map_err(Setback::Final)?;
        let epoch = self.places.ring().epoch();
        let master = tokio::select! {
            biased;
            master = shard.master(self.patience(ordinal, deadline)) => master,
            // It may have given its last range away and left, and never have a master again.
            () = self.another_ring(|other| other == epoch) => None,
        };
        let Some(member) = master else {
            return Err(Setback::Wait("it has no master that can be reached".to_owned()));
        };
        member.mark_used();
        let leased = self.lease(&member, ordinal, W::OPERATION);
        let Ok(leased) = tokio::time::timeout_at(deadline.into(), leased).await else {
            return Err(Setback::Wait("no connection to its master was free in time".to_owned()));
        };
        let mut lease = leased?;
        let gone = lease.server_is_gone();
        let body = tokio::select! {
            body = run_body(lease.conn(), work) => body,
            // Before COMMIT a session may be left: its transaction ends with it.
            () = shard.master_moves_from(&member.host) => return Err(Setback::Wait("its master changed".to_owned())),
            () = gone => return Err(Setback::Wait("its server was started anew".to_owned())),
            () = tokio::time::sleep_until(deadline.into()) => {
                member.nudge();
                return Err(Setback::Wait("its master did not answer".to_owned()));
            }
        };
        let value = match body {
            Ok(value) => value,
            Err(refusal) => return Err(self.give_up(refusal, lease, &member, &shard, W::OPERATION).await),
        };
        let position = end(lease, place, &shard, &member.host, deadline).await.map_err(|why| {
            member.lost_a_connection();
            shard.nudge_all();
            Setback::Unknown(why)
        })?;
        let token = ReadToken {
            shard: ordinal,
            term: position.term,
            lsn: position.lsn,
            generation: Generation(position.generation),
        };
        Ok(Committed { value, token })
    }

    /// Until when a shard is waited for. One that the ring does not list was named by somebody's book, and may have left.
    pub(super) fn patience(&self, ordinal: Ordinal, deadline: Instant) -> Instant {
        match self.places.ring().shard(ordinal) {
            Some(_) => deadline,
            None => deadline.min(Instant::now() + UNLISTED_PATIENCE),
        }
    }

    async fn lease(&self, member: &Arc<Member>, ordinal: Ordinal, operation: &'static str) -> Result<Lease, Setback> {
        match member.writes.acquire().await {
            Ok(lease) => Ok(lease),
            // The caller waited its share for a connection already; a longer queue helps nobody.
            Err(AcquireError::Full) => {
                let why = "all connections to its master are busy";
                Err(Setback::Final(self.unavailable(
                    operation,
                    ordinal,
                    why,
                    self.config.pool.acquire_timeout,
                )))
            }
            // By a ring that has another member here; it is followed with the next try.
            Err(AcquireError::Closed) => Err(Setback::Wait("its member has left the ring".to_owned())),
            Err(AcquireError::Dial(error)) => {
                member.nudge();
                Err(Setback::Wait(telemetry::chain(&error)))
            }
        }
    }

    /// Rolls back, keeps the connection if it can be kept, and says how to go on.
    async fn give_up(
        &self,
        refusal: Refusal,
        lease: Lease,
        member: &Member,
        shard: &Shard,
        operation: &'static str,
    ) -> Setback {
        let fault = match &refusal {
            Refusal::Sql(error) => Fault::of(error),
            _ => Fault::Refused,
        };
        if fault.keeps_connection() {
            roll_back(lease).await;
        }
        if matches!(fault, Fault::Lost | Fault::NotMaster | Fault::Full) {
            member.lost_a_connection();
            shard.nudge_all();
        }
        match (refusal, fault) {
            (Refusal::Shop(error), _) => Setback::Final(error),
            (Refusal::NotHere(redirect), _) | (_, Fault::NotHere(redirect)) => Setback::Redirected(redirect),
            (_, Fault::Frozen(freeze)) => Setback::Frozen(freeze),
            (Refusal::BadRow(why), _) => Setback::Final(StoreError::BadRow {
                operation,
                shard: shard.ordinal,
                why,
            }),
            (Refusal::Again(why), _) => Setback::Wait(why.to_owned()),
            (Refusal::Sql(source), Fault::Refused) => Setback::Final(StoreError::Database {
                operation,
                shard: shard.ordinal,
                source,
            }),
            (Refusal::Sql(error), _) => Setback::Wait(telemetry::chain(&error)),
        }
    }

    pub(crate) fn unavailable(
        &self,
        operation: &'static str,
        shard: Ordinal,
        why: &str,
        waited: Duration,
    ) -> StoreError {
        StoreError::Unavailable {
            operation,
            shard,
            why: why.to_owned(),
            waited,
            retry_after: RETRY_AFTER,
        }
    }

    fn outcome_unknown(&self, operation: &'static str, shard: Ordinal, why: String) -> StoreError {
        self.metrics.unknown_open.inc();
        StoreError::OutcomeUnknown {
            operation,
            shard,
            why,
            retry_after: RETRY_AFTER,
        }
    }

    fn shard_of(&self, place: Place) -> Ordinal {
        match place {
            Place::Key(key) => self.places.locate(row_position(key)),
            Place::Shard(ordinal) => ordinal,
        }
    }
}

/// The ring position an id begins with.
pub(crate) fn row_position(id: Uuid) -> row_id::Position {
    row_id::Position::new((id.as_u128() >> 96) as u32)
}

/// Whether an error tells that an earlier run of the same transaction was not committed: it comes from the rules of the
/// shop, which a transaction looks at after it has looked for its own earlier run.
fn settles(error: &StoreError) -> bool {
    !matches!(
        error,
        StoreError::Unavailable { .. }
            | StoreError::NoSuchShard { .. }
            | StoreError::Database { .. }
            | StoreError::BadRow { .. }
    )
}

async fn run_body<W: Work>(conn: &mut PgConnection, work: &W) -> Result<W::Output, Refusal> {
    sqlx::raw_sql("BEGIN ISOLATION LEVEL READ COMMITTED")
        .execute(&mut *conn)
        .await?;
    work.run(conn).await
}

async fn roll_back(mut lease: Lease) {
    let rolled_back = sqlx::raw_sql("ROLLBACK").execute(lease.conn());
    if let Ok(Ok(_)) = tokio::time::timeout(ROLLBACK_LIMIT, rolled_back).await {
        lease.give_back();
    }
}

/// Commits. The session lives on in a task of its own until it answers, even when nobody waits for the answer any more:
/// because the deadline passed, or because another member has become the master and this one may never answer. It is given
/// up when its server is seen to be no more, and in the end in any case, for a connection that was cut off says nothing.
async fn end(mut lease: Lease, place: Place, shard: &Shard, host: &str, deadline: Instant) -> Result<Position, String> {
    let key = match place {
        Place::Key(key) => Some(key),
        Place::Shard(_) => None,
    };
    let gone = lease.server_is_gone();
    let committing = tokio::spawn(async move {
        let committed = tokio::select! {
            committed = commit(lease.conn(), key) => committed,
            () = gone => Err("its server was started anew".to_owned()),
            () = tokio::time::sleep_until((deadline + ABANDONED_AFTER).into()) => Err("it never answered".to_owned()),
        };
        if committed.is_ok() {
            lease.give_back();
        }
        committed
    });
    tokio::select! {
        committed = committing => committed.unwrap_or_else(|ended| Err(format!("the commit's task ended: {ended}"))),
        () = shard.master_moves_from(host) => Err("its master changed before it answered the commit".to_owned()),
        () = tokio::time::sleep_until(deadline.into()) => Err("the commit was not answered in time".to_owned()),
    }
}

const RANGE_OF: &str = concat!("SELECT ", range_columns!(), " FROM ringwright.range_of($1) r");

/// For a row that a transaction did not find: no write fence fires without a row, so its absence counts only where its
/// range is.
pub(crate) async fn absent(conn: &mut PgConnection, key: Uuid) -> Result<(), Refusal> {
    let row = sqlx::query(RANGE_OF).bind(key).fetch_one(conn).await?;
    present(&row)
}

/// For a row that a transaction found, and may decide by without writing it: no write fence fires then, and what a range
/// left behind when it moved stays until it is deleted. The statement that found it has to tell the range too, in one
/// snapshot: [`range_columns`] of `ringwright.range_of($1) r`.
pub(crate) fn present(row: &PgRow) -> Result<(), Refusal> {
    match RangeHere::read(row)?.elsewhere_for_writes() {
        Some(redirect) => Err(Refusal::NotHere(redirect)),
        None => Ok(()),
    }
}
