//! What can go wrong, told so that the reader knows what to do next.

use std::path::PathBuf;

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Each variant says what was attempted, on what, and why it failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine lacks something that this crate cannot or may not install by itself.
    #[error("this machine cannot run the cluster yet:\n{0}")]
    Prerequisites(String),
    /// Another process is starting, stopping or testing this instance.
    #[error("{what} is held by {holder}; wait for it, or end it, and try again")]
    Held {
        /// What is held.
        what: String,
        /// Process id and command line of the holder.
        holder: String,
    },
    /// An instance was asked for that does not run.
    #[error("instance {0:?} is not running; start it first")]
    NotRunning(String),
    /// A command ended with an error.
    #[error("{attempt}: `{command}` failed ({status}): {stderr}")]
    Command {
        /// What was attempted.
        attempt: String,
        /// The command line.
        command: String,
        /// Its exit status.
        status: String,
        /// The end of what it wrote to stderr.
        stderr: String,
    },
    /// The file system refused something.
    #[error("{attempt} {}: {source}", path.display())]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Something did not happen in time.
    #[error("{what} did not happen within {seconds} s; {hint}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// For how long.
        seconds: u64,
        /// Where to look.
        hint: String,
    },
    /// A value from outside makes no sense.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// For `map_err` on file operations: what was attempted on which path.
    pub(crate) fn io(attempt: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { attempt, path, source }
    }
}
