//! Starts the notifier, and ends it so that every message in hand is finished.

use std::{sync::Arc, time::Duration};

use broker::{Consumer, ConsumerConfig, Topology};
use ring::Ring;
use store::{Store, StoreError};
use telemetry::Readiness;
use tokio::{sync::watch, time::interval};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::info;

use crate::{
    config::Config,
    courier::Courier,
    email::{Smtp, SmtpLimits, SmtpUrlError},
    handler::EventHandler,
    metrics::Metrics,
    notify::Notify,
    sms::{Twilio, TwilioError},
    sweeper::Sweeper,
    templates::{TemplateError, Templates},
};

/// Why the notifier cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The message templates.
    #[error(transparent)]
    Templates(#[from] TemplateError),
    /// The mail server's URL.
    #[error(transparent)]
    Smtp(#[from] SmtpUrlError),
    /// The SMS provider's settings.
    #[error(transparent)]
    Sms(#[from] TwilioError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Health and metrics.
    #[error(transparent)]
    Telemetry(#[from] telemetry::ServeError),
}

/// Consumes until `shutdown`, then ends in order: no further event, those in hand, the connections.
///
/// # Errors
/// If it cannot start, or its telemetry ends.
pub async fn run(
    config: Config,
    ring: watch::Receiver<Arc<Ring>>,
    shutdown: CancellationToken,
) -> Result<(), ServiceError> {
    let mut registry = telemetry::registry("notifier", env!("CARGO_PKG_VERSION"));
    let metrics = Metrics::new(&mut registry);
    let store = Store::open(config.store(), ring)?;
    store.register_metrics(&mut registry);
    let notify = Arc::new(notify(&config, store.clone(), &metrics).await?);

    let handler = Arc::new(EventHandler::new(Arc::clone(&notify), metrics.clone()));
    let consumer = Arc::new(Consumer::start(consumer_config(&config), handler));
    let tasks = TaskTracker::new();
    let sweeper = Sweeper {
        store: store.clone(),
        notify,
        metrics: metrics.clone(),
        interval: config.sweep_interval,
        overdue_after: config.overdue_after,
        lost_after: Duration::from_secs(30),
    };
    tasks.spawn(sweeper.run(shutdown.clone()));
    tasks.spawn(show_broker(Arc::clone(&consumer), metrics, shutdown.clone()));
    tasks.close();

    let telemetry_stop = CancellationToken::new();
    let readiness = Arc::new(readiness(Arc::clone(&consumer), shutdown.clone()));
    let router = telemetry::router(Arc::new(registry), readiness);
    let telemetry = telemetry::serve(config.program.telemetry_listen, router, telemetry_stop.clone());
    info!(prefetch = config.prefetch, "notifying");
    let result = {
        tokio::pin!(telemetry);
        let result = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            // Without health nobody could see how it does; better to end and be started again.
            ended = &mut telemetry => ended.map_err(ServiceError::from),
        };
        shutdown.cancel();
        consumer.stop(config.shutdown_deadline).await;
        result
    };
    if tokio::time::timeout(config.shutdown_deadline, tasks.wait())
        .await
        .is_err()
    {
        tracing::warn!("a message of the sweeper took too long and is left to its lease");
    }
    store.close().await;
    telemetry_stop.cancel();
    info!("ended");
    result
}

async fn notify(config: &Config, store: Store, metrics: &Metrics) -> Result<Notify, ServiceError> {
    Ok(Notify {
        templates: Templates::load(config.templates_dir.as_deref())?,
        sender: config.mail_from.clone(),
        smtp: Smtp::new(config.smtp_url_file.clone(), SmtpLimits::default()).await?,
        sms: Arc::new(Twilio::new(config.twilio()).await?),
        email_courier: Courier::new("email", store.clone(), config.mail_rate, metrics.clone()),
        sms_courier: Courier::new("sms", store.clone(), config.sms_rate, metrics.clone()),
        give_up_after: config.give_up_after(),
        store,
    })
}

fn consumer_config(config: &Config) -> ConsumerConfig {
    // In Kubernetes the host name is the pod's.
    let pod = std::env::var("HOSTNAME").unwrap_or_default();
    ConsumerConfig {
        url_file: config.program.amqp_url_file.clone(),
        connection_name: format!("ringwright-notifier {pod}").trim_end().to_owned(),
        topology: Topology::default(),
        prefetch: config.prefetch,
    }
}

/// Ready means that events come in: nobody sends requests here, but a rollout waits for it.
fn readiness(consumer: Arc<Consumer>, shutdown: CancellationToken) -> Readiness {
    Readiness::default().until(shutdown).with_check("broker", move || {
        let state = if consumer.is_consuming() {
            Ok(())
        } else {
            Err(consumer.health())
        };
        async move { state.map_err(|health| format!("not consuming: {health}")) }
    })
}

async fn show_broker(consumer: Arc<Consumer>, metrics: Metrics, stop: CancellationToken) {
    let mut tick = interval(Duration::from_secs(1));
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        metrics.broker(&consumer.health(), consumer.is_consuming());
    }
}
