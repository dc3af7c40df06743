//! A cluster changes its number of shards again and again under load, with faults drawn from a seed, and is judged.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;
use sqlx::postgres::PgPool;

use super::appointments::{Appointment, Deed, draw};
use super::audit::Audit;
use super::faults::{Kept, Scene};
use super::measure;
use super::observer::Observer;
use super::rebalance::{await_rebalanced, balanced, operators, owners, scale};
use super::shards;
use crate::history::{Violation, check, placement, report};
use crate::load::{Caller, Client, Clock, Load, Phase, Recorder, Repeats, Settings, prefill};
use crate::platform::{self, bearer};
use crate::{Kubernetes, Platform, with_temp_ns};

/// The shards that a campaign begins with.
const FIRST: usize = 2;
/// From one number of shards to the next, deaths and recoveries included.
const PATIENCE: Duration = Duration::from_secs(900);
/// Ten pods of databases, a Kubernetes, the load and its judge share two cores: five commits on ten disks take long at
/// times. How short pauses are is for the benchmark to say.
const MAX_PAUSE: &str = "1s";
/// Until every shard was looked at.
const SIGHT: Duration = Duration::from_secs(120);
/// Under load before the first move, and after the last.
const CALM: Duration = Duration::from_secs(5);
/// Until the last customer is told.
const DELIVERY: Duration = Duration::from_secs(600);
/// A shard that leaves may hold this much less than its fair share: the planner's band.
const LEAST: f64 = 0.97;
/// Repeats under way at once in the end.
const REPEATS_AT_ONCE: usize = 16;

/// What is to be run.
#[derive(Debug, Clone, Copy)]
pub struct Campaign {
    /// Faults and load come from it.
    pub seed: u64,
    /// Orders stored before the first move.
    pub orders: usize,
    /// Requests a second.
    pub rate: u32,
    /// The numbers of shards it goes through, from 2.
    pub numbers: &'static [usize],
    /// Whether masters and standbys die too; requests may then fail, for a failover takes seconds.
    pub members_die: bool,
    /// Whether no write is accepted without a standby: `durability: required`.
    pub strict: bool,
}

/// What came of it: one line of the long campaign.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Of the campaign.
    pub seed: u64,
    /// Of the campaign.
    pub strict: bool,
    /// Whether everything was as it must be.
    pub passed: bool,
    /// What was not.
    pub complaints: Vec<String>,
    /// How many rules were found broken, over all.
    pub violations: usize,
    /// Orders stored in the end.
    pub orders: usize,
    /// Requests and batch items on record.
    pub recorded: usize,
    /// Requests that were not answered as they should.
    pub failed: u64,
    /// Requests that were not sent because too many were under way.
    pub not_sent: u64,
    /// What was done, and what was missed.
    pub faults: Vec<String>,
    /// From one number of shards to the next: seconds, and the part of all keys that moved.
    pub moves: Vec<String>,
    /// When a shard had no master in sight, or another one than before.
    pub interruptions: Vec<String>,
    /// All of it.
    pub seconds: u64,
    /// The violations, with their proof. Not part of the line.
    #[serde(skip)]
    pub report: String,
}

impl Campaign {
    /// Growing and shrinking, by one shard and by two, and back to what was there before.
    pub const LONG: &'static [usize] = &[3, 5, 3, 5];

    /// Runs it in a namespace of its own, with two operators.
    ///
    /// # Errors
    /// When the cluster cannot be made, or does not get to where it was asked to go. What is wrong with what it did is
    /// in the summary.
    pub async fn run(self) -> Result<Summary> {
        println!("{self:?}");
        let began = Instant::now();
        let kubernetes = Kubernetes::connect().await?;
        Platform::make_room(&kubernetes).await?;
        let mut outcome = None;
        let ended = with_temp_ns(&kubernetes, "moves", |namespace| {
            let (kubernetes, outcome) = (&kubernetes, &mut outcome);
            async move {
                let summary = self.run_in(&namespace).await?;
                if !summary.passed {
                    kubernetes.explain(&namespace).await;
                }
                *outcome = Some(summary);
                Ok(())
            }
        })
        .await;
        operators(&kubernetes, 1)?;
        ended?;
        let mut summary = outcome.context("the campaign has no outcome")?;
        summary.seconds = began.elapsed().as_secs();
        Ok(summary)
    }

