//! What is done to the system while keys move, and when: drawn from a seed, so that a run can be repeated.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use kube::ResourceExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use sqlx::postgres::PgPool;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::observer::{Observer, World};
use super::rebalance::{await_successor, leading_pod};
use super::shards;
use crate::history::ownership::RangeState;
use crate::history::placement::Owners;
use crate::platform::{CLUSTER, OPERATOR_NAMESPACE};
use crate::{Platform, await_condition, database};

/// How long a moment may be waited for; the rebalance usually ends before, and with it the wait.
const PATIENCE: Duration = Duration::from_secs(600);
/// Between two looks for a frozen range, which is so for some milliseconds only.
const GLANCE: Duration = Duration::from_millis(3);
/// How often a pause in the freeze is tried: a signal may come a moment too late.
const TRIES: usize = 40;

/// A moment of a rebalance, as it is seen from outside.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Point {
    /// Its plan is in the databases.
    Begun,
    /// A shard receives rows by a copy that is not complete.
    Copying,
    /// A range is frozen.
    Frozen,
    /// This part of all that moves has its new owner, 0 to 1.
    HandedOver(f64),
    /// Half of what one pair of shards exchanges has its new owner.
    HalfOfAPair,
    /// Nothing is importing any more; rows left behind are deleted.
    Cleaning,
}

/// What is done then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// The operator that leads dies by SIGKILL.
    KillOperator,
    /// The operator that leads is stopped by SIGSTOP until another leads, and then wakes beside it.
    PauseOperator,
    /// The master of a shard that gives keys away dies.
    KillSource,
    /// The master of a shard that receives keys dies.
    KillTarget,
    /// The standby of a shard that gives keys away dies: what waits for its flush waits until it is back, or let go.
    KillStandby,
}

/// A deed at its moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Appointment {
    /// When.
    pub point: Point,
    /// What.
    pub deed: Deed,
}

impl fmt::Display for Appointment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {:?}", self.deed, self.point)
    }
}

/// Draws the appointments of so many moves: in each the operator dies at some point, in one it is paused in the freeze
/// as well. With `members_die` the six deaths of masters (of a source and a target, in copy and freeze and half-way) and
/// two of standbys are spread over the moves besides.
pub fn draw(seed: u64, moves: usize, members_die: bool) -> Vec<Vec<Appointment>> {
    let mut random = StdRng::seed_from_u64(seed);
    let paused_in = random.random_range(0..moves.max(1));
    let mut drawn: Vec<Vec<Appointment>> = (0..moves)
        .map(|number| {
            let mut appointments = vec![Appointment {
                point: draw_point(&mut random),
                deed: Deed::KillOperator,
            }];
            if number == paused_in {
                appointments.push(Appointment {
                    point: Point::Frozen,
                    deed: Deed::PauseOperator,
                });
            }
            appointments
        })
        .collect();
    if members_die && moves > 0 {
        let mut deaths: Vec<Appointment> = [Point::Copying, Point::Frozen, Point::HalfOfAPair]
            .into_iter()
            .flat_map(|point| [Deed::KillSource, Deed::KillTarget].map(|deed| Appointment { point, deed }))
            .collect();
        deaths.extend([Point::Copying, Point::Frozen].map(|point| Appointment {
            point,
            deed: Deed::KillStandby,
        }));
        deaths.shuffle(&mut random);
        for (number, death) in deaths.into_iter().enumerate() {
            drawn[number % moves].push(death);
        }
    }
    drawn
}

fn draw_point(random: &mut StdRng) -> Point {
    match random.random_range(0..5) {
        0 => Point::Begun,
        1 => Point::Copying,
        2 => Point::Frozen,
        3 => Point::HandedOver(random.random_range(0.05..0.95)),
        _ => Point::Cleaning,
    }
}

/// One rebalance that faults are done to.
pub(super) struct Scene<'s> {
    pub(super) platform: &'s Platform,
    pub(super) observer: &'s Observer,
    /// Who owned what before.
    pub(super) before: &'s Owners,
    /// Set when the rebalance is over: what has not happened by then will not.
    pub(super) over: &'s AtomicBool,
}

/// What became of an appointment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kept {
    /// It was kept; what was done.
    Yes(String),
    /// The rebalance was over before its moment came.
    Missed,
}

/// A pair of shards between which keys move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Pair {
    source: u16,
    target: u16,
}

