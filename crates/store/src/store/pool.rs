//! A bounded pool of connections to one member, for one purpose.
//!
//! Not sqlx's own: that one sends a round trip each time a connection is given back, which is as dear as a look-up. Here
//! a connection comes back only when its last exchange ended well, and is closed otherwise, so none needs a test.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::PgConnection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connect::{Dialer, Purpose};
use crate::config::PoolConfig;
use crate::metrics::PoolMetrics;

/// Callers that may wait for one connection each, as a multiple of the connections.
const WAITING_PER_CONNECTION: usize = 16;

pub(crate) struct Pool {
    host: String,
    purpose: Purpose,
    config: PoolConfig,
    dialer: Arc<Dialer>,
    metrics: PoolMetrics,
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
    idle: Mutex<VecDeque<Idle>>,
}

struct Idle {
    conn: PgConnection,
    since: Instant,
}

/// Why no connection was to be had.
pub(crate) enum AcquireError {
    /// All are busy, for longer than the limit or with too many waiting already.
    Full,
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
            waiting: AtomicUsize::new(0),
            idle: Mutex::default(),
        }
    }

    /// A connection, the most recently used one first; opened if none is idle.
    pub(crate) async fn acquire(self: &Arc<Self>) -> Result<Lease, AcquireError> {
        let permit = self.permit().await.inspect_err(|_| {
            self.metrics.refusals.inc();
        })?;
        let idle = self.take_idle();
        let conn = match idle {
            Some(conn) => conn,
            None => self
                .dialer
                .dial(&self.host, self.purpose)
                .await
                .map_err(AcquireError::Dial)?,
        };
        Ok(Lease {
            conn,
            pool: Arc::clone(self),
            _permit: permit,
        })
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, AcquireError> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(permit);
        }
        let _waiting = Waiting::enter(&self.waiting, self.config.connections as usize * WAITING_PER_CONNECTION)
            .ok_or(AcquireError::Full)?;
        self.metrics.waits.inc();
        let permit = Arc::clone(&self.permits).acquire_owned();
        match tokio::time::timeout(self.config.acquire_timeout, permit).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(AcquireError::Full),
        }
    }

    fn take_idle(&self) -> Option<PgConnection> {
        let mut idle = self.idle();
        // The oldest stand in front; what has been idle too long is dropped, which closes it.
        while idle
            .front()
            .is_some_and(|front| front.since.elapsed() > self.config.idle_timeout)
        {
            idle.pop_front();
        }
        idle.pop_back().map(|idle| idle.conn)
    }

    /// Closes what is idle: after one connection was lost, the others most likely are too.
    pub(crate) fn purge(&self) {
        self.idle().clear();
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

/// A connection in use. Dropped without [`Lease::give_back`] it is closed.
pub(crate) struct Lease {
    pub(crate) conn: PgConnection,
    pool: Arc<Pool>,
    _permit: OwnedSemaphorePermit,
}

impl Lease {
    /// Returns the connection. Only when its last exchange ended well and no transaction is open.
    pub(crate) fn give_back(self) {
        let Self { conn, pool, _permit } = self;
        if !pool.permits.is_closed() {
            pool.idle().push_back(Idle {
                conn,
                since: Instant::now(),
            });
        }
    }
}

/// How long an unreachable member is left alone before it is tried again by a caller.
pub(crate) const RETRY_PAUSE: Duration = Duration::from_millis(50);
