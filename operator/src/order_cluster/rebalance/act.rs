//! Doing steps in the databases. No decisions here: which step is next was decided in `crates/moves`, and what a step may
//! do is decided by the database functions behind `store::moves`.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use moves::{CopyState, ImportRange, MoveId, ShardView, Step, Timeline, Why};
use ring::Range;
use store::{
    admin::{self, PgSslMode},
    moves::{
        Aborted, Batch as Piece, HandOver, MoveError, Publisher, ShardSession, abort_range, begin_import, confirm,
        drop_move_slot, drop_publication, drop_replication, drop_subscription, ensure_publication, ensure_slot,
        ensure_subscription, lost_table, merge_ranges, observe, resume_copy, roll_forward, rows_outside,
        set_copy_state, set_source_term, split_range, term, thaw_now,
    },
};
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    batches::{Ends, clean_range, hand_over_range},
    hands::{Batch, Done, Fault, HandedOver, Hands, Job, Survey},
};
use crate::{
    holdings::holdings,
    order_cluster::{
        databases::{Answer, Databases, PATIENCE},
        masters::{DATABASE, Keeper},
        names,
    },
};

/// Runs an exchange in a session with one shard.
macro_rules! at {
    ($databases:expr, $keeper:expr, |$session:ident| $exchange:expr) => {{
        let mut held = $databases.session($keeper).await?;
        let outcome = {
            let $session: &mut ShardSession = &mut held;
            $exchange.await
        };
        $databases.give_back($keeper, held, &outcome);
        outcome
    }};
}

/// Runs an exchange in sessions with both ends of a move.
macro_rules! at_both {
    ($databases:expr, $job:expr, |$source:ident, $target:ident| $exchange:expr) => {{
        let mut source = $databases.session(&$job.source).await?;
        let mut target = $databases.session(&$job.target).await?;
        let outcome = {
            let ($source, $target): (&mut ShardSession, &mut ShardSession) = (&mut source, &mut target);
            $exchange.await
        };
        // Which of the two an error concerns is not asked: both are opened anew.
        $databases.give_back(&$job.source, source, &outcome);
        $databases.give_back(&$job.target, target, &outcome);
        outcome
    }};
}

impl Answer for () {}
impl Answer for bool {}
impl Answer for ShardView {}
/// Why a shard cannot go.
impl Answer for Option<String> {}
/// Rows where there should be none.
impl Answer for Vec<(String, u64)> {}

impl Answer for HandOver {
    fn is_in_doubt(&self) -> bool {
        !matches!(self, Self::Done { .. })
    }
}

impl Answer for Done {
    fn is_in_doubt(&self) -> bool {
        match self {
            Self::NotYet(_) => true,
            Self::HandedOver(handed) => handed.held_up.is_some(),
            _ => false,
        }
    }
}

#[async_trait]
impl Hands for Databases {
    async fn observe(&self, shard: &Keeper) -> Result<ShardView, Fault> {
        Ok(at!(self, shard, |session| observe(session))?)
    }

    async fn survey(&self, shard: &Keeper) -> Result<Survey, Fault> {
        let mut session = self.session(shard).await?;
        let outside = rows_outside(&mut session).await;
        let size = match &outside {
            Ok(_) => {
                let asking = timeout(PATIENCE, admin::size(&mut session.conn)).await;
                Some(asking.map_err(|_| Fault::Silent {
                    shard: shard.shard.clone(),
                    after: PATIENCE,
                })?)
            }
            Err(_) => None,
        };
        self.give_back(shard, session, &outside);
        let outside: Vec<String> = outside?
            .into_iter()
            .map(|(relation, rows)| format!("{relation}: {rows}"))
            .collect();
        let size = size.transpose()?.unwrap_or_default();
        Ok(Survey {
            bytes: size.bytes,
            rows: size.rows,
            outside: (!outside.is_empty()).then(|| outside.join(", ")),
        })
    }

    async fn holdings(&self, shard: &Keeper) -> Result<Option<String>, Fault> {
        Ok(at!(self, shard, |session| holdings(session))?)
    }

