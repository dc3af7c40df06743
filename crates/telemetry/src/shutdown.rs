use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The handlers of the signals could not be installed.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for SIGTERM and SIGINT, so the program could not be stopped in good order")]
pub struct ShutdownError(#[from] std::io::Error);

/// A token that is cancelled by SIGTERM (Kubernetes) or SIGINT (a terminal). To be called within a tokio runtime.
///
/// From the call on neither signal ends the program by itself: it must end when the token is cancelled.
///
/// # Errors
/// If the signal handlers cannot be installed.
pub fn shutdown_on_signal() -> Result<CancellationToken, ShutdownError> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    tokio::spawn(async move {
        let received = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = received, "stopping");
        token.cancel();
    });
    Ok(shutdown)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, id};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn sigterm_cancels_the_token() {
        let shutdown = shutdown_on_signal().unwrap();
        assert!(!shutdown.is_cancelled());
        let sent = Command::new("kill")
            .args(["-TERM", &id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
        tokio::time::timeout(Duration::from_secs(5), shutdown.cancelled())
            .await
            .unwrap();
    }
}
