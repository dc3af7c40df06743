//! Eyes on the books of all shards, many times a second: what the judge is told of ownership, and how faults find their
//! moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use crds::OrderShard;
use kube::ResourceExt;
use kube::api::ListParams;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection, Row};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::database;
use crate::history::Sample;
use crate::history::ownership::{BookRow, RangeState};
use crate::history::record::{Moment, Span};
use crate::kubernetes::Kubernetes;
use crate::load::Clock;
use crate::platform::CLUSTER;

/// Between two looks at one shard.
const PAUSE: Duration = Duration::from_millis(50);
/// After a look that failed: the shard is being made, fails over or goes.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(300);
/// Between two looks at which shards there are.
const ROUND: Duration = Duration::from_secs(1);
/// A master that was out of sight for longer is worth a line.
const WORTH_A_LINE: Duration = Duration::from_secs(2);

/// A shard's book, with where the look was taken. A book without rows is one row of nulls.
const LOOK: &str = "SELECT h.in_recovery, h.term, r.lo, r.hi, r.generation, r.state, r.target,
        EXISTS (SELECT FROM pg_subscription_rel WHERE srsubstate <> 'r') AS copying
    FROM ringwright.here() h LEFT JOIN ringwright.range_owners r ON true ORDER BY r.lo";

/// What was last seen of all shards.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// The book of each shard that exists.
    pub books: BTreeMap<u16, Arc<[BookRow]>>,
    /// Shards that receive rows by a copy that is not complete.
    pub copying: BTreeSet<u16>,
}

/// Watches until it is dropped.
pub struct Observer {
    shared: Arc<Shared>,
    world: watch::Receiver<World>,
    task: JoinHandle<()>,
}

struct Shared {
    kubernetes: Kubernetes,
    namespace: String,
    password: String,
    clock: Clock,
    samples: Mutex<Vec<Sample>>,
    world: watch::Sender<World>,
    copying: Mutex<Stopwatch>,
    /// The last look at the master of each shard that exists.
    looks: Mutex<BTreeMap<u16, LastLook>>,
    interruptions: Mutex<Vec<String>>,
}

/// The last look at a shard's master.
#[derive(Clone)]
struct LastLook {
    address: String,
    term: i64,
    end: Moment,
}

/// Adds up the time in which something was so.
#[derive(Default)]
struct Stopwatch {
    since: Option<Instant>,
    sum: Duration,
}

impl Observer {
    /// Begins to watch the cluster in this namespace.
    ///
    /// # Errors
    /// When there is no such cluster.
    pub async fn start(namespace: &str, clock: Clock) -> Result<Self> {
        let kubernetes = Kubernetes::connect().await?;
        let secret = format!("{CLUSTER}-postgres");
        let password = database::secret(&kubernetes, namespace, &secret, "superuser-password").await?;
        let (sender, world) = watch::channel(World::default());
        let shared = Arc::new(Shared {
            kubernetes,
            namespace: namespace.to_owned(),
            password,
            clock,
            samples: Mutex::default(),
            world: sender,
            copying: Mutex::default(),
            looks: Mutex::default(),
            interruptions: Mutex::default(),
        });
        let task = tokio::spawn(watch_all(Arc::clone(&shared)));
        Ok(Self { shared, world, task })
    }

    /// What was last seen; changes wake those who wait for them.
    pub fn world(&self) -> watch::Receiver<World> {
        self.world.clone()
    }

    /// Every look so far.
    pub fn samples(&self) -> Vec<Sample> {
        unpoisoned(&self.shared.samples).clone()
    }

    /// When no master of a shard could be looked at for long, or it became another one; in words.
    pub fn interruptions(&self) -> Vec<String> {
        let mut all = unpoisoned(&self.shared.interruptions).clone();
        let now = self.shared.clock.now();
        for (shard, last) in unpoisoned(&self.shared.looks).iter() {
            if seconds(now) - seconds(last.end) > WORTH_A_LINE.as_secs_f64() {
                let (from, address, term) = (seconds(last.end), &last.address, last.term);
                all.push(format!(
                    "shard {shard}: its master has not been seen since {from:.1} s ({address} in term {term})"
                ));
            }
        }
        all
    }

    /// For how long rows were being copied anywhere.
    pub fn time_copying(&self) -> Duration {
        let stopwatch = unpoisoned(&self.shared.copying);
        stopwatch.sum + stopwatch.since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        // Its looks end with it: they are tasks of a set that it holds.
        self.task.abort();
    }
}

