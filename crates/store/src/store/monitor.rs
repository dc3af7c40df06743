//! Role discovery: one task a member looks at it again and again, by SQL.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::select_ok;
use ring::{Ordinal, Ring};
use sqlx::{PgConnection, Row};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use super::connect::{Dialer, Purpose};
use super::latency::{HedgeBudget, Latency};
use super::member::{Kind, Sample, ShardView, View};
use super::pool::Pool;
use crate::config::StoreConfig;
use crate::metrics::Metrics;
use crate::token::{Lsn, Term};

/// A member that has not answered after this time is asked again over a new connection: it may be slow, or another server
/// under the same name by now.
const SLOW: Duration = Duration::from_secs(1);
/// A look that takes longer is given up, and its connections with it. Until then the member counts as what it was seen to
/// be last: a master that is short of time is still the master, and to refuse it its work helps nobody. If it is none any
/// more, a newer term tells, and every answer tells the role and the term it was given in.
const LOOK_LIMIT: Duration = Duration::from_secs(5);
/// After this many looks without a reader in between, looks become rare: hundreds of idle shards must cost little.
const IDLE_LOOKS: u32 = 50;

/// Tells a server that was started anew, or another one under the same name, from the one before.
const STARTED: &str = "SELECT pg_postmaster_start_time()::text";
const SAMPLE: &str = "SELECT in_recovery, term, lsn, streaming, last_message_ms, standbys FROM ringwright.sample()";

/// All shards this process knows.
pub(crate) struct Shards {
    config: StoreConfig,
    dialer: Arc<Dialer>,
    metrics: Metrics,
    known: Mutex<HashMap<Ordinal, Arc<Shard>>>,
}

/// One shard: its members and what is known of them.
pub(crate) struct Shard {
    pub(crate) ordinal: Ordinal,
    pub(crate) view: watch::Sender<ShardView>,
    pub(crate) hedges: HedgeBudget,
    /// Somebody read from it since the mark was taken.
    read: AtomicBool,
    /// A heartbeat is being written.
    beating: AtomicBool,
    members: Mutex<HashMap<String, Arc<Member>>>,
}

/// One member: its pools and the task that looks at it.
pub(crate) struct Member {
    pub(crate) host: String,
    pub(crate) writes: Arc<Pool>,
    pub(crate) reads: Arc<Pool>,
    pub(crate) latency: Latency,
    nudge: Notify,
    used: AtomicBool,
    unused_looks: AtomicU32,
    task: Mutex<Option<AbortHandle>>,
}

impl Shards {
    pub(crate) fn new(config: StoreConfig, metrics: Metrics) -> Self {
        let dialer = Arc::new(Dialer::new(config.clone()));
        Self {
            config,
            dialer,
            metrics,
            known: Mutex::default(),
        }
    }

