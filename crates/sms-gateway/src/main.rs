//! An SMS gateway for development: it speaks the part of Twilio's Messages API that the notifier uses, keeps what it is
//! given in memory for people and tests to read, and fails when it is told to.

mod faults;
mod gateway;
mod inbox;
mod refusal;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use clap::Parser;
use telemetry::{LogFormat, Readiness};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Development SMS gateway, compatible with Twilio's Messages API. Sends nothing anywhere.
#[derive(Parser)]
#[command(version)]
struct Settings {
    /// Address to take messages on.
    #[arg(long, env = "SMS_GATEWAY_LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// Address of /livez, /readyz and /metrics.
    #[arg(long, env = "SMS_GATEWAY_TELEMETRY_LISTEN", default_value = "0.0.0.0:9000")]
    telemetry_listen: SocketAddr,
    /// How log lines are written: json or text.
    #[arg(long, env = "SMS_GATEWAY_LOG_FORMAT", default_value = "json")]
    log_format: LogFormat,
    /// Level from which on log lines are written, or a filter such as info,tower=debug.
    #[arg(long, env = "SMS_GATEWAY_LOG_LEVEL", default_value = "info")]
    log_level: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let settings = Settings::parse();
    telemetry::init(settings.log_format, &settings.log_level)?;
    let shutdown = telemetry::shutdown_on_signal()?;
    let mut registry = telemetry::registry("sms-gateway", env!("CARGO_PKG_VERSION"));
    let messages = gateway::router(&mut registry);
    let readiness = Readiness::default().until(shutdown.clone());
    let telemetry = telemetry::router(Arc::new(registry), Arc::new(readiness));
    tracing::info!(listen = %settings.listen, "taking messages");
    tokio::try_join!(
        async {
            telemetry::serve(settings.telemetry_listen, telemetry, shutdown.clone())
                .await
                .context("serving telemetry")
        },
        serve(settings.listen, messages, shutdown.clone()),
    )?;
    Ok(())
}

async fn serve(address: SocketAddr, messages: Router, shutdown: CancellationToken) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listening on {address} for messages"))?;
    let server = axum::serve(listener, messages).with_graceful_shutdown(shutdown.cancelled_owned());
    server.await.context("serving messages")
}
