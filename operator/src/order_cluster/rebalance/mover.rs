//! The mover of one cluster: it looks at all shards, decides what is next, does it, and tells.
//!
//! It remembers nothing that counts. Whatever it was doing when it died, the next one finds in the databases; and two of
//! them at once do no harm.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use crds::{RebalancePhase, RebalanceStatus};
use futures::{StreamExt, stream};
use k8s_openapi::jiff::Timestamp;
use moves::{MoveId, ShardView, Step, Why};
use ring::Ordinal;
use telemetry::chain;
use tracing::{info, warn};

use super::{
    course::{Begun, Course, Estimate, Pending},
    delay::Delay,
    hands::{Done, HandedOver, Hands, Job, Survey},
    lanes::Lanes,
    look::{Look, leavers},
    orders::{Abort, Orders},
    preflight::{self, Refusal},
    report::{Report, Seen, Standing},
    setbacks::Setbacks,
    suspects::Suspects,
    teller::Teller,
};
use crate::conditions::now;

/// How many shards are asked at the same time.
const AT_ONCE: usize = 32;
/// For how long a lane works before everything is looked at again.
const BUDGET: Duration = Duration::from_secs(2);
/// The pauses between rounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pauses {
    /// While work goes on.
    pub(crate) working: Duration,
    /// While Postgres copies, or a step has to wait a moment.
    pub(crate) awaiting: Duration,
    /// While something stands in the way.
    pub(crate) blocked: Duration,
}

impl Default for Pauses {
    fn default() -> Self {
        Self {
            working: Duration::from_millis(20),
            awaiting: Duration::from_millis(500),
            blocked: Duration::from_secs(3),
        }
    }
}

/// One cluster's mover.
pub(crate) struct Mover {
    hands: Arc<dyn Hands>,
    teller: Teller,
    course: Course,
    lanes: Lanes,
    pauses: Pauses,
    /// Moves whose undoing was told.
    told: BTreeSet<MoveId>,
    setbacks: Setbacks,
    /// Why the last move had to be undone, and until when nothing is begun for it.
    setback: Option<Refusal>,
    suspects: Suspects,
    delay: Delay,
}

/// What a round came to.
#[derive(Debug)]
pub(crate) struct Round {
    pub(crate) report: Report,
    /// When the next one is due.
    pub(crate) wait: Duration,
    /// Nothing is left to do until the orders change.
    pub(crate) ended: bool,
}

impl Mover {
    /// `account` is what the resource's status tells of an earlier rebalance.
    pub(crate) fn new(hands: Arc<dyn Hands>, teller: Teller, pauses: Pauses, account: Option<RebalanceStatus>) -> Self {
        Self {
            hands,
            teller,
            course: Course::resume(account),
            lanes: Lanes::default(),
            pauses,
            told: BTreeSet::new(),
            setbacks: Setbacks::default(),
            setback: None,
            suspects: Suspects::default(),
            delay: Delay::default(),
        }
    }

    /// There is nothing to do for a while.
    pub(crate) fn rest(&self, orders: &Orders) {
        let keepers: Vec<_> = orders
            .shards
            .values()
            .filter_map(|party| party.keeper.as_ref().ok())
            .collect();
        self.hands.rest(&keepers);
    }

    /// One round.
    pub(crate) async fn round(&mut self, orders: &Orders) -> Round {
        self.setbacks.under(orders.generation);
        let look = self.look(orders).await;
        if look.is_complete(orders) {
            let before = self.course.status().map_or(0, |status| status.ranges_done);
            self.course.observed(&Pending::of(&look.world));
            let now = self.course.status().map_or(0, |status| status.ranges_done);
            self.teller.ranges_moved(now - before);
        }
        self.teller.copies(look.copies());
        if look.steps.is_done() {
            return self.at_rest(orders, &look).await;
        }
        let mut lanes = look.lanes(orders, BUDGET);
        self.suspects.acquit(&mut lanes);
        let refusal = match self.may_begin(orders, &look).await {
            Ok(()) => None,
            Err(refusal) => {
                let begins = |job: &Job| matches!(job.step, Step::Begin { .. });
                lanes.iter_mut().for_each(|lane| lane.retain(|job| !begins(job)));
                Some(refusal)
            }
        };
        let progressed = self.work(&look, lanes).await;
        self.under_way(orders, &look, refusal, progressed)
    }