    async fn run_in(self, namespace: &str) -> Result<Summary> {
        let platform = Platform::make(Kubernetes::connect().await?, namespace, &self.cluster()).await?;
        // After the installation, which knows of one only.
        operators(&platform.kubernetes, 2)?;
        let caller = Caller::new(&platform.api_addresses().await?, bearer())?;
        let clock = Clock::start();
        let client = Client::new(caller, Recorder::new(clock));
        // Before the first order, so that it hears of all.
        let audit = Audit::start(&platform).await?;
        prefill(&client, self.orders).await?;
        let observer = Observer::start(namespace, clock).await?;
        let (rate, seed) = (self.rate, self.seed);
        client.latency().begin("before");
        let load = Load::start(&client, Settings { rate, seed });
        let mut run = Run {
            campaign: self,
            platform: &platform,
            client: &client,
            observer: &observer,
            audit: &audit,
            complaints: Vec::new(),
            drawn: BTreeSet::new(),
            kept: BTreeSet::new(),
            faults: Vec::new(),
            moves: Vec::new(),
        };
        tokio::time::sleep(CALM).await;
        let moved = run.go_through().await;
        tokio::time::sleep(CALM).await;
        load.stop().await?;
        moved.with_context(|| format!("the masters meanwhile: {:?}", observer.interruptions()))?;
        run.judge().await
    }

    fn cluster(&self) -> serde_json::Value {
        let mut cluster = platform::cluster(FIRST as i32, 2);
        cluster["spec"]["rebalance"]["maxPause"] = MAX_PAUSE.into();
        if self.strict {
            cluster["spec"]["postgres"]["durability"] = "required".into();
        }
        // An order is a row of its table and one of the idempotency keys, with an answer; then there is the log.
        cluster["spec"]["postgres"]["storage"]["size"] = if self.orders > 50_000 { "2Gi" } else { "1Gi" }.into();
        cluster
    }
}

struct Run<'r> {
    campaign: Campaign,
    platform: &'r Platform,
    client: &'r Client,
    observer: &'r Observer,
    audit: &'r Audit,
    complaints: Vec<String>,
    /// What was to be done, and what was.
    drawn: BTreeSet<Deed>,
    kept: BTreeSet<Deed>,
    faults: Vec<String>,
    moves: Vec<String>,
}