    pub(crate) fn get(&self, ordinal: Ordinal) -> Option<Arc<Shard>> {
        self.known().get(&ordinal).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Shard>> {
        let mut shards: Vec<_> = self.known().values().cloned().collect();
        shards.sort_by_key(|shard| shard.ordinal);
        shards
    }

    /// Makes the known shards and their members those of the ring.
    pub(crate) fn follow(&self, ring: &Ring) {
        let mut known = self.known();
        known.retain(|ordinal, shard| {
            let stays = ring.shard(*ordinal).is_some();
            if !stays {
                shard.keep_only(&[]);
            }
            stays
        });
        for shard in ring.shards() {
            let entry = known.entry(shard.ordinal).or_insert_with(|| Shard::new(shard.ordinal));
            entry.keep_only(&shard.hosts);
            self.add_members(entry, &shard.hosts);
        }
    }

    /// A shard that a redirect names and the ring in use does not have yet.
    pub(crate) fn get_or_add(&self, ordinal: Ordinal, hosts: &[String]) -> Arc<Shard> {
        let mut known = self.known();
        let shard = known.entry(ordinal).or_insert_with(|| Shard::new(ordinal));
        if shard.members().is_empty() {
            self.add_members(shard, hosts);
        }
        Arc::clone(shard)
    }

    fn add_members(&self, shard: &Arc<Shard>, hosts: &[String]) {
        let mut members = shard.members();
        for host in hosts {
            if !members.contains_key(host) {
                members.insert(host.clone(), self.start_member(shard, host));
            }
        }
    }

    fn start_member(&self, shard: &Arc<Shard>, host: &str) -> Arc<Member> {
        let pool = |purpose| {
            Arc::new(Pool::new(
                host.to_owned(),
                purpose,
                self.config.pool.clone(),
                Arc::clone(&self.dialer),
                self.metrics.of_pool(purpose),
            ))
        };
        let member = Arc::new(Member {
            host: host.to_owned(),
            writes: pool(Purpose::Write),
            reads: pool(Purpose::Read),
            latency: Latency::default(),
            nudge: Notify::new(),
            used: AtomicBool::new(true),
            unused_looks: AtomicU32::new(0),
            task: Mutex::default(),
        });
        let looking = look_forever(
            shard.ordinal,
            shard.view.clone(),
            Arc::clone(&member),
            Arc::clone(&self.dialer),
            self.config.sample_interval,
        );
        *member.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(tokio::spawn(looking).abort_handle());
        member
    }

    /// Ends all tasks and closes all idle connections.
    pub(crate) fn close(&self) {
        for shard in self.known().values() {
            shard.keep_only(&[]);
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Ordinal, Arc<Shard>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    fn new(ordinal: Ordinal) -> Arc<Self> {
        Arc::new(Self {
            ordinal,
            view: watch::Sender::new(ShardView::default()),
            hedges: HedgeBudget::default(),
            read: AtomicBool::new(false),
            beating: AtomicBool::new(false),
            members: Mutex::default(),
        })
    }

    pub(crate) fn member(&self, host: &str) -> Option<Arc<Member>> {
        self.members().get(host).cloned()
    }

    /// The master as last seen; waits for one until `deadline`.
    pub(crate) async fn master(&self, deadline: Instant) -> Option<Arc<Member>> {
        let mut view = self.view.subscribe();
        let known = view.wait_for(|view| view.master().is_some());
        let host = match tokio::time::timeout_at(deadline.into(), known).await {
            Ok(Ok(view)) => view.master().map(|(view, _)| view.host.clone()),
            Ok(Err(_)) | Err(_) => None,
        }?;
        self.member(&host)
    }

    /// Returns when another member than `host` is seen to be the master.
    pub(crate) async fn master_moves_from(&self, host: &str) {
        self.until(|view| view.master().is_some_and(|(master, _)| master.host != host))
            .await;
    }

    /// Returns when a master has come in sight after `since`.
    pub(crate) async fn new_master(&self, since: Instant) {
        self.until(|view| view.master_since.is_some_and(|master| master > since))
            .await;
    }

    /// Returns when no look at a member has shown anything for [`super::member::MESSAGE_LIMIT`].
    pub(crate) async fn falls_silent(&self, host: &str) {
        let is_heard = |view: &View| view.host == host && view.is_heard(Instant::now());
        self.until(|view| !view.members.iter().any(is_heard)).await;
    }

    async fn until(&self, seen: impl FnMut(&ShardView) -> bool) {
        if self.view.subscribe().wait_for(seen).await.is_err() {
            // The sender lives in `self`, so this is not reached; never resolving is the safe way to be wrong.
            std::future::pending::<()>().await;
        }
    }

    /// Whether looks at all members that began at or after `since` show that none has come to `term` yet.
    pub(crate) fn never_reached(&self, term: Term, since: Instant) -> bool {
        let hosts: Vec<String> = self.members().keys().cloned().collect();
        self.view.borrow().never_reached(term, &hosts, since)
    }

    /// Says that somebody reads from this shard: samples of all its members should be fresh, also of those that may not
    /// answer now, for they may in a moment.
    pub(crate) fn mark_read(&self) {
        self.read.store(true, Ordering::Relaxed);
        for member in self.members().values() {
            member.mark_used();
        }
    }

    pub(crate) fn take_read_mark(&self) -> bool {
        self.read.swap(false, Ordering::Relaxed)
    }

    /// False if a heartbeat is being written already.
    pub(crate) fn begin_beat(&self) -> bool {
        !self.beating.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn end_beat(&self) {
        self.beating.store(false, Ordering::Relaxed);
    }

    /// Looks at all members at once.
    pub(crate) fn nudge_all(&self) {
        for member in self.members().values() {
            member.nudge();
        }
    }

    fn keep_only(&self, hosts: &[String]) {
        self.members().retain(|host, member| {
            let stays = hosts.contains(host);
            if !stays {
                member.stop();
            }
            stays
        });
        self.view.send_if_modified(|view| {
            let before = view.members.len();
            view.members.retain(|member| hosts.contains(&member.host));
            view.members.len() != before
        });
    }

    fn members(&self) -> MutexGuard<'_, HashMap<String, Arc<Member>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member {
    /// Asks for a look now, after an error or a refusal.
    pub(crate) fn nudge(&self) {
        self.nudge.notify_one();
    }

    /// Says that somebody uses this member, so that samples should be fresh.
    pub(crate) fn mark_used(&self) {
        self.used.store(true, Ordering::Relaxed);
        if self.unused_looks.load(Ordering::Relaxed) > IDLE_LOOKS {
            self.nudge();
        }
    }

    /// After a connection was lost: the idle ones most likely are too. That one could not be opened says nothing of them.
    pub(crate) fn lost_a_connection(&self) {
        self.purge();
        self.nudge();
    }

    fn purge(&self) {
        self.writes.purge();
        self.reads.purge();
    }

    fn stop(&self) {
        if let Some(task) = self.task.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
        self.writes.close();
        self.reads.close();
    }

    /// A tenth as often when there were no readers for long. Each look is a statement, and each program looks at each
    /// member; when nobody may answer by the last looks, all are looked at again at once.
    fn pause(&self, interval: Duration) -> Duration {
        if self.used.swap(false, Ordering::Relaxed) {
            self.unused_looks.store(0, Ordering::Relaxed);
        } else if self.unused_looks.fetch_add(1, Ordering::Relaxed) >= IDLE_LOOKS {
            return interval * 10;
        }
        interval
    }
}

async fn look_forever(
    ordinal: Ordinal,
    view: watch::Sender<ShardView>,
    member: Arc<Member>,
    dialer: Arc<Dialer>,
    interval: Duration,
) {
    let mut probe = Probe::default();
    let mut reachable = true;
    loop {
        let last = probe.look(&member, &dialer).await;
        let pause = match &last {
            Ok(_) => member.pause(interval),
            Err(_) => interval,
        };
        if let Err(why) = &last {
            if reachable {
                tracing::warn!(shard = %ordinal, host = member.host, why, "a member of a shard cannot be reached");
            }
        } else if !reachable {
            tracing::info!(shard = %ordinal, host = member.host, "a member of a shard is reached again");
        }
        reachable = last.is_ok();
        record(&view, ordinal, &member.host, last);
        // Nudges that came during the look ask for a new one, but not faster than this.
        tokio::time::sleep(interval.min(Duration::from_millis(5))).await;
        let _ = tokio::time::timeout(pause, member.nudge.notified()).await;
    }
}

fn record(view: &watch::Sender<ShardView>, ordinal: Ordinal, host: &str, last: Result<Sample, String>) {
    view.send_modify(|view| {
        let before = view.master().map(|(member, sample)| (member.host.clone(), sample.term));
        view.record(host, last);
        let after = view.master().map(|(member, sample)| (member.host.clone(), sample.term));
        if before != after {
            match after {
                Some((master, term)) => {
                    view.master_since = Some(Instant::now());
                    tracing::info!(shard = %ordinal, master, term = term.map(|term| term.0), "the shard has a master");
                }
                None => tracing::warn!(shard = %ordinal, "the shard has no master that can be reached"),
            }
        }
    });
}

/// What the task of a member keeps from one look to the next.
#[derive(Default)]
struct Probe {
    conn: Option<PgConnection>,
    /// When the server was started that was looked at last.
    started: Option<String>,
}

impl Probe {
    /// Looks by the connection it has, or by a new one. How long a login may take is the dialer's to say: one that is
    /// given up has to be begun again, by a server that may be short of time.
    async fn look(&mut self, member: &Member, dialer: &Dialer) -> Result<Sample, String> {
        let anew = async {
            let dialled = dialer.dial(&member.host, Purpose::Read).await;
            in_time(look_first(dialled.map_err(|error| telemetry::chain(&error))?)).await
        };
        let Looked { conn, started, sample } = match self.conn.take() {
            None => anew.await?,
            Some(conn) => {
                let mut known = in_time(look_again(conn)).boxed();
                match tokio::time::timeout(SLOW, &mut known).await {
                    Ok(looked) => looked?,
                    Err(_) => select_ok([known, anew.boxed()]).await?.0,
                }
            }
        };
        self.conn = Some(conn);
        if let Some(started) = started {
            self.meet(member, started);
        }
        Ok(sample)
    }

    /// Connections to a server that is no more may never notice.
    fn meet(&mut self, member: &Member, started: String) {
        if self.started.as_ref().is_some_and(|before| *before != started) {
            member.writes.server_changed();
            member.reads.server_changed();
        }
        self.started = Some(started);
    }
}

/// What a look came to.
struct Looked {
    conn: PgConnection,
    /// When the server was started, if this was not known.
    started: Option<String>,
    sample: Sample,
}

async fn in_time(looking: impl Future<Output = Result<Looked, sqlx::Error>>) -> Result<Looked, String> {
    match tokio::time::timeout(LOOK_LIMIT, looking).await {
        Ok(looked) => looked.map_err(|error| telemetry::chain(&error)),
        Err(_) => Err(format!("no answer within {} ms", LOOK_LIMIT.as_millis())),
    }
}

async fn look_first(mut conn: PgConnection) -> Result<Looked, sqlx::Error> {
    let started = Some(sqlx::query_scalar(STARTED).fetch_one(&mut conn).await?);
    let sample = look(&mut conn).await?;
    Ok(Looked { conn, started, sample })
}

async fn look_again(mut conn: PgConnection) -> Result<Looked, sqlx::Error> {
    let sample = look(&mut conn).await?;
    let started = None;
    Ok(Looked { conn, started, sample })
}

async fn look(conn: &mut PgConnection) -> Result<Sample, sqlx::Error> {
    let began = Instant::now();
    let row = sqlx::query(SAMPLE).fetch_one(conn).await?;
    let lsn: Option<i64> = row.try_get("lsn")?;
    let term: Option<i64> = row.try_get("term")?;
    let kind = if row.try_get("in_recovery")? {
        let age: Option<i64> = row.try_get("last_message_ms")?;
        Kind::Replica {
            streaming: row.try_get::<Option<bool>, _>("streaming")?.unwrap_or(false),
            last_message: age.map(|age| Duration::from_millis(age.max(0).cast_unsigned())),
        }
    } else {
        Kind::Master {
            standbys: row.try_get::<Option<Vec<String>>, _>("standbys")?.unwrap_or_default(),
        }
    };
    Ok(Sample {
        began,
        term: term.and_then(|term| u32::try_from(term).ok()).map(Term),
        lsn: Lsn(lsn.unwrap_or(0).cast_unsigned()),
        kind,
    })
}