    async fn carry_out(&self, job: &Job) -> Result<Done, Fault> {
        match self.carry_out_once(job).await {
            // Nothing was done, and that is no failure.
            Err(Fault::Step(
                refusal @ (MoveError::Busy { .. } | MoveError::Refused { .. } | MoveError::NotDurable { .. }),
            )) => Ok(Done::NotYet(refusal.to_string())),
            other => other,
        }
    }

    fn rest(&self, shards: &[&Keeper]) {
        self.close_idle(shards);
    }
}

impl Databases {
    async fn carry_out_once(&self, job: &Job) -> Result<Done, Fault> {
        match &job.step {
            Step::Begin { ranges, .. } => self.begin(job, ranges).await,
            Step::Copy {
                move_id,
                source_term,
                failover,
                ranges,
                ..
            } => self.copy(job, *move_id, *source_term, *failover, ranges).await,
            Step::AwaitCopy { move_id, .. } => Ok(at_both!(self, job, |source, target| await_copy(
                source, target, *move_id
            ))?),
            Step::Resume {
                move_id, source_term, ..
            } => Ok(at_both!(self, job, |source, target| resume(
                source,
                target,
                *move_id,
                *source_term
            ))?),
            Step::Split { range, cuts, .. } => Ok(at!(self, &job.source, |session| split(session, *range, cuts))?),
            Step::HandOver {
                move_id, range, frozen, ..
            } => Ok(at_both!(self, job, |source, target| hand_over_range(
                Ends { source, target },
                &self.pacing,
                &job.limits,
                *move_id,
                *range,
                *frozen
            ))?),
            Step::RollForward { move_id, range, .. } => {
                let piece = piece(*move_id, *range);
                let outcome = at_both!(self, job, |source, target| roll_forward(source, target, &piece))?;
                Ok(rolled_forward(outcome))
            }
            Step::Abort {
                move_id, ranges, why, ..
            } => Ok(at_both!(self, job, |source, target| abort(
                source,
                target,
                *move_id,
                ranges,
                why,
                job.limits.budget
            ))?),
            Step::Thaw {
                move_id,
                range,
                attempt,
                ..
            } => {
                let piece = piece(*move_id, *range);
                at!(self, &job.source, |session| thaw_now(session, &piece, *attempt))?;
                Ok(Done::Nothing)
            }
            Step::DropReplication { move_id, .. } => {
                self.pacing.forget(*move_id);
                Ok(at_both!(self, job, |source, target| end(source, target, *move_id))?)
            }
            Step::Clean { move_id, range, .. } => {
                let piece = piece(*move_id, *range);
                Ok(at!(self, &job.source, |session| clean_range(
                    session,
                    &self.pacing,
                    &job.limits,
                    &piece
                ))?)
            }
            Step::Sweep {
                subscriptions,
                slots,
                publications,
                ..
            } => Ok(at!(self, &job.source, |session| sweep(
                session,
                subscriptions,
                slots,
                publications
            ))?),
            Step::Merge { .. } => Ok(at!(self, &job.source, |session| merge(session, job.limits.budget))?),
        }
    }

    /// Writes a move down at its target. What the source is said to own was only read, perhaps in another session: it is
    /// read once more, and made durable in the session that read it. Otherwise a range could come back to a shard that has
    /// cleaned it while the shard it comes from can still forget that it ever took it.
    async fn begin(&self, job: &Job, ranges: &[ImportRange]) -> Result<Done, Fault> {
        let owned = at!(self, &job.source, |session| confirm_owned(session, ranges))?;
        if !owned {
            let why = format!("shard {} owns something else by now", job.source.shard);
            return Ok(Done::NotYet(why));
        }
        let id = MoveId(uuid_v4());
        let (from, hosts) = (job.source.ordinal, &job.source.hosts);
        at!(self, &job.target, |session| begin_import(
            session, id, from, hosts, ranges
        ))?;
        Ok(Done::Begun(id))
    }