    /// Asks every shard.
    async fn look(&self, orders: &Orders) -> Look {
        let asking: Vec<_> = orders
            .shards
            .iter()
            .map(|(ordinal, party)| async move {
                let view = match &party.keeper {
                    Ok(keeper) => self.hands.observe(keeper).await.map_err(|fault| chain(&fault)),
                    Err(why) => Err(why.clone()),
                };
                (*ordinal, view)
            })
            .collect();
        let answers: Vec<(Ordinal, Result<ShardView, String>)> =
            stream::iter(asking).buffer_unordered(AT_ONCE).collect().await;
        let (mut world, mut silent) = (BTreeMap::new(), BTreeMap::new());
        for (ordinal, answer) in answers {
            match answer {
                Ok(view) => drop(world.insert(ordinal, view)),
                Err(why) => drop(silent.insert(ordinal, why)),
            }
        }
        Look::new(orders, world, silent)
    }

    /// Nothing is to be done: the ring is as wished, or the rebalance is held.
    async fn at_rest(&mut self, orders: &Orders, look: &Look) -> Round {
        let mut report = self.report(look);
        let (mut ended, mut wait) = (true, self.pauses.awaiting);
        if look.is_balanced() {
            if self.course.is_open() {
                self.course.close(RebalancePhase::Finished);
                self.teller.finished(self.course.status()).await;
            }
            report.aborted = matches!(orders.abort, Abort::Requested { .. });
            for leaver in leavers(orders, look) {
                match self.still_holds(orders, leaver).await {
                    None => drop(report.empty.insert(leaver)),
                    Some(why) => {
                        report.standing = Standing::Waiting {
                            why: format!("shard {leaver} cannot go yet: {why}"),
                            person: false,
                        };
                    }
                }
            }
            ended = report.empty == orders.leaving;
            wait = self.pauses.blocked;
        } else if orders.abort != Abort::No {
            self.course.close(RebalancePhase::Aborted);
            report.standing = Standing::Aborted;
            if let Abort::Requested { generation } = orders.abort {
                self.course.abort_of(generation);
                report.aborted = true;
                self.teller.aborted().await;
            }
        } else {
            if self.course.is_open() && self.course.phase() != Some(RebalancePhase::Paused) {
                self.teller.paused().await;
            }
            self.course.set_phase(RebalancePhase::Paused);
            report.standing = Standing::Paused;
        }
        if look.in_flight() {
            // Moves that are written down and held: they are watched, for whoever left them would be called at once.
            (ended, wait) = (false, self.pauses.blocked);
        }
        report.course = self.course.status().cloned();
        Round { report, wait, ended }
    }

    /// What keeps a leaving shard.
    async fn still_holds(&self, orders: &Orders, leaver: Ordinal) -> Option<String> {
        match orders.shards.get(&leaver).map(|party| &party.keeper) {
            Some(Ok(keeper)) => self
                .hands
                .holdings(keeper)
                .await
                .unwrap_or_else(|fault| Some(chain(&fault))),
            Some(Err(why)) => Some(why.clone()),
            None => Some("it is not known".to_owned()),
        }
    }

