//! The notifier: tells customers by email and text message what became of their orders.

use anyhow::Context;
use notifier::{
    config::{self, Config},
    service, tls,
};
use ring_source::{RingSource, RingSourceConfig};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config: Config = settings::parse(config::PREFIX);
    telemetry::init(config.program.log_format, &config.program.log_level).context("starting the log")?;
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
    let told = &config.program;
    let source = RingSourceConfig::of_program(told.ring_dir.clone(), told.ring_configmap.clone(), told.ring_timeout)
        .await
        .context("preparing to watch the ring's ConfigMap")?;
    RingSource::start(source).await.context("waiting for the ring")
}
