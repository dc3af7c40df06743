//! When a mover asks for a reconcile.

use std::time::{Duration, Instant};

use crds::OrderCluster;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::mpsc::UnboundedSender;

use super::report::Report;

/// Asks the reconciler to look: at once when it has to act, else now and then.
pub(crate) struct Asking {
    ask: UnboundedSender<ObjectRef<OrderCluster>>,
    cluster: ObjectRef<OrderCluster>,
    /// The least time between two requests that only show progress.
    period: Duration,
    /// The report it was asked to look at last, and when.
    asked: Option<(Report, Instant)>,
}

impl Asking {
    pub(crate) fn new(
        ask: UnboundedSender<ObjectRef<OrderCluster>>,
        cluster: ObjectRef<OrderCluster>,
        period: Duration,
    ) -> Self {
        Self {
            ask,
            cluster,
            period,
            asked: None,
        }
    }

    /// `before` is what the reconciler could read until `report` came: it can lack what was in the last report, for who
    /// is empty is struck from that when the orders change.
    pub(crate) fn consider(&mut self, before: &Report, report: &Report, ended: bool) {
        let (shown, due) = match &self.asked {
            Some((shown, at)) => (shown, at.elapsed() >= self.period),
            None => (before, true),
        };
        if report.calls_for_action_after(before) || (report.differs_from(shown) && (due || ended)) {
            self.asked = Some((report.clone(), Instant::now()));
            // Without a controller to ask, nobody needs to be.
            drop(self.ask.send(self.cluster.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use ring::Ordinal;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;
    use crate::order_cluster::rebalance::{desk::Desk, preflight::tests::orders, report::Standing};

    fn asking(period: Duration) -> (Asking, UnboundedReceiver<ObjectRef<OrderCluster>>) {
        let (ask, asked) = unbounded_channel();
        (Asking::new(ask, ObjectRef::new("shop"), period), asked)
    }

    fn empty(shards: &[u16]) -> Report {
        Report {
            empty: shards.iter().copied().map(Ordinal).collect(),
            ..Report::default()
        }
    }

    #[test]
    fn what_needs_no_action_is_shown_now_and_then_and_at_the_end() {
        let (mut asking, mut asked) = asking(Duration::from_secs(3_600));
        let course = |done| Report {
            course: Some(crds::RebalanceStatus {
                ranges_done: done,
                ..Default::default()
            }),
            ..Report::default()
        };
        asking.consider(&Report::default(), &course(1), false);
        assert!(asked.try_recv().is_ok(), "a rebalance has begun");
        asking.consider(&course(1), &course(2), false);
        assert!(asked.try_recv().is_err(), "not again so soon");
        asking.consider(&course(2), &course(2), true);
        assert!(asked.try_recv().is_ok(), "the last figures are shown");
        let moving = Report {
            standing: Standing::Moving,
            ..course(2)
        };
        asking.consider(&course(2), &moving, false);
        assert!(asked.try_recv().is_ok(), "it stands differently");
    }

    #[test]
    fn who_is_empty_is_said_again_when_the_orders_changed_under_the_round_that_found_it() {
        let (mut asking, mut asked) = asking(Duration::ZERO);
        let desk = Desk::new(orders(2));
        let (version, _) = desk.orders();
        assert!(desk.give(&orders(3), true), "while the first round is under way");
        let before = desk.file(version, empty(&[1]));
        asking.consider(&before, &empty(&[1]), true);
        while asked.try_recv().is_ok() {
            assert!(desk.report().empty.is_empty(), "the reconciler looks, and sees nobody");
        }
        let (version, _) = desk.orders();
        let before = desk.file(version, empty(&[1]));
        asking.consider(&before, &empty(&[1]), true);
        assert!(asked.try_recv().is_ok(), "nobody else tells it that the shard can go");
        assert_eq!(desk.report(), empty(&[1]));
    }
}
