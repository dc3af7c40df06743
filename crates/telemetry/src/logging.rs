use std::backtrace::Backtrace;
use std::fmt;
use std::io;
use std::panic::PanicHookInfo;
use std::str::FromStr;

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line, for collectors.
    Json,
    /// For people.
    Text,
}

/// Neither `json` nor `text`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown log format {0:?}; the formats are json and text")]
pub struct UnknownLogFormat(String);

impl FromStr for LogFormat {
    type Err = UnknownLogFormat;

    fn from_str(text: &str) -> Result<Self, UnknownLogFormat> {
        match text {
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            _ => Err(UnknownLogFormat(text.to_owned())),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "json",
            Self::Text => "text",
        })
    }
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The level is no filter.
    #[error(
        "the log level {filter:?} is not understood; use a level such as info, or a filter such as info,kube=debug"
    )]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// A program sets up logging once.
    #[error("logging has been set up before")]
    Repeated(#[from] TryInitError),
}

/// Sets up logging to standard output for the whole program, panics included.
///
/// `filter` is a level (`info`) or a list of directives (`info,kube=debug`).
///
/// # Errors
/// If the filter is not understood, or logging is set up already.
pub fn init(format: LogFormat, filter: &str) -> Result<(), LoggingError> {
    subscriber(format, filter, io::stdout)?.try_init()?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

fn subscriber<W>(format: LogFormat, filter: &str, writer: W) -> Result<Box<dyn Subscriber + Send + Sync>, LoggingError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let directives = EnvFilter::try_new(filter).map_err(|source| LoggingError::Filter {
        filter: filter.to_owned(),
        source,
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(directives)
        .with_writer(writer);
    Ok(match format {
        LogFormat::Json => Box::new(builder.json().flatten_event(true).finish()),
        LogFormat::Text => Box::new(builder.with_ansi(false).finish()),
    })
}

/// A panic is an event like any other, so that a collector which reads only JSON does not lose it.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    tracing::error!(
        reason = panic.payload_as_str().unwrap_or("a payload that is no text"),
        location = panic.location().map(tracing::field::display),
        thread = thread.name().unwrap_or("unnamed"),
        backtrace = %Backtrace::capture(),
        "panicked"
    );
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, filter: &str, work: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = subscriber(format, filter, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, work);
        lines.text()
    }

    #[test]
    fn json_lines_have_the_fields_at_the_top() {
        let text = logged(LogFormat::Json, "info", || {
            tracing::info!(shard = "shop-0", epoch = 7, "ring published")
        });
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&line["message"], &line["shard"], &line["epoch"]),
            (&"ring published".into(), &"shop-0".into(), &7.into())
        );
        assert_eq!(line["level"], "INFO");
    }

    #[test]
    fn the_filter_holds_back_what_is_below_it() {
        let text = logged(LogFormat::Text, "warn", || {
            tracing::info!("quiet");
            tracing::warn!("loud");
        });
        assert!(text.contains("loud") && !text.contains("quiet"), "{text}");
    }

    #[test]
    fn a_panic_is_one_event_with_reason_and_place() {
        let text = logged(LogFormat::Json, "info", || {
            let former = std::panic::take_hook();
            std::panic::set_hook(Box::new(log_panic));
            let caught = std::panic::catch_unwind(|| panic!("no such shard: {}", 7));
            std::panic::set_hook(former);
            assert!(caught.is_err());
        });
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&line["message"], &line["reason"]),
            (&"panicked".into(), &"no such shard: 7".into())
        );
        assert!(line["location"].as_str().unwrap().contains("logging.rs"));
    }

    #[test]
    fn wrong_settings_are_refused_with_what_would_be_right() {
        let error = subscriber(LogFormat::Json, "info,=,", io::stdout).err().unwrap();
        assert!(error.to_string().contains("\"info,=,\" is not understood"), "{error}");
        assert_eq!(
            "xml".parse::<LogFormat>().unwrap_err().to_string(),
            "unknown log format \"xml\"; the formats are json and text"
        );
        assert_eq!(LogFormat::Json.to_string().parse(), Ok(LogFormat::Json));
        assert_eq!(LogFormat::Text.to_string().parse(), Ok(LogFormat::Text));
    }
}
