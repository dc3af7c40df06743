//! Where the reconciler and a mover leave word for each other.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::{orders::Orders, report::Report};

/// The newest orders and the newest report.
#[derive(Debug)]
pub(crate) struct Desk {
    state: Mutex<State>,
    news: Notify,
}

#[derive(Debug)]
struct State {
    orders: Orders,
    /// Counts the orders.
    version: u64,
    report: Report,
    /// The mover has gone: there was nothing left to do.
    closed: bool,
    stopped: bool,
}

impl Desk {
    pub(crate) fn new(orders: Orders) -> Self {
        Self {
            state: Mutex::new(State {
                orders,
                version: 0,
                report: Report::default(),
                closed: false,
                stopped: false,
            }),
            news: Notify::new(),
        }
    }

    /// Leaves new orders. False: nobody is there to take them, and somebody has to be.
    pub(crate) fn give(&self, orders: &Orders, needed: bool) -> bool {
        let mut state = self.state();
        if state.closed {
            return !needed && !orders.ask_else_than(&state.orders);
        }
        if state.orders != *orders {
            state.orders = orders.clone();
            state.version += 1;
            self.news.notify_waiters();
        }
        true
    }

    /// The newest orders and their number.
    pub(crate) fn orders(&self) -> (u64, Orders) {
        let state = self.state();
        (state.version, state.orders.clone())
    }

    /// Files a report; the one before.
    pub(crate) fn file(&self, report: Report) -> Report {
        std::mem::replace(&mut self.state().report, report)
    }

    pub(crate) fn report(&self) -> Report {
        self.state().report.clone()
    }

    /// The mover goes, unless there are newer orders than those it knows.
    pub(crate) fn close(&self, version: u64) -> bool {
        let mut state = self.state();
        state.closed = state.version == version;
        state.closed
    }

    pub(crate) fn stop(&self) {
        self.state().stopped = true;
        self.news.notify_waiters();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.state().stopped
    }

    /// Waits until there is something else to do than `version` said.
    pub(crate) async fn news(&self, version: u64) {
        loop {
            let news = self.news.notified();
            tokio::pin!(news);
            // Enlisted before looking, so that nothing said in between is missed.
            news.as_mut().enable();
            {
                let state = self.state();
                if state.stopped || state.version != version {
                    return;
                }
            }
            news.await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
