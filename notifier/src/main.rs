//! The notifier: tells customers by email and text message what became of their orders.

use anyhow::Context;
use clap::Parser;
use notifier::{config::Config, service, tls};
use ring_source::{RingSource, RingSourceConfig};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = Config::parse();
    telemetry::init(config.log_format, &config.log_level).context("starting the log")?;
    tls::install_crypto_provider();
    let shutdown = telemetry::shutdown_on_signal().context("preparing to be stopped")?;
    let ring = ring(&config);
    let ring = tokio::select! {
        ring = ring => ring?,
        () = shutdown.cancelled() => return Ok(()),
    };
    service::run(config, ring.subscribe(), shutdown)
        .await
        .context("running the notifier")
}

async fn ring(config: &Config) -> anyhow::Result<RingSource> {
    let (directory, config_map) = (config.ring_dir.clone(), config.ring_configmap.clone());
    let source = RingSourceConfig::of_program(directory, config_map, config.ring_timeout)
        .await
        .context("preparing to watch the ring's ConfigMap")?;
    RingSource::start(source).await.context("waiting for the ring")
}