impl Scene<'_> {
    /// Keeps all appointments: those with the operator at their moments, those with databases one after the other, since
    /// a shard that has lost a member must have it back before it can lose another.
    pub(super) async fn keep(&self, appointments: &[Appointment]) -> Result<Vec<(Appointment, Kept)>> {
        let of_operators = |one: &Appointment| matches!(one.deed, Deed::KillOperator | Deed::PauseOperator);
        let (operators, members): (Vec<_>, Vec<_>) = appointments.iter().copied().partition(of_operators);
        let (operators, members) = tokio::try_join!(self.keep_in_turn(&operators), self.keep_in_turn(&members))?;
        Ok(operators.into_iter().chain(members).collect())
    }

    async fn keep_in_turn(&self, appointments: &[Appointment]) -> Result<Vec<(Appointment, Kept)>> {
        let mut kept = Vec::new();
        for appointment in appointments {
            let outcome = self
                .keep_one(*appointment)
                .await
                .with_context(|| format!("keeping the appointment: {appointment}"))?;
            println!("    {appointment}: {outcome:?}");
            kept.push((*appointment, outcome));
        }
        Ok(kept)
    }

    async fn keep_one(&self, Appointment { point, deed }: Appointment) -> Result<Kept> {
        if deed == Deed::PauseOperator {
            return self.pause_operator().await;
        }
        let Some(pair) = self.reach(point).await? else {
            return Ok(Kept::Missed);
        };
        let kubernetes = &self.platform.kubernetes;
        let done = match deed {
            Deed::KillOperator | Deed::PauseOperator => {
                let name = leading_pod(kubernetes).await?.name_any();
                let processes = kubernetes.kill_pod(OPERATOR_NAMESPACE, &name).await?;
                format!("{name}, {processes} processes")
            }
            Deed::KillSource => self.kill_master(pair.source).await?,
            Deed::KillTarget => self.kill_master(pair.target).await?,
            Deed::KillStandby => self.kill_standby(pair.source).await?,
        };
        Ok(Kept::Yes(done))
    }

    /// Kills a master and waits until its shard could lose another.
    async fn kill_master(&self, shard: u16) -> Result<String> {
        let (kubernetes, namespace) = (&self.platform.kubernetes, &self.platform.namespace);
        let name = format!("{CLUSTER}-{shard}");
        let killed = database::master(kubernetes, namespace, &name).await?.pod;
        let processes = kubernetes.kill_pod(namespace, &killed).await?;
        ensure!(processes > 1, "{killed} did not run");
        self.await_whole(&name, || self.is_whole(&name, &killed)).await?;
        Ok(format!("{killed}, {processes} processes"))
    }

    /// Kills a standby and waits until its master has it back.
    async fn kill_standby(&self, shard: u16) -> Result<String> {
        // A new process sends to it when it has come back.
        const SENDER: &str =
            "SELECT pid FROM pg_stat_replication WHERE application_name = $1 AND sync_state IN ('sync', 'quorum')";
        let (kubernetes, namespace) = (&self.platform.kubernetes, &self.platform.namespace);
        let name = format!("{CLUSTER}-{shard}");
        let replicas = format!("ringwright.dev/shard={name},ringwright.dev/role=replica");
        let replicas = kubernetes.pods(namespace, &replicas).await?;
        let standby = replicas
            .first()
            .with_context(|| format!("{name} has no standby"))?
            .name_any();
        let pool = database::connect(kubernetes, namespace, CLUSTER, &name).await?;
        let sender = || async {
            let sender = sqlx::query_scalar::<_, i32>(SENDER).bind(&standby);
            anyhow::Ok(sender.fetch_optional(&pool).await?)
        };
        let before = sender().await?;
        let processes = kubernetes.kill_pod(namespace, &standby).await?;
        ensure!(processes > 1, "{standby} did not run");
        let is_back = || async { Ok(sender().await?.is_some_and(|now| Some(now) != before)) };
        self.await_whole(&name, is_back).await?;
        Ok(format!("{standby}, {processes} processes"))
    }

    /// Waits until a shard is whole, or gone: one that leaves does not wait for its standby.
    async fn await_whole<F>(&self, shard: &str, is_whole: impl Fn() -> F) -> Result<()>
    where
        F: Future<Output = Result<bool>>,
    {
        let (kubernetes, namespace) = (&self.platform.kubernetes, &self.platform.namespace);
        let members = format!("ringwright.dev/shard={shard}");
        await_condition(&format!("{shard} to be whole again"), PATIENCE, || async {
            let is_gone = kubernetes.pods(namespace, &members).await?.is_empty();
            Ok((is_gone || is_whole().await.unwrap_or(false)).then_some(()))
        })
        .await
    }

    /// Whether the shard has a master other than the one that was killed just now, and a synchronous standby.
    async fn is_whole(&self, shard: &str, killed: &str) -> Result<bool> {
        const STANDBYS: &str = "SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')";
        let (kubernetes, namespace) = (&self.platform.kubernetes, &self.platform.namespace);
        let master = database::master_now(kubernetes, namespace, shard).await?;
        if master.is_none_or(|master| master.pod == killed) {
            return Ok(false);
        }
        let pool = database::connect(kubernetes, namespace, CLUSTER, shard).await?;
        let standbys: i64 = sqlx::query_scalar(STANDBYS).fetch_one(&pool).await?;
        Ok(standbys > 0)
    }

    /// Waits for a moment; returns a pair of shards that are in it. `None` when the rebalance is over before.
    async fn reach(&self, point: Point) -> Result<Option<Pair>> {
        if point == Point::Frozen {
            return Ok(self.await_frozen().await?.map(|(pair, _)| pair));
        }
        let mut world = self.observer.world();
        let watching = async {
            loop {
                if self.over.load(Ordering::Relaxed) {
                    return Ok(None);
                }
                let found = pair_at(point, &world.borrow_and_update(), self.before);
                if found.is_some() {
                    return Ok(found);
                }
                // The end of the rebalance is no change of a book: look again in any case.
                if let Ok(Err(_)) = timeout(Duration::from_millis(500), world.changed()).await {
                    bail!("nobody watches the books any more");
                }
            }
        };
        timeout(PATIENCE, watching).await.context("its moment did not come")?
    }

    /// Glances at the masters of all sources until a range is frozen; returns the connection that saw it as well.
    async fn await_frozen(&self) -> Result<Option<(Pair, PgPool)>> {
        const FROZEN: &str = "SELECT target FROM ringwright.range_owners WHERE state = 'frozen' LIMIT 1";
        if Box::pin(self.reach(Point::Begun)).await?.is_none() {
            return Ok(None);
        }
        let sources = sources(&self.observer.world().borrow());
        let mut pools = shards::connect_all(self.platform).await?;
        pools.retain(|shard, _| sources.contains(shard));
        let mut glances = JoinSet::new();
        for (source, pool) in pools {
            glances.spawn(async move {
                loop {
                    // A shard that fails over has nothing frozen that could be seen.
                    if let Ok(Some(target)) = sqlx::query_scalar::<_, i32>(FROZEN).fetch_optional(&pool).await
                        && let Ok(target) = u16::try_from(target)
                    {
                        return (Pair { source, target }, pool);
                    }
                    sleep(GLANCE).await;
                }
            });
        }
        let over = async {
            while !self.over.load(Ordering::Relaxed) {
                sleep(Duration::from_millis(200)).await;
            }
        };
        tokio::select! {
            seen = glances.join_next() => Ok(Some(seen.context("there is no shard")??)),
            () = over => Ok(None),
            () = sleep(PATIENCE) => bail!("no range was frozen"),
        }
    }

    /// Stops the leading operator while a range is frozen, keeps it so until another leads, and wakes it.
    async fn pause_operator(&self) -> Result<Kept> {
        let kubernetes = &self.platform.kubernetes;
        for _ in 0..TRIES {
            let leader = leading_pod(kubernetes).await?;
            let (name, uid) = (leader.name_any(), leader.uid().unwrap_or_default());
            let processes = kubernetes.cluster.processes_of_pod(&uid)?;
            if processes.is_empty() {
                continue;
            }
            let Some((pair, pool)) = self.await_frozen().await? else {
                return Ok(Kept::Missed);
            };
            processes.pause();
            // Whatever it had sent is answered by now; what is still frozen, it cannot hand over any more.
            sleep(Duration::from_millis(10)).await;
            if !still_frozen(&pool).await {
                processes.resume();
                continue;
            }
            let successor = await_successor(kubernetes, &name).await;
            // Beside the one that works now, for long enough to do whatever it meant to do.
            processes.resume();
            let successor = successor?;
            let (source, target) = (pair.source, pair.target);
            return Ok(Kept::Yes(format!(
                "{name}, with a range from {source} to {target} frozen; {successor} took over"
            )));
        }
        bail!("in {TRIES} tries the operator was never stopped in time")
    }
}

