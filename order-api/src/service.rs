//! Starts the service, and ends it so that nothing accepted is lost.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use broker::{Publisher, PublisherConfig};
use ring_source::RingSource;
use store::{Store, StoreError};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::App;
use crate::auth::ApiKeys;
use crate::auth::keys::KeysError;
use crate::config::Config;
use crate::janitors;
use crate::metrics::Metrics;
use crate::outbox::poller::OutboxPoller;
use crate::outbox::{PublishNow, PublishNowWorker, backlog};
use crate::routes;
use crate::server::{self, ServerLimits};
use crate::shard_jobs::on_every_shard;

/// Why the service cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The API keys.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The API's address.
    #[error("cannot listen on {address} for the API; is it in use, or not an address of this machine?")]
    Bind {
        /// Where it should have listened.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// Health and metrics.
    #[error(transparent)]
    Telemetry(#[from] telemetry::ServeError),
}

/// Serves until `shutdown`, then ends in order: readiness fails, no more connections, the requests under way, their
/// events, the background work.
///
/// # Errors
/// If it cannot start, or its telemetry ends.
pub async fn run(config: &Config, ring: &RingSource, shutdown: CancellationToken) -> Result<(), ServiceError> {
    let metrics = Arc::new(Metrics::default());
    let mut registry = telemetry::registry("order-api", env!("CARGO_PKG_VERSION"));
    metrics.register(&mut registry);

    let keys = ApiKeys::load(&config.api_keys_dir)?;
    let store = Store::open(config.store(), ring.subscribe())?;
    store.register_metrics(&mut registry);
    let publisher = Publisher::start(PublisherConfig::new(
        config.program.amqp_url_file.clone(),
        "ringwright-order-api",
    ));
    let (publish_now, worker) = PublishNow::new(metrics.clone());
    let app = App::new(
        store.clone(),
        keys.clone(),
        publish_now,
        metrics.clone(),
        config.settings(),
        config.seller(),
        shutdown.clone(),
    );
    let address = config.listen;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| ServiceError::Bind { address, source })?;

    let background = Background::start(&store, &publisher, &metrics, keys, worker);
    let telemetry_stop = CancellationToken::new();
    let telemetry = telemetry::serve(
        config.program.telemetry_listen,
        telemetry::router(Arc::new(registry), app.readiness.clone()),
        telemetry_stop.clone(),
    );
    let api = serve(config, listener, app.clone(), shutdown);
    tracing::info!(%address, "serving the order API");
    let result = {
        tokio::pin!(telemetry);
        tokio::select! {
            () = api => Ok(()),
            () = show_ring(ring, &metrics) => Ok(()),
            // Without health nobody could see how it does; better to end and be started again.
            ended = &mut telemetry => ended.map_err(ServiceError::from),
        }
    };
    let ended = async {
        app.writes_ended().await;
        background.end().await;
    };
    if tokio::time::timeout(config.shutdown_deadline, ended).await.is_err() {
        // Nothing is lost: unpublished events are in the outbox, and unanswered writes are settled by their keys.
        tracing::warn!("the shutdown deadline has passed; ending with work under way");
    }
    publisher.close().await;
    store.close().await;
    telemetry_stop.cancel();
    tracing::info!("ended");
    result
}

/// Serves requests until after `shutdown`.
async fn serve(config: &Config, listener: TcpListener, app: App, shutdown: CancellationToken) {
    let limits = ServerLimits {
        max_connections: config.max_connections as usize,
        idle_timeout: config.idle_timeout,
        drain_deadline: config.shutdown_deadline,
    };
    let stop = CancellationToken::new();
    let connections = app.metrics.connections.clone();
    let serving = server::serve(listener, routes::router(app), limits, connections, stop.clone());
    let stopping = async {
        shutdown.cancelled().await;
        // Readiness fails by now. Requests still come until every proxy has heard of it: they are served.
        tokio::time::sleep(config.shutdown_delay).await;
        stop.cancel();
    };
    let (all_ended, ()) = tokio::join!(serving, stopping);
    if !all_ended {
        tracing::warn!("some connections did not end in time and are cut off");
    }
}

/// What runs beside the requests.
struct Background {
    tasks: TaskTracker,
    stop: CancellationToken,
    publish_now: CancellationToken,
}

impl Background {
    fn start(
        store: &Store,
        publisher: &Publisher,
        metrics: &Arc<Metrics>,
        keys: Arc<ApiKeys>,
        worker: PublishNowWorker,
    ) -> Self {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let publish_now = CancellationToken::new();
        tasks.spawn(worker.run(publisher.clone(), store.clone(), publish_now.clone()));
        tasks.spawn(keys.keep_current(stop.clone()));

        let poller = OutboxPoller {
            store: store.clone(),
            publisher: publisher.clone(),
            metrics: metrics.clone(),
        };
        tasks.spawn(on_every_shard(
            "outbox poller",
            store.clone(),
            stop.clone(),
            move |shard| poller.clone().run(shard),
        ));
        let parts = (store.clone(), metrics.clone());
        tasks.spawn(on_every_shard("outbox backlog", store.clone(), stop.clone(), {
            let (store, metrics) = parts.clone();
            move |shard| backlog::measure(store.clone(), metrics.clone(), shard)
        }));
        tasks.spawn(on_every_shard("claim janitor", store.clone(), stop.clone(), {
            let (store, metrics) = parts.clone();
            move |shard| janitors::settle_claims(store.clone(), metrics.clone(), shard)
        }));
        tasks.spawn(on_every_shard("key janitor", store.clone(), stop.clone(), {
            let (store, metrics) = parts;
            move |shard| janitors::sweep_keys(store.clone(), metrics.clone(), shard)
        }));
        tasks.close();
        Self {
            tasks,
            stop,
            publish_now,
        }
    }

    /// Publishes what was handed over, and lets the rest come to its end.
    async fn end(self) {
        self.stop.cancel();
        self.publish_now.cancel();
        self.tasks.wait().await;
    }
}

/// Keeps the metrics of the ring current; never ends.
async fn show_ring(ring: &RingSource, metrics: &Metrics) {
    let mut last = None;
    loop {
        let status = ring.status();
        let epoch = status.epoch.map_or(0, |epoch| epoch.get());
        metrics.ring_epoch.set(i64::try_from(epoch).unwrap_or(i64::MAX));
        // The source counts; this shows its count.
        metrics.ring_refused.inner().store(status.refused, Ordering::Relaxed);
        if last.replace(epoch) != Some(epoch) {
            tracing::info!(epoch, "the ring in use");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
