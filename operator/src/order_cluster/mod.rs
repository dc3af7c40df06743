//! The OrderCluster controller.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::context::Context;

/// Runs until `stop`.
pub(crate) async fn run(_context: Arc<Context>, stop: CancellationToken) {
    stop.cancelled().await;
}