    /// Sets the replication up. The record of it at the target is complete before the next thing is made, so that whoever
    /// comes after knows what there may be.
    async fn copy(
        &self,
        job: &Job,
        id: MoveId,
        term: Timeline,
        failover: bool,
        ranges: &[Range],
    ) -> Result<Done, Fault> {
        let secret = names::program_secret(&job.source.cluster, "mover");
        let unreachable = |error| Fault::Unreachable {
            shard: job.source.shard.clone(),
            source: Box::new(error),
        };
        let password = self.masters.password(&job.source, &secret, "password").await;
        let publisher = Publisher {
            hosts: job.source.hosts.clone(),
            database: DATABASE.to_owned(),
            user: admin::Role::Mover.name().to_owned(),
            password: password.map_err(unreachable)?,
            ssl_mode: PgSslMode::Prefer,
            ca_file: None,
        };
        Ok(at_both!(self, job, |source, target| async {
            if let Some(why) = self.publish(job, source, target, id, ranges).await? {
                set_copy_state(target, id, CopyState::Aborting, Some(&why)).await?;
                return Ok(Done::NotYet(why));
            }
            set_source_term(target, id, term).await?;
            if !ensure_slot(source, id, term, failover).await? {
                return Ok(Done::NotYet(format!("shard {} has another master", source.shard)));
            }
            ensure_subscription(target, id, &publisher, failover).await?;
            set_copy_state(target, id, CopyState::Copying, None).await?;
            Ok(Done::Copying)
        })?)
    }

    /// Makes the publication, if both ends have the same schema; why they have not otherwise. No migration can come in
    /// between: from the publication on, the shard's own database says that it takes part in a move.
    async fn publish(
        &self,
        job: &Job,
        source: &mut ShardSession,
        target: &mut ShardSession,
        id: MoveId,
        ranges: &[Range],
    ) -> Result<Option<String>, MoveError> {
        let shards = [job.source.shard.as_str(), job.target.shard.as_str()];
        let _passage = self.context.schemas.pass_both(&job.source.namespace, shards).await;
        let schema = async |end: &Keeper, session: &mut ShardSession| {
            let asking = timeout(PATIENCE, admin::schema_version(&mut session.conn)).await;
            let answer = asking.map_err(|_| MoveError::Silent {
                shard: end.ordinal,
                operation: format!("tell its schema for move {id}"),
                limit_s: PATIENCE.as_secs(),
            });
            answer.map(|version| version.ok().flatten())
        };
        let (here, there) = (schema(&job.source, source).await?, schema(&job.target, target).await?);
        match (here, there) {
            (Some(here), Some(there)) if here == there => {
                ensure_publication(source, id, ranges).await?;
                Ok(None)
            }
            (Some(here), Some(there)) => Ok(Some(format!(
                "the schemas differ: {} has {}, {} has {}",
                job.source.shard, here.0, job.target.shard, there.0
            ))),
            _ => Err(MoveError::Busy {
                shard: job.source.ordinal,
                operation: format!("compare the schemas for move {id}"),
                why: "a schema's version could not be read".to_owned(),
            }),
        }
    }
}

/// Postgres copies; unless it never comes to the end of that.
async fn await_copy(source: &mut ShardSession, target: &mut ShardSession, id: MoveId) -> Result<Done, MoveError> {
    let Some(table) = lost_table(source, target, id).await? else {
        return Ok(Done::Awaiting);
    };
    let why = format!("the first copy of {table} has lost its slot at shard {}", source.shard);
    set_copy_state(target, id, CopyState::Aborting, Some(&why)).await?;
    Ok(Done::NotYet(why))
}

fn piece(move_id: MoveId, range: Range) -> Piece {
    Piece { move_id, range }
}

fn uuid_v4() -> Uuid {
    uuid::Builder::from_random_bytes(rand::random()).into_uuid()
}

