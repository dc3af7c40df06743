//! Progress lines with the seconds elapsed, for everything that takes longer than a few of them.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

/// Where progress lines go. Clones write to the same place and count from the same start.
#[derive(Clone)]
pub struct Progress {
    started: Instant,
    sink: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Progress {
    /// Lines to standard error, each with the seconds since this call.
    pub fn stderr() -> Self {
        Self::to(|line| eprintln!("{line}"))
    }

    /// Lines to `sink`, each with the seconds since this call.
    pub fn to(sink: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self {
            started: Instant::now(),
            sink: Arc::new(sink),
        }
    }

    /// Tells one step.
    pub fn say(&self, message: impl fmt::Display) {
        (self.sink)(&format!("{:6.1}s {message}", self.started.elapsed().as_secs_f64()));
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Progress")
            .field("started", &self.started)
            .finish_non_exhaustive()
    }
}
