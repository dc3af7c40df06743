//! What every handler can reach.

use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use store::{Store, StoreError, Written};
use telemetry::Readiness;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::auth::ApiKeys;
use crate::invoices::details::Seller;
use crate::metrics::Metrics;
use crate::outbox::PublishNow;
use crate::problem::{Problem, catalogue};
use crate::reply;
use crate::request::BodyLimits;

/// The limits of the HTTP side.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// What a body may cost.
    pub body: BodyLimits,
    /// How long one request may take.
    pub request_timeout: Duration,
    /// Most requests worked on at once.
    pub max_concurrent_requests: usize,
}

/// The state of the service; cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Inner>);

/// What [`App`] shares.
pub struct Inner {
    /// The shards.
    pub store: Store,
    /// Who may call.
    pub keys: Arc<ApiKeys>,
    /// The limits.
    pub settings: Settings,
    /// Who sells, as new invoices have it.
    pub seller: Arc<Seller>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Room for the requests worked on at once.
    pub(crate) admission: Arc<Semaphore>,
    /// Takes the events of a commit to the broker at once.
    publish_now: PublishNow,
    /// Writes under way; also those whose client no longer waits.
    writes: TaskTracker,
    draining: CancellationToken,
    /// Whether requests should be sent here.
    pub readiness: Arc<Readiness>,
}

impl std::ops::Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl App {
    /// Puts the service together; `draining` is cancelled when it is about to end.
    pub fn new(
        store: Store,
        keys: Arc<ApiKeys>,
        publish_now: PublishNow,
        metrics: Arc<Metrics>,
        settings: Settings,
        seller: Seller,
        draining: CancellationToken,
    ) -> Self {
        // A ring was loaded, else there were no store. One shard that is down, or the broker, takes nothing from the
        // others' users, so neither is a reason to be sent nothing.
        let readiness = Arc::new(Readiness::default().until(draining.clone()));
        let admission = Arc::new(Semaphore::new(settings.max_concurrent_requests));
        let writes = TaskTracker::new();
        Self(Arc::new(Inner {
            store,
            keys,
            settings,
            seller: Arc::new(seller),
            metrics,
            admission,
            publish_now,
            writes,
            draining,
            readiness,
        }))
    }

    /// Runs one write and answers with what it rendered, or with what the first request of its key got.
    pub async fn write<F>(&self, work: F) -> Result<Response, Problem>
    where
        F: Future<Output = Result<Written, StoreError>> + Send + 'static,
    {
        let app = self.clone();
        let written = self.run_to_end(async move {
            let mut written = work.await?;
            app.publish_now.hand_over(std::mem::take(&mut written.events));
            Ok::<_, StoreError>(written)
        });
        Ok(reply::written(written.await??))
    }

    /// Runs many writes, each with its own outcome.
    pub async fn write_many<F>(&self, work: F) -> Result<Vec<Result<Written, StoreError>>, Problem>
    where
        F: Future<Output = Result<Vec<Result<Written, StoreError>>, StoreError>> + Send + 'static,
    {
        let app = self.clone();
        let outcomes = self.run_to_end(async move {
            let mut outcomes = work.await?;
            for written in outcomes.iter_mut().flatten() {
                app.publish_now.hand_over(std::mem::take(&mut written.events));
            }
            Ok::<_, StoreError>(outcomes)
        });
        Ok(outcomes.await??)
    }

    /// Runs a write to its end, whatever becomes of the request: a client that hangs up or a request out of time must
    /// neither cut off a commit nor keep its events from being published.
    async fn run_to_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Problem> {
        self.writes.spawn(work.in_current_span()).await.map_err(|error| {
            tracing::error!(%error, "a write panicked");
            Problem::new(&catalogue::INTERNAL, "The request could not be carried out.")
        })
    }

    /// Waits for the writes under way.
    pub async fn writes_ended(&self) {
        self.writes.close();
        self.writes.wait().await;
    }

    /// Whether the program is about to end: readiness fails, and connections are closed after their answer.
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }
}
