//! The Ringwright operator: OrderClusters into OrderShards, OrderShards into Postgres, and the ring over them.

mod api_gate;
mod apply;
mod conditions;
mod config;
mod context;
mod finalizer;
mod holdings;
mod leader;
mod metrics;
mod order_cluster;
mod order_shard;
mod schema_gates;
mod shard_metrics;

use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser;
use kube::client::ClientBuilder;
use telemetry::Readiness;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    api_gate::{Fence, GateLayer},
    config::Config,
    context::{API_SILENCE, Context},
    leader::Election,
    metrics::Metrics,
};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = Config::parse();
    telemetry::init(config.log_format, &config.log_level)?;
    // Told explicitly: the first HTTP client without one would end the program.
    let provider = rustls::crypto::ring::default_provider();
    anyhow::ensure!(
        provider.install_default().is_ok(),
        "another TLS provider was installed before"
    );
    let stop = telemetry::shutdown_on_signal()?;
    let mut registry = telemetry::registry("operator", env!("CARGO_PKG_VERSION"));
    let metrics = Metrics::register(&mut registry);
    let readiness = Readiness::default().until(stop.clone());
    let routes = telemetry::router(Arc::new(registry), Arc::new(readiness));
    // Served to the end: a program that takes its time to stop is still watched.
    let serving = telemetry::serve(config.telemetry_listen, routes, CancellationToken::new());

    let mut kubernetes = kube::Config::infer()
        .await
        .context("find how to reach the Kubernetes API server")?;
    kubernetes.read_timeout = Some(API_SILENCE);
    kubernetes.reset_reader_on_write = true;
    // The Lease has a client of its own: it is what opens the gate of the other.
    let lease_client = kube::Client::try_from(kubernetes.clone()).context("make the client of the Lease")?;
    let fence = if config.leader_election {
        Fence::closed()
    } else {
        Fence::open()
    };
    let gate = GateLayer {
        fence: fence.clone(),
        writes: metrics.api_writes.clone(),
    };
    let client = ClientBuilder::try_from(kubernetes)
        .context("make the Kubernetes client")?
        .with_layer(&gate)
        .build();

    let election = Election::new(lease_client, &config, fence);
    let elected = config.leader_election.then_some(election);
    let context = Arc::new(Context::new(client, config, metrics));
    tokio::select! {
        led = lead(context, elected, stop) => led,
        served = serving => served.context("serve health and metrics"),
    }
}

/// Waits to be the leader, then runs the controllers until told to stop or until the Lease is lost.
async fn lead(context: Arc<Context>, election: Option<Election>, stop: CancellationToken) -> anyhow::Result<()> {
    let Some(mut election) = election else {
        context.metrics.leader.set(1);
        controllers(context, stop).await;
        return Ok(());
    };
    if !election.acquire(&stop).await {
        return Ok(());
    }
    context.metrics.leader.set(1);
    let running = controllers(Arc::clone(&context), stop.clone());
    tokio::pin!(running);
    tokio::select! {
        () = &mut running => anyhow::ensure!(stop.is_cancelled(), "the controllers ended without being told to"),
        () = election.hold(&stop) => {
            context.metrics.leader.set(0);
            // Dropping the controllers stops every reconcile where it stands: each is idempotent.
            anyhow::ensure!(stop.is_cancelled(), "lost the Lease; starting anew as a candidate");
            running.await;
        }
    }
    election.release().await;
    info!("stopped");
    Ok(())
}

/// Runs every controller until `stop`; each finishes the reconciles it has begun.
async fn controllers(context: Arc<Context>, stop: CancellationToken) {
    tokio::join!(
        order_cluster::run(Arc::clone(&context), stop.clone()),
        order_shard::run(context, stop)
    );
}
