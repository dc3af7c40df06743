//! What is done to the system while keys move.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::future::join_all;
use hermetic_cluster::PodProcesses;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use sqlx::postgres::PgPool;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::appointments::{Appointment, Deed, Point};
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

/// A member that is about to die.
struct Victim {
    shard: String,
    pod: Pod,
    processes: PodProcesses,
    /// Of a standby: the process that sends the log to it.
    sender: Option<i32>,
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
        match (deed, point) {
            (Deed::PauseOperator, _) => return self.pause_operator().await,
            (Deed::KillSource | Deed::KillTarget | Deed::KillStandby, Point::Frozen) => {
                return self.kill_in_a_freeze(deed).await;
            }
            _ => {}
        }
        let Some(pair) = self.reach(point).await? else {
            return Ok(Kept::Missed);
        };
        let kubernetes = &self.platform.kubernetes;
        if deed == Deed::KillOperator {
            let name = leading_pod(kubernetes).await?.name_any();
            let processes = kubernetes.kill_pod(OPERATOR_NAMESPACE, &name).await?;
            return Ok(Kept::Yes(format!("{name}, {processes} processes")));
        }
        let victim = self.victim(deed, end_of(deed, pair)).await?;
        ensure!(victim.processes.kill() > 1, "{} did not run", victim.pod.name_any());
        Ok(Kept::Yes(self.bury(victim).await?))
    }

    /// Kills a member while a range is frozen. Who it may be, and by which processes it runs, is found before: a freeze is
    /// over sooner than the API server answers.
    async fn kill_in_a_freeze(&self, deed: Deed) -> Result<Kept> {
        for _ in 0..TRIES {
            // Shards that have just come have a master by then.
            if self.reach(Point::Begun).await?.is_none() {
                return Ok(Kept::Missed);
            }
            let shards: Vec<u16> = self.observer.world().borrow().books.keys().copied().collect();
            let victims = shards.into_iter().map(|shard| async move {
                // One that has just lost a member, or is about to go, has nobody to kill.
                let victim = self.victim(deed, shard).await.ok();
                victim.map(|victim| (shard, victim))
            });
            let victims = join_all(victims).await;
            let mut victims: BTreeMap<u16, Victim> = victims.into_iter().flatten().collect();
            let Some((pair, _)) = self.await_frozen().await? else {
                return Ok(Kept::Missed);
            };
            let victim = victims.remove(&end_of(deed, pair));
            if let Some(victim) = victim.filter(|victim| victim.processes.kill() > 1) {
                let (source, target) = (pair.source, pair.target);
                let killed = self.bury(victim).await?;
                return Ok(Kept::Yes(format!(
                    "{killed}, with a range from {source} to {target} frozen"
                )));
            }
        }
        bail!("in {TRIES} tries there was nobody to kill where a range was frozen")
    }

    /// Whom a death at this shard takes.
    async fn victim(&self, deed: Deed, shard: u16) -> Result<Victim> {
        let (kubernetes, namespace) = (&self.platform.kubernetes, &self.platform.namespace);
        let shard = format!("{CLUSTER}-{shard}");
        let role = if deed == Deed::KillStandby { "replica" } else { "master" };
        let pods = format!("ringwright.dev/shard={shard},ringwright.dev/role={role}");
        let pods = kubernetes.pods(namespace, &pods).await?;
        let pod = pods
            .into_iter()
            .next()
            .with_context(|| format!("{shard} has no {role}"))?;
        let sender = match deed {
            Deed::KillStandby => self.sender(&shard, &pod.name_any()).await?,
            _ => None,
        };
        let processes = kubernetes.cluster.processes_of_pod(&pod.uid().unwrap_or_default())?;
        Ok(Victim {
            shard,
            pod,
            processes,
            sender,
        })
    }

    /// The process that sends the log to a standby.
    async fn sender(&self, shard: &str, standby: &str) -> Result<Option<i32>> {
        const SENDER: &str =
            "SELECT pid FROM pg_stat_replication WHERE application_name = $1 AND sync_state IN ('sync', 'quorum')";
        let (kubernetes, namespace) = (&self.platform.kubernetes, &self.platform.namespace);
        let pool = database::connect(kubernetes, namespace, CLUSTER, shard).await?;
        Ok(sqlx::query_scalar(SENDER).bind(standby).fetch_optional(&pool).await?)
    }

    /// Removes the pod of a member that was killed, and waits until its shard could lose another.
    async fn bury(&self, victim: Victim) -> Result<String> {
        let Victim { shard, pod, sender, .. } = victim;
        let name = pod.name_any();
        // With whatever was born since.
        self.platform.kubernetes.kill_found_pod(&pod).await?;
        let was_master = pod
            .labels()
            .get("ringwright.dev/role")
            .is_some_and(|role| role == "master");
        self.await_whole(&shard, || async {
            if was_master {
                return self.is_whole(&shard, pod.uid()).await;
            }
            // Its master sends to it again, by another process than before.
            let now = self.sender(&shard, &name).await?;
            Ok(now.is_some() && now != sender)
        })
        .await?;
        Ok(name)
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

    /// Whether the shard has a master other than the pod that was killed just now, and a synchronous standby that would
    /// take its place.
    async fn is_whole(&self, shard: &str, killed: Option<String>) -> Result<bool> {
        const STANDBYS: &str = "SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')";
        let (kubernetes, namespace) = (&self.platform.kubernetes, &self.platform.namespace);
        let master = database::master_now(kubernetes, namespace, shard).await?;
        let Some(master) = master.filter(|master| master.uid != killed) else {
            return Ok(false);
        };
        if !database::has_heir(kubernetes, namespace, shard, &master).await? {
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

/// The shard that a deed to a pair is done to.
fn end_of(deed: Deed, pair: Pair) -> u16 {
    match deed {
        Deed::KillTarget => pair.target,
        _ => pair.source,
    }
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