impl Run<'_> {
    async fn go_through(&mut self) -> Result<()> {
        let Campaign {
            seed,
            numbers,
            members_die,
            ..
        } = self.campaign;
        let appointments = draw(seed, numbers.len(), members_die);
        let mut from = FIRST;
        for (to, appointments) in numbers.iter().copied().zip(appointments) {
            self.client.latency().begin(&format!("{from} to {to} shards"));
            self.go(from, to, &appointments)
                .await
                .with_context(|| format!("going from {from} to {to} shards"))?;
            from = to;
        }
        self.client.latency().begin("after");
        Ok(())
    }

    /// One change of the number of shards, with its faults.
    async fn go(&mut self, from: usize, to: usize, appointments: &[Appointment]) -> Result<()> {
        println!("--- from {from} to {to} shards");
        let (began, over) = (Instant::now(), AtomicBool::new(false));
        let before = {
            let mut world = self.observer.world();
            let settled = tokio::time::timeout(SIGHT, world.wait_for(|world| balanced(world, from)));
            let world = settled
                .await
                .with_context(|| format!("{from} shards were not balanced before the move"))??;
            owners(&world)
        };
        let scene = Scene {
            platform: self.platform,
            observer: self.observer,
            before: &before,
            over: &over,
        };
        scale(self.platform, to)?;
        let rebalanced = async {
            let cluster = await_rebalanced(self.platform, self.observer, to, PATIENCE).await;
            over.store(true, Ordering::Relaxed);
            cluster
        };
        let (cluster, kept) = tokio::join!(rebalanced, scene.keep(appointments));
        let (cluster, kept) = (cluster?, kept?);
        self.note_faults(&kept);
        let after = owners(&self.observer.world().borrow());
        let (moved, found) = placement::check(&before, &after);
        self.complain(&found);
        if moved.moved < LEAST * moved.ideal {
            let (moved, ideal) = (moved.moved, moved.ideal);
            self.complaints
                .push(format!("only {moved:.4} of all keys moved, {ideal:.4} had to"));
        }
        let left = shards::remnants(&shards::connect_all(self.platform).await?).await?;
        self.complaints.extend(left);
        let status = cluster.status.and_then(|status| status.rebalance);
        let pause = status.map_or(0, |status| status.longest_pause_milliseconds);
        let line = format!(
            "{from} to {to}: {:.1} s, {:.4} of all keys ({:.4} ideally), longest pause {pause} ms",
            began.elapsed().as_secs_f64(),
            moved.moved,
            moved.ideal
        );
        println!("    {line}");
        self.moves.push(line);
        Ok(())
    }

    fn note_faults(&mut self, kept: &[(Appointment, Kept)]) {
        for (appointment, kept) in kept {
            self.drawn.insert(appointment.deed);
            match kept {
                Kept::Yes(what) => {
                    self.kept.insert(appointment.deed);
                    self.faults.push(format!("{appointment}: {what}"));
                }
                // A point may be gone in an instant.
                Kept::Missed => self.faults.push(format!("{appointment}: missed")),
            }
        }
    }

    /// A campaign that did nothing, or in which nothing was answered, has shown nothing.
    fn complain_of_what_was_not_tried(&mut self, phases: &[Phase]) {
        for deed in self.drawn.difference(&self.kept) {
            self.complaints.push(format!("{deed:?} was to be done and never was"));
        }
        // The first is from before the load.
        for phase in phases.iter().skip(1) {
            for (what, reads) in [("read", true), ("write", false)] {
                if phase.quantiles(|kind| kind.is_read() == reads).count == 0 {
                    self.complaints.push(format!("{}: no {what} was answered", phase.name));
                }
            }
        }
    }

    /// When nothing moves or dies any more, everything is answered again.
    fn complain_of_silence(&mut self, phases: &[Phase], repeats: &Repeats) {
        let silent = repeats.asked - repeats.answered;
        if silent > 0 {
            let troubles = repeats.troubles.join("\n");
            self.complaints.push(format!(
                "{silent} writes that were repeated in the end got no answer:\n{troubles}"
            ));
        }
        let failed = phases.last().map_or(0, Phase::failed);
        if failed > 0 {
            self.complaints
                .push(format!("{failed} requests failed when everything was over"));
        }
    }

    fn complain(&mut self, found: &[Violation]) {
        self.complaints.extend(found.iter().map(ToString::to_string));
    }

    /// Asks everything once more, waits until every customer is told, and lets the judge look at all of it.
    async fn judge(mut self) -> Result<Summary> {
        let repeats = self.client.repeat_all(REPEATS_AT_ONCE).await;
        println!("{} writes were asked for again", repeats.asked);
        let pools = shards::connect_all(self.platform).await?;
        // Where this waits in vain, the judge says what is missing.
        if let Err(error) = shards::await_delivered(&pools, DELIVERY).await {
            self.complaints.push(format!("{error:#}"));
        }
        let mut contents = shards::contents(self.platform, &pools).await?;
        contents.published = Some(self.audit.published().await?);
        close(pools).await;
        let history = self.client.recorder().take();
        let samples = self.observer.samples();
        let found = check(&history, &samples, &contents);
        let phases = self.client.latency().phases();
        println!("{}", measure::table(&phases));
        self.complain_of_what_was_not_tried(&phases);
        self.complain_of_silence(&phases, &repeats);
        let failed = phases.iter().map(|phase| phase.failed()).sum();
        if failed > 0 && !self.campaign.members_die {
            let masters = self.observer.interruptions().join("; ");
            let first = self.client.troubles();
            self.complaints
                .push(format!("{failed} requests failed ({masters}):\n{first}"));
        }
        let mut report = report(&found);
        for complaint in &self.complaints {
            let _ = write!(report, "\n{complaint}");
        }
        Ok(Summary {
            seed: self.campaign.seed,
            strict: self.campaign.strict,
            passed: found.is_empty() && self.complaints.is_empty(),
            violations: found.len(),
            complaints: self.complaints,
            orders: contents.orders.len(),
            recorded: history.attempts.len() + history.reads.len(),
            failed,
            not_sent: phases.iter().map(|phase| phase.not_sent).sum(),
            faults: self.faults,
            moves: self.moves,
            interruptions: self.observer.interruptions(),
            seconds: 0,
            report,
        })
    }
}

async fn close(pools: BTreeMap<u16, PgPool>) {
    for pool in pools.into_values() {
        pool.close().await;
    }
}