    /// Whether moves may be written down, if any are to be; the figures go into the account.
    async fn may_begin(&mut self, orders: &Orders, look: &Look) -> Result<(), Refusal> {
        let (Some(tokens), Some(plan)) = (&look.tokens, &look.plan) else {
            return Ok(());
        };
        if !look.begins() {
            return match look.is_balanced() || look.in_flight() || orders.wish().paused || orders.wish().abort {
                true => Ok(()),
                // Moves are wanted, and not all shards could be looked at to plan them.
                false => preflight::at_a_glance(orders),
            };
        }
        if !self.setbacks.is_over(Instant::now())
            && let Some(refusal) = &self.setback
        {
            return Err(refusal.clone());
        }
        if look.in_flight() {
            // Some of a plan is written down. Its shards take no new schema, and so may not become ready, until it is done.
            preflight::listed(orders)?;
        } else {
            preflight::at_a_glance(orders)?;
        }
        let surveys = self.survey(orders).await?;
        let rows = preflight::in_depth(orders, tokens, &plan.moves, &surveys)?;
        let unplanned = !look.in_flight();
        if unplanned {
            let owners: Vec<_> = orders.owners.iter().map(|(o, weight)| (*o, *weight)).collect();
            let summary = moves::summary(plan, tokens, &owners);
            let estimate = Estimate::of(&summary, rows);
            match self.course.begin(&estimate) {
                Begun::First => self.teller.started(&summary, rows).await,
                Begun::More => self.teller.replanned(&summary).await,
                Begun::Known => {}
            }
        }
        Ok(())
    }

    async fn survey(&self, orders: &Orders) -> Result<BTreeMap<Ordinal, Survey>, Refusal> {
        let asking: Vec<_> = orders
            .shards
            .iter()
            .map(|(ordinal, party)| async move {
                let unknown = |why: String| Refusal::Unreachable(format!("shard {ordinal}: {why}"));
                let keeper = party.keeper.as_ref().map_err(|why| unknown(why.clone()))?;
                let survey = self.hands.survey(keeper).await;
                Ok((*ordinal, survey.map_err(|fault| unknown(chain(&fault)))?))
            })
            .collect();
        let answers: Vec<Result<(Ordinal, Survey), Refusal>> =
            stream::iter(asking).buffer_unordered(AT_ONCE).collect().await;
        answers.into_iter().collect()
    }

    /// Works the lanes, and takes in what came of it. Whether anything went forward.
    async fn work(&mut self, look: &Look, lanes: Vec<Vec<Job>>) -> bool {
        self.lanes.begin(&self.hands, lanes);
        let outcomes = self.lanes.gather(BUDGET).await;
        let (mut progressed, mut waited) = (false, None);
        for (job, outcome) in outcomes {
            match outcome {
                Ok(done) => {
                    match (&done, done.waits()) {
                        (Done::Awaiting, _) => {}
                        (_, Some(why)) => waited = Some(why.to_owned()),
                        (_, None) => progressed = true,
                    }
                    self.take_in(look, &job, done).await;
                }
                Err(fault) => {
                    let why = chain(&fault);
                    warn!(step = ?job.step, error = why, "a step of a move failed; it is tried again");
                    self.course.failed(&why, "it is tried again in a moment");
                    waited = Some(why);
                }
            }
        }
        self.delay.round(progressed, waited, Instant::now());
        progressed
    }