/// Nothing is left half done by a panic, so a poisoned lock is as good as any.
fn unpoisoned<T>(lock: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The number of a shard, the last part of its name.
pub(super) fn ordinal(shard: &OrderShard) -> Option<u16> {
    shard.name_any().rsplit('-').next()?.parse().ok()
}

/// One task a shard, as shards come and go.
async fn watch_all(shared: Arc<Shared>) {
    let mut looks = tokio::task::JoinSet::new();
    let mut watched = BTreeMap::new();
    loop {
        let shards = shared.kubernetes.objects::<OrderShard>(&shared.namespace);
        // While the API server does not answer, those that are known are watched on.
        if let Ok(list) = shards.list(&ListParams::default()).await {
            let present: BTreeSet<u16> = list.iter().filter_map(ordinal).collect();
            for shard in &present {
                watched
                    .entry(*shard)
                    .or_insert_with(|| looks.spawn(look_always(Arc::clone(&shared), *shard)));
            }
            let gone: Vec<u16> = watched
                .keys()
                .filter(|shard| !present.contains(*shard))
                .copied()
                .collect();
            for shard in gone {
                if let Some(task) = watched.remove(&shard) {
                    task.abort();
                }
                unpoisoned(&shared.looks).remove(&shard);
                shared.world.send_modify(|world| {
                    world.books.remove(&shard);
                    world.copying.remove(&shard);
                });
            }
        }
        sleep(ROUND).await;
    }
}

async fn look_always(shared: Arc<Shared>, shard: u16) {
    loop {
        if look_until_it_breaks(&shared, shard).await.is_err() {
            sleep(PAUSE_AFTER_FAILURE).await;
        }
    }
}

async fn look_until_it_breaks(shared: &Shared, shard: u16) -> Result<()> {
    let (address, mut connection) = open(shared, shard).await?;
    loop {
        let start = shared.clock.now();
        let rows = sqlx::query(LOOK).fetch_all(&mut connection).await?;
        let end = shared.clock.now();
        let head = rows.first().context("the look gave no row")?;
        let term: i64 = head.try_get::<Option<i64>, _>("term")?.unwrap_or(0);
        ensure!(!head.try_get::<bool, _>("in_recovery")?, "it is no master");
        let last = unpoisoned(&shared.looks).get(&shard).cloned();
        // A look counts only if no later term was seen before: an old master may still answer.
        if last.as_ref().is_some_and(|last| term < last.term) {
            bail!("it is a master of an older term");
        }
        let look = LastLook {
            address: address.clone(),
            term,
            end,
        };
        if let Some(line) = last.as_ref().and_then(|last| interruption(shard, last, &look)) {
            unpoisoned(&shared.interruptions).push(line);
        }
        unpoisoned(&shared.looks).insert(shard, look);
        take_in(shared, shard, Span { start, end }, &rows)?;
        sleep(PAUSE).await;
    }
}

fn seconds(moment: Moment) -> f64 {
    moment.0 as f64 / 1e9
}

/// What happened to a shard between two looks at its master, if it is worth a line.
fn interruption(shard: u16, before: &LastLook, now: &LastLook) -> Option<String> {
    let [from, to] = [before.end, now.end].map(seconds);
    let same = (&before.address, before.term) == (&now.address, now.term);
    if same && to - from < WORTH_A_LINE.as_secs_f64() {
        return None;
    }
    let master = if same {
        format!("{} in term {}", now.address, now.term)
    } else {
        let [old, new] = [before, now].map(|look| format!("{} in term {}", look.address, look.term));
        format!("{old}, then {new}")
    };
    Some(format!(
        "shard {shard}: its master was not seen from {from:.1} to {to:.1} s ({master})"
    ))
}

/// The master's address, and a connection to it.
async fn open(shared: &Shared, shard: u16) -> Result<(String, PgConnection)> {
    let name = format!("{CLUSTER}-{shard}");
    let master = database::master_now(&shared.kubernetes, &shared.namespace, &name).await?;
    let master = master.context("it has no master now")?;
    let options = database::options(&master.address, "postgres", &shared.password);
    let opening = PgConnection::connect_with(&options);
    let connection = tokio::time::timeout(Duration::from_secs(3), opening).await??;
    Ok((master.address, connection))
}

fn take_in(shared: &Shared, shard: u16, span: Span, rows: &[PgRow]) -> Result<()> {
    let book = rows
        .iter()
        .map(book_row)
        .collect::<Result<Vec<Option<BookRow>>>>()?
        .into_iter()
        .flatten();
    let book: Vec<BookRow> = book.collect();
    let copying: bool = rows.first().map_or(Ok(false), |row| row.try_get("copying"))?;
    // Most looks see what the one before saw: they share it.
    let known = shared.world.borrow().books.get(&shard).cloned();
    let (book, changed) = match known {
        Some(known) if known[..] == book[..] => (known, false),
        _ => (book.into(), true),
    };
    unpoisoned(&shared.samples).push(Sample {
        shard,
        span,
        rows: Arc::clone(&book),
    });
    shared.world.send_if_modified(|world| {
        world.books.insert(shard, book);
        let before = world.copying.contains(&shard);
        if copying {
            world.copying.insert(shard);
        } else {
            world.copying.remove(&shard);
        }
        unpoisoned(&shared.copying).is(!world.copying.is_empty());
        changed || before != copying
    });
    Ok(())
}

impl Stopwatch {
    fn is(&mut self, running: bool) {
        match (self.since, running) {
            (None, true) => self.since = Some(Instant::now()),
            (Some(since), false) => {
                self.sum += since.elapsed();
                self.since = None;
            }
            _ => {}
        }
    }
}

/// A row of the book; `None` for the row of nulls of an empty one.
pub(super) fn book_row(row: &PgRow) -> Result<Option<BookRow>> {
    let Some(lo) = row.try_get::<Option<i64>, _>("lo")? else {
        return Ok(None);
    };
    let state: &str = row.try_get("state")?;
    let peer: Option<i32> = row.try_get("target")?;
    Ok(Some(BookRow {
        lo: lo.try_into()?,
        hi: row.try_get::<i64, _>("hi")?.try_into()?,
        generation: row.try_get("generation")?,
        state: RangeState::parse(state).with_context(|| format!("`{state}` is no state of a range"))?,
        peer: peer.map(u16::try_from).transpose()?,
    }))
}
