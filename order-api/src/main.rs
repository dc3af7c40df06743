//! The order API's program: configuration, ring, service.

use anyhow::Context;
use order_api::config::{self, Config};
use order_api::service;
use ring_source::{RingSource, RingSourceConfig};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config: Config = settings::parse(config::PREFIX);
    telemetry::init(config.program.log_format, &config.program.log_level).context("starting the log")?;
    let shutdown = telemetry::shutdown_on_signal()?;
    let Some(ring) = shutdown.run_until_cancelled(ring_source(&config)).await else {
        return Ok(());
    };
    service::run(&config, &ring?, shutdown)
        .await
        .context("the order API ended")
}

async fn ring_source(config: &Config) -> anyhow::Result<RingSource> {
    let told = &config.program;
    let source = RingSourceConfig::of_program(told.ring_dir.clone(), told.ring_configmap.clone(), told.ring_timeout)
        .await
        .context("finding the Kubernetes API, to watch the ring")?;
    RingSource::start(source).await.context("reading the ring")
}