async fn still_frozen(pool: &PgPool) -> bool {
    const COUNT: &str = "SELECT count(*) FROM ringwright.range_owners WHERE state = 'frozen'";
    let count: Result<i64, _> = sqlx::query_scalar(COUNT).fetch_one(pool).await;
    count.is_ok_and(|count| count > 0)
}

/// The shards that have something to give.
fn sources(world: &World) -> BTreeSet<u16> {
    let rows = world.books.values().flat_map(|rows| rows.iter());
    let importing = rows.filter(|row| row.state == RangeState::Importing);
    importing.filter_map(|row| row.peer).collect()
}

/// How many positions of each pair have their new owner, and how many still wait for it.
fn progress(world: &World, before: &Owners) -> Vec<(Pair, u64, u64)> {
    let mut pairs: BTreeMap<Pair, (u64, u64)> = BTreeMap::new();
    for (&target, rows) in &world.books {
        for row in rows.iter() {
            if row.state == RangeState::Importing
                && let Some(source) = row.peer
            {
                pairs.entry(Pair { source, target }).or_default().1 += row.hi - row.lo;
            }
            if row.state.may_write() {
                for &(lo, hi, source) in before.iter().filter(|owner| owner.2 != target) {
                    let (start, end) = (lo.max(row.lo), hi.min(row.hi));
                    if start < end {
                        pairs.entry(Pair { source, target }).or_default().0 += end - start;
                    }
                }
            }
        }
    }
    pairs
        .into_iter()
        .map(|(pair, (done, left))| (pair, done, left))
        .collect()
}

