//! Waiting for a condition with a deadline: never for a time.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

const PAUSE: Duration = Duration::from_millis(200);

/// Looks again and again until `look` finds something.
///
/// # Errors
/// When it has not within `deadline`; with the error of the last look, if that was one.
pub async fn await_condition<T, F>(what: &str, deadline: Duration, mut look: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let start = Instant::now();
    let in_vain = || format!("waited {} s in vain for {what}", deadline.as_secs());
    loop {
        match look().await {
            Ok(Some(found)) => return Ok(found),
            Ok(None) if start.elapsed() > deadline => return Err(anyhow!(in_vain())),
            Err(error) if start.elapsed() > deadline => return Err(error.context(in_vain())),
            // An API server that fails for a moment ends no wait.
            Ok(None) | Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Tries again and again until `attempt` succeeds: for what may fail for a while, such as a request during a failover.
///
/// # Errors
/// The last error, when none succeeded within `deadline`.
pub async fn eventually<T, F>(what: &str, deadline: Duration, mut attempt: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let start = Instant::now();
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) if start.elapsed() > deadline => {
                return Err(error.context(format!("{what} still fails after {} s", deadline.as_secs())));
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
