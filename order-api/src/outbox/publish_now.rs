//! Publishing right after the commit, by the process that wrote the event: the shortest way, with nothing to look up.

use std::sync::Arc;

use broker::Publisher;
use futures::stream::{self, StreamExt};
use store::Store;
use store::outbox::OutboxEvent;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::delivery;
use crate::metrics::{EventLabels, Metrics};

/// Events that may wait here. Beyond them the poller is the better place: it takes them from the database.
const QUEUE: usize = 4096;
/// Events on their way to the broker at once.
const IN_FLIGHT: usize = 64;
/// Confirmed events forgotten with one statement, at most.
const FORGET_TOGETHER: usize = 128;
const WAY: &str = "at_once";

/// Takes events of finished commits; never waits and never fails, since the outbox has them anyway.
#[derive(Clone, Debug)]
pub struct PublishNow {
    queue: mpsc::Sender<OutboxEvent>,
    metrics: Arc<Metrics>,
}

/// The other end: publishes what was handed over.
#[derive(Debug)]
pub struct PublishNowWorker {
    queue: mpsc::Receiver<OutboxEvent>,
    metrics: Arc<Metrics>,
}

impl PublishNow {
    /// Both ends.
    pub fn new(metrics: Arc<Metrics>) -> (Self, PublishNowWorker) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (
            Self {
                queue: sender,
                metrics: metrics.clone(),
            },
            PublishNowWorker {
                queue: receiver,
                metrics,
            },
        )
    }

    /// Hands events over; what does not fit is left to the poller.
    pub fn hand_over(&self, events: Vec<OutboxEvent>) {
        for event in events {
            if self.queue.try_send(event).is_err() {
                self.metrics
                    .events
                    .get_or_create(&EventLabels {
                        way: WAY,
                        outcome: "left_to_poller",
                    })
                    .inc();
            }
        }
    }
}

impl PublishNowWorker {
    /// Publishes until `stop`, and then what is still queued.
    pub async fn run(self, publisher: Publisher, store: Store, stop: CancellationToken) {
        let Self { queue, metrics } = self;
        let events = stream::unfold((queue, stop), |(mut queue, stop)| async {
            let event = tokio::select! {
                event = queue.recv() => event,
                () = stop.cancelled() => {
                    // Takes nothing more; what is in the queue still comes out.
                    queue.close();
                    queue.recv().await
                }
            };
            event.map(|event| (event, (queue, stop)))
        });
        let (publisher, metrics, store) = (&publisher, &metrics, &store);
        events
            .map(|event| async move {
                match delivery::publish(publisher, metrics, WAY, &event).await {
                    Ok(id) => Some(id),
                    Err(error) => {
                        tracing::debug!(error = telemetry::chain(&error), event = %event.event_id, "left to the poller");
                        None
                    }
                }
            })
            .buffer_unordered(IN_FLIGHT)
            .filter_map(std::future::ready)
            .ready_chunks(FORGET_TOGETHER)
            .for_each_concurrent(4, |confirmed| async move { delivery::forget(store, &confirmed).await })
            .await;
    }
}