/// A pair that is at this point now.
fn pair_at(point: Point, world: &World, before: &Owners) -> Option<Pair> {
    let pairs = progress(world, before);
    let importing = || pairs.iter().filter(|(_, _, left)| *left > 0);
    let biggest = importing().max_by_key(|(_, _, left)| *left);
    match point {
        Point::Begun => biggest.map(|(pair, ..)| *pair),
        Point::Copying => importing()
            .find(|(pair, ..)| world.copying.contains(&pair.target))
            .map(|(pair, ..)| *pair),
        Point::Frozen => None,
        Point::HandedOver(part) => {
            let done: u64 = pairs.iter().map(|(_, done, _)| done).sum();
            let left: u64 = pairs.iter().map(|(_, _, left)| left).sum();
            let reached = done > 0 && done as f64 >= part * (done + left) as f64;
            biggest.filter(|_| reached).map(|(pair, ..)| *pair)
        }
        Point::HalfOfAPair => importing().find(|(_, done, left)| done >= left).map(|(pair, ..)| *pair),
        Point::Cleaning => {
            let mut rows = world.books.values().flat_map(|rows| rows.iter());
            let cleaning = biggest.is_none() && rows.any(|row| row.state == RangeState::Moved);
            pairs.first().filter(|_| cleaning).map(|(pair, ..)| *pair)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::ownership::BookRow;

    fn row(lo: u64, hi: u64, state: RangeState, peer: Option<u16>) -> BookRow {
        BookRow {
            lo,
            hi,
            generation: 1,
            state,
            peer,
        }
    }

    fn world(target: &[BookRow]) -> World {
        let source = row(0, 100, RangeState::Owned, None);
        World {
            books: BTreeMap::from([(0, vec![source].into()), (2, target.into())]),
            copying: [2].into(),
        }
    }

    #[test]
    fn the_same_seed_draws_the_same_and_every_move_has_its_death() {
        for seed in 0..50 {
            let drawn = draw(seed, 4, true);
            assert_eq!(drawn, draw(seed, 4, true));
            let all: Vec<_> = drawn.iter().flatten().collect();
            let count = |deed| all.iter().filter(|one| one.deed == deed).count();
            assert_eq!((count(Deed::KillOperator), count(Deed::PauseOperator)), (4, 1));
            assert_eq!((count(Deed::KillSource), count(Deed::KillTarget)), (3, 3));
            assert_eq!(count(Deed::KillStandby), 2);
            assert!(
                drawn
                    .iter()
                    .all(|of_move| of_move.iter().any(|one| one.deed == Deed::KillOperator))
            );
        }
        assert_ne!(draw(1, 4, false), draw(2, 4, false));
    }

    #[test]
    fn points_are_told_from_what_the_books_say() {
        let before = vec![(0, 100, 0)];
        let pair = Some(Pair { source: 0, target: 2 });
        let begun = world(&[row(0, 40, RangeState::Importing, Some(0))]);
        assert_eq!(pair_at(Point::Begun, &begun, &before), pair);
        assert_eq!(pair_at(Point::Copying, &begun, &before), pair);
        assert_eq!(pair_at(Point::HandedOver(0.1), &begun, &before), None);
        let half = world(&[
            row(0, 20, RangeState::Owned, None),
            row(20, 40, RangeState::Importing, Some(0)),
        ]);
        assert_eq!(pair_at(Point::HalfOfAPair, &half, &before), pair);
        assert_eq!(pair_at(Point::HandedOver(0.5), &half, &before), pair);
        assert_eq!(pair_at(Point::HandedOver(0.6), &half, &before), None);
        let mut done = world(&[row(0, 40, RangeState::Owned, None)]);
        assert_eq!(pair_at(Point::Cleaning, &done, &before), None);
        let given = vec![
            row(0, 40, RangeState::Moved, Some(2)),
            row(40, 100, RangeState::Owned, None),
        ];
        done.books.insert(0, given.into());
        assert_eq!(pair_at(Point::Cleaning, &done, &before), pair);
    }
}
