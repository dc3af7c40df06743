//! A bounded pool of connections to one member, for one purpose.
//!
//! Not sqlx's own: that one sends a round trip each time a connection is given back, which is as dear as a look-up. Here
//! a connection comes back only when its last exchange ended well, and is closed otherwise, so none needs a test.
//!
//! A server that is short of time must not spend it on logins that nobody waits for any more: each would make the next
//! ones later still, and so for ever. Hence few connections are opened at the same time, one that has been begun is
//! finished although its caller has gone, and whoever comes next takes it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use sqlx::PgConnection;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, TryAcquireError, oneshot, watch};

use super::connect::{Dialer, Purpose};
use crate::config::PoolConfig;
use crate::metrics::PoolMetrics;

/// Callers that may wait for one connection each, as a multiple of the connections.
const WAITING_PER_CONNECTION: usize = 16;
/// Connections that are opened at the same time.
const DIALS_AT_ONCE: usize = 2;

pub(crate) struct Pool {
    host: String,
    purpose: Purpose,
    config: PoolConfig,
    dialer: Arc<Dialer>,
    metrics: PoolMetrics,
    permits: Arc<Semaphore>,
    dials: Arc<Semaphore>,
    waiting: AtomicUsize,
    places: Arc<Places>,
    idle: Mutex<VecDeque<Idle>>,
    /// Changes when the server behind the name is another than before.
    server: watch::Sender<()>,
}

/// How many connections there are.
#[derive(Default)]
struct Places {
    /// Idle, in use or being opened.
    taken: AtomicUsize,
    /// One has become idle, or there may be one more.
    change: Notify,
}

/// A connection, counted for as long as it is open.
struct Open {
    conn: PgConnection,
    _place: Place,
}

/// One of the connections that there may be.
struct Place(Arc<Places>);

struct Idle {
    open: Open,
    since: Instant,
}

/// Why no connection was to be had.
pub(crate) enum AcquireError {
    /// All are busy, for longer than the limit or with too many waiting already.
    Full,
    /// The pool was closed: the ring does not have the member any more.
    Closed,
    /// The member could not be reached or refused the login.
    Dial(sqlx::Error),
}

impl Pool {
    pub(crate) fn new(
        host: String,
        purpose: Purpose,
        config: PoolConfig,
        dialer: Arc<Dialer>,
        metrics: PoolMetrics,
    ) -> Self {
        let permits = Arc::new(Semaphore::new(config.connections as usize));
        Self {
            host,
            purpose,
            config,
            dialer,
            metrics,
            permits,
            dials: Arc::new(Semaphore::new(DIALS_AT_ONCE)),
            waiting: AtomicUsize::new(0),
            places: Arc::default(),
            idle: Mutex::default(),
            server: watch::Sender::default(),
        }
    }

    /// A connection, the most recently used one first; opened if none is idle.
    pub(crate) async fn acquire(self: &Arc<Self>) -> Result<Lease, AcquireError> {
        let permit = self.permit().await.inspect_err(|_| {
            self.metrics.refusals.inc();
        })?;
        let open = match self.take_idle() {
            Some(open) => open,
            None => self.await_connection().await?,
        };
        Ok(Lease {
            open,
            server: self.server.subscribe(),
            pool: Arc::clone(self),
            _permit: permit,
        })
    }

    /// One that becomes idle or one that is opened, whichever is there first.
    async fn await_connection(self: &Arc<Self>) -> Result<Open, AcquireError> {
        let mut dial = None;
        let waiting = async {
            loop {
                // Enlisted before looking, so that no change in between is missed.
                let mut change = std::pin::pin!(self.places.change.notified());
                change.as_mut().enable();
                if let Some(open) = self.take_idle() {
                    return Ok(open);
                }
                if dial.is_none() {
                    dial = self.begin_dial();
                }
                tokio::select! {
                    () = change => {}
                    Some(dialled) = answer(&mut dial) => return dialled.map_err(AcquireError::Dial),
                }
            }
        };
        match tokio::time::timeout(self.config.acquire_timeout, waiting).await {
            Ok(outcome) => outcome,
            Err(_) => Err(AcquireError::Dial(
                std::io::Error::from(std::io::ErrorKind::TimedOut).into(),
            )),
        }
    }

