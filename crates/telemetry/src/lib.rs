//! What a running program tells about itself: logs, metrics, health, and when it is told to stop.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # async fn program() -> Result<(), Box<dyn std::error::Error>> {
//! telemetry::init(telemetry::LogFormat::Json, "info")?;
//! let shutdown = telemetry::shutdown_on_signal()?;
//! let registry = telemetry::registry("notifier", env!("CARGO_PKG_VERSION"));
//! let readiness = telemetry::Readiness::default()
//!     .until(shutdown.clone())
//!     .with_check("broker", || async { Err::<(), _>("no connection") });
//! let router = telemetry::router(Arc::new(registry), Arc::new(readiness));
//! telemetry::serve("0.0.0.0:9000".parse()?, router, shutdown).await?;
//! # Ok(())
//! # }
//! ```

mod chain;
mod health;
mod logging;
mod metrics;
mod server;
mod shutdown;

pub use chain::chain;
pub use health::{Readiness, Report};
pub use logging::{LogFormat, LoggingError, UnknownLogFormat, init};
pub use metrics::{LATENCY_BUCKETS, latency_histogram, registry};
pub use server::{ServeError, health_routes, router, serve};
pub use shutdown::{ShutdownError, shutdown_on_signal};