    /// Takes in what a job came to.
    async fn take_in(&mut self, look: &Look, job: &Job, done: Done) {
        match (done, &job.step) {
            (Done::Begun(move_id), Step::Begin { source, target, ranges }) => {
                info!(%move_id, %source, %target, ranges = ranges.len(), "wrote a move down");
            }
            (
                Done::Copying,
                Step::Copy {
                    move_id,
                    source,
                    target,
                    ranges,
                    ..
                },
            ) => self.teller.move_started(*move_id, *source, *target, ranges.len()).await,
            (Done::Resumed, Step::Resume { move_id, target, .. }) => {
                let met =
                    format!("the subscription of move {move_id} met an error; the log of shard {target} tells it");
                warn!(%move_id, %target, "switched a subscription on again that had met an error");
                self.course
                    .failed(&met, "it was switched on again, and goes on from where it was");
            }
            (Done::HandedOver(handed), _) => self.count(&handed),
            (Done::Aborted { undone, rolled_forward }, Step::Abort { move_id, why, .. }) => {
                let first = self.told.insert(*move_id);
                self.course.undone(undone, first);
                let asked_for = matches!(why, Why::Requested | Why::TargetLeaves { .. } | Why::Conflict { .. });
                let action = match why {
                    Why::Requested => "its ranges stay where they are, until the specification changes",
                    _ => "its ranges stay where they are, and what still has to move is planned anew",
                };
                let why = why.to_string();
                self.course.failed(&format!("move {move_id} was undone: {why}"), action);
                if first {
                    if !asked_for && let Some(wait) = self.setbacks.add(Instant::now()) {
                        let (why, at) = (why.clone(), in_words(wait));
                        self.setback = Some(match self.setbacks.many() {
                            Some(setbacks) => Refusal::AfterSetbacks { setbacks, why, at },
                            None => Refusal::AfterSetback { why, at },
                        });
                    }
                    self.teller
                        .move_aborted(*move_id, &why, undone, rolled_forward, asked_for)
                        .await;
                }
            }
            (
                Done::Nothing,
                Step::DropReplication {
                    move_id,
                    source,
                    target,
                },
            ) if !look.is_aborting(*move_id) => {
                self.setbacks.forget();
                self.teller.move_finished(*move_id, *source, *target).await;
            }
            (Done::Cleaned { rows }, Step::Clean { shard, .. }) => {
                info!(%shard, rows, "deleted rows that have moved");
            }
            (Done::NotYet(why), step) => {
                info!(?step, why, "a step of a move has to wait");
                self.course.failed(&why, "it is tried again in a moment");
            }
            _ => {}
        }
    }

    fn count(&mut self, handed: &HandedOver) {
        for batch in &handed.batches {
            self.course.handed_over(batch, Instant::now());
            self.teller.batch(batch);
        }
        for pause in &handed.expired {
            self.course.expired(*pause);
            self.teller.expired(*pause);
        }
        if let Some(why) = &handed.held_up {
            self.course.failed(why, "it is tried again in a moment");
        }
    }

    /// The report of a round in which something was to be done.
    fn under_way(&mut self, orders: &Orders, look: &Look, refusal: Option<Refusal>, progressed: bool) -> Round {
        let phase = look.phase(orders);
        let obstacle = || look.obstacle().filter(|_| !look.is_balanced() || look.in_flight());
        let standing = match refusal {
            Some(refusal) => {
                let (why, person) = (refusal.to_string(), refusal.needs_a_person());
                // What passes by itself before anything has begun, as in every scale-out, is no part of the account.
                if person || self.course.is_open() {
                    self.course.blocked(&why, refusal.action());
                }
                Standing::Waiting { why, person }
            }
            None => match obstacle().filter(|_| !progressed) {
                Some(why) => {
                    if self.course.is_open() {
                        self.course.blocked(&why, "it goes on by itself when that has passed");
                    }
                    Standing::Waiting { why, person: false }
                }
                None => match self.delay.is_long(Instant::now()) {
                    Some(why) => Standing::Waiting { why, person: true },
                    None => Standing::Moving,
                },
            },
        };
        if standing == Standing::Moving {
            self.course.set_phase(phase);
        }
        let mut report = self.report(look);
        // Sweeping up after nothing is no rebalance.
        report.standing = match standing {
            Standing::Moving if look.is_balanced() && !look.in_flight() => Standing::Idle,
            standing => standing,
        };
        let wait = match (progressed, &report.standing) {
            (true, _) => self.pauses.working,
            (false, Standing::Moving) => self.pauses.awaiting,
            (false, _) => self.pauses.blocked,
        };
        Round {
            report,
            wait,
            ended: false,
        }
    }

    fn report(&mut self, look: &Look) -> Report {
        self.course.estimate(Instant::now());
        let seen = look.tokens.clone().map(|tokens| Seen {
            tokens,
            in_flight: look.in_flight(),
            at: Instant::now(),
        });
        Report {
            course: self.course.status().cloned(),
            seen,
            ..Report::default()
        }
    }
}

/// The time in so long, to the second.
fn in_words(wait: Duration) -> String {
    let second = now().0.as_second().saturating_add_unsigned(wait.as_secs());
    match Timestamp::from_second(second) {
        Ok(time) => time.to_string(),
        Err(_) => format!("{} s later", wait.as_secs()),
    }
}