    /// Opens a connection in a task of its own, unless as many are being opened, or are open, as may be.
    fn begin_dial(self: &Arc<Self>) -> Option<oneshot::Receiver<Result<Open, sqlx::Error>>> {
        let turn = Arc::clone(&self.dials).try_acquire_owned().ok()?;
        let place = self.place()?;
        let (sender, receiver) = oneshot::channel();
        let pool = Arc::clone(self);
        tokio::spawn(async move {
            let dialled = pool.dialer.dial(&pool.host, pool.purpose).await;
            let dialled = dialled.map(|conn| Open { conn, _place: place });
            if let Err(Ok(unclaimed)) = sender.send(dialled) {
                pool.keep(unclaimed);
            }
            drop(turn);
            // It is somebody's turn; of those who wait, some have had theirs and would let it pass.
            pool.places.change.notify_waiters();
        });
        Some(receiver)
    }

    fn place(&self) -> Option<Place> {
        let most = self.config.connections as usize;
        let one_more = |taken: usize| (taken < most).then_some(taken + 1);
        let taken = self
            .places
            .taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        taken.ok().map(|_| Place(Arc::clone(&self.places)))
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, AcquireError> {
        match Arc::clone(&self.permits).try_acquire_owned() {
            Ok(permit) => return Ok(permit),
            Err(TryAcquireError::Closed) => return Err(AcquireError::Closed),
            Err(TryAcquireError::NoPermits) => {}
        }
        let _waiting = Waiting::enter(&self.waiting, self.config.connections as usize * WAITING_PER_CONNECTION)
            .ok_or(AcquireError::Full)?;
        self.metrics.waits.inc();
        let permit = Arc::clone(&self.permits).acquire_owned();
        match tokio::time::timeout(self.config.acquire_timeout, permit).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(AcquireError::Closed),
            Err(_) => Err(AcquireError::Full),
        }
    }

    fn take_idle(&self) -> Option<Open> {
        let mut idle = self.idle();
        // The oldest stand in front; what has been idle too long is dropped, which closes it.
        while idle
            .front()
            .is_some_and(|front| front.since.elapsed() > self.config.idle_timeout)
        {
            idle.pop_front();
        }
        idle.pop_back().map(|idle| idle.open)
    }

    fn keep(&self, open: Open) {
        if self.permits.is_closed() {
            return;
        }
        let since = Instant::now();
        self.idle().push_back(Idle { open, since });
        self.places.change.notify_one();
    }

    /// Closes what is idle: after one connection was lost, the others most likely are too.
    pub(crate) fn purge(&self) {
        self.idle().clear();
    }

    /// The server behind the name was started anew: connections to the one before may never notice.
    pub(crate) fn server_changed(&self) {
        self.purge();
        self.server.send_replace(());
    }

    /// Refuses callers from now on and closes what is idle.
    pub(crate) fn close(&self) {
        self.permits.close();
        self.purge();
    }

    fn idle(&self) -> MutexGuard<'_, VecDeque<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a caller in the queue.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize, limit: usize) -> Option<Self> {
        let entered = Self(count);
        (count.fetch_add(1, Ordering::Relaxed) < limit).then_some(entered)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
        self.0.change.notify_waiters();
    }
}

/// What came of a dial; nothing, for as long as there is none.
async fn answer(dial: &mut Option<oneshot::Receiver<Result<Open, sqlx::Error>>>) -> Option<Result<Open, sqlx::Error>> {
    let answer = match dial {
        Some(receiver) => receiver.await,
        None => std::future::pending().await,
    };
    *dial = None;
    // Without an answer its task was ended, with the runtime.
    answer.ok()
}

/// A connection in use. Dropped without [`Lease::give_back`] it is closed.
pub(crate) struct Lease {
    open: Open,
    server: watch::Receiver<()>,
    pool: Arc<Pool>,
    _permit: OwnedSemaphorePermit,
}

impl Lease {
    pub(crate) fn conn(&mut self) -> &mut PgConnection {
        &mut self.open.conn
    }

    /// Returns when the server of this connection is seen to be no more.
    pub(crate) fn server_is_gone(&self) -> impl Future<Output = ()> + use<> {
        let mut server = self.server.clone();
        async move {
            if server.changed().await.is_err() {
                // The pool is no more, which says nothing of the server.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Returns the connection. Only when its last exchange ended well and no transaction is open.
    pub(crate) fn give_back(self) {
        self.pool.keep(self.open);
    }
}