fn rolled_forward(outcome: HandOver) -> Done {
    match outcome {
        HandOver::Done {
            rows, pause, compared, ..
        } => Done::HandedOver(HandedOver {
            batches: vec![Batch { rows, pause, compared }],
            ..HandedOver::default()
        }),
        HandOver::Busy { why } => Done::NotYet(why),
        HandOver::NotDurable { step, why } => Done::NotYet(format!("{step}: {why}")),
        HandOver::Expired { .. } => Done::NotYet("it is looked at again".to_owned()),
    }
}

/// Whether the shard owns all of these ranges as they are given here, for good.
async fn confirm_owned(source: &mut ShardSession, ranges: &[ImportRange]) -> Result<bool, MoveError> {
    let view = observe(source).await?;
    let owned = |import: &ImportRange| {
        view.rows.iter().any(|row| {
            row.state.is_here()
                && row.range.lo <= import.range.lo
                && import.range.hi <= row.range.hi
                && (row.generation, row.attempt) == (import.generation, import.attempt)
        })
    };
    if !ranges.iter().all(owned) {
        return Ok(false);
    }
    confirm(source).await?;
    Ok(true)
}

async fn split(session: &mut ShardSession, mut range: Range, cuts: &[u64]) -> Result<Done, MoveError> {
    for cut in cuts {
        if !split_range(session, range, *cut).await? {
            return Ok(Done::NotYet(format!(
                "{range} was not cut: it is frozen, or was cut before"
            )));
        }
        range.lo = *cut;
    }
    Ok(Done::Nothing)
}

/// On its own timeline the source has the slot that was seen.
async fn resume(
    source: &mut ShardSession,
    target: &mut ShardSession,
    id: MoveId,
    source_term: Timeline,
) -> Result<Done, MoveError> {
    if term(source).await? != source_term {
        return Ok(Done::NotYet(format!("shard {} has another master", source.shard)));
    }
    match resume_copy(target, id).await? {
        true => Ok(Done::Resumed),
        false => Ok(Done::NotYet(format!(
            "the subscription of move {id} met an error, and is switched on again in some seconds"
        ))),
    }
}

/// First the decision, for good; then range by range.
async fn abort(
    source: &mut ShardSession,
    target: &mut ShardSession,
    id: MoveId,
    ranges: &[Range],
    why: &Why,
    budget: Duration,
) -> Result<Done, MoveError> {
    let began = Instant::now();
    let reason = match why {
        Why::Decided { .. } => None,
        why => Some(why.to_string()),
    };
    match set_copy_state(target, id, CopyState::Aborting, reason.as_deref()).await {
        // Without its record it cannot be told of; undone it is all the same.
        Err(MoveError::Refused { .. }) => {}
        other => other?,
    }
    let (mut undone, mut rolled_forward) = (0, 0);
    for range in ranges {
        match abort_range(source, target, &piece(id, *range)).await? {
            Aborted::Undone => undone += 1,
            Aborted::RolledForward => rolled_forward += 1,
            Aborted::Again { why } if undone + rolled_forward == 0 => return Ok(Done::NotYet(why)),
            Aborted::Again { .. } => break,
        }
        if began.elapsed() >= budget {
            break;
        }
    }
    Ok(Done::Aborted { undone, rolled_forward })
}

async fn end(source: &mut ShardSession, target: &mut ShardSession, id: MoveId) -> Result<Done, MoveError> {
    match drop_replication(source, target, id).await? {
        true => Ok(Done::Nothing),
        false => Ok(Done::NotYet(format!("move {id} still imports a range"))),
    }
}

async fn sweep(
    session: &mut ShardSession,
    subscriptions: &[MoveId],
    slots: &[MoveId],
    publications: &[MoveId],
) -> Result<Done, MoveError> {
    for id in subscriptions {
        drop_subscription(session, *id).await?;
    }
    for id in slots {
        drop_move_slot(session, *id).await?;
    }
    for id in publications {
        drop_publication(session, *id).await?;
    }
    Ok(Done::Nothing)
}

async fn merge(session: &mut ShardSession, budget: Duration) -> Result<Done, MoveError> {
    let began = Instant::now();
    while began.elapsed() < budget {
        if merge_ranges(session).await? == 0 {
            break;
        }
    }
    Ok(Done::Nothing)
}
