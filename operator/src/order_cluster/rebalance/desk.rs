//! Where the reconciler and a mover leave word for each other.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::{
    orders::{Abort, Orders},
    report::Report,
};

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
    /// Counts the reports.
    #[cfg(test)]
    rounds: u64,
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
                #[cfg(test)]
                rounds: 0,
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
            state.report.forget_what_orders_decide();
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

    /// Whether the newest orders are to give up.
    pub(crate) fn abort(&self) -> Abort {
        self.state().orders.abort
    }

    /// Files the report of a round under these orders; the one before.
    pub(crate) fn file(&self, version: u64, mut report: Report) -> Report {
        let mut state = self.state();
        if state.version != version {
            report.forget_what_orders_decide();
        }
        #[cfg(test)]
        {
            state.rounds += 1;
        }
        std::mem::replace(&mut state.report, report)
    }

    pub(crate) fn report(&self) -> Report {
        self.state().report.clone()
    }

    #[cfg(test)]
    pub(crate) fn rounds(&self) -> u64 {
        self.state().rounds
    }

    /// The mover goes, unless there are newer orders than those it knows.
    pub(crate) fn close(&self, version: u64) -> bool {
        let mut state = self.state();
        state.closed = state.version == version;
        state.closed
    }

    /// Whether the mover has gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.state().closed
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

#[cfg(test)]
mod tests {
    use ring::Ordinal;

    use super::*;
    use crate::order_cluster::rebalance::preflight::tests::orders;

    fn told_empty() -> Report {
        Report {
            empty: [Ordinal(1)].into(),
            ..Report::default()
        }
    }

    #[test]
    fn who_holds_nothing_is_known_only_under_the_orders_it_was_seen_under() {
        let desk = Desk::new(orders(2));
        let (version, _) = desk.orders();
        desk.file(version, told_empty());
        assert_eq!(desk.report().empty.len(), 1);
        assert!(desk.give(&orders(3), true));
        assert!(desk.report().empty.is_empty());
        desk.file(version, told_empty());
        assert!(
            desk.report().empty.is_empty(),
            "the round began under the orders before"
        );
    }

    #[test]
    fn a_mover_does_not_go_while_there_are_orders_it_has_not_seen() {
        let desk = Desk::new(orders(2));
        let (version, _) = desk.orders();
        assert!(desk.give(&orders(3), true));
        assert!(!desk.close(version));
        assert!(desk.close(desk.orders().0));
        assert!(
            !desk.give(&orders(2), false),
            "something else is asked, and nobody is there"
        );
        assert!(desk.give(&orders(3), false), "the same is asked, and it is done");
        assert!(!desk.give(&orders(3), true), "it is not");
    }

    #[tokio::test]
    async fn orders_that_came_before_anybody_waited_are_news_all_the_same() {
        let desk = Desk::new(orders(2));
        let (version, _) = desk.orders();
        assert!(desk.give(&orders(3), true));
        desk.news(version).await;
    }
}
