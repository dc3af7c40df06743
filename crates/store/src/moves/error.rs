//! Why a step of a move did not happen.

use std::error::Error as _;

use ring::{Ordinal, Range};

/// What Postgres answers, without a code of its own, to a change of a catalogue row that somebody else changed since it
/// was read: a worker that disables its subscription, say. It never translates these.
const CHANGED_MEANWHILE: [&str; 2] = ["tuple concurrently updated", "tuple concurrently deleted"];

/// Why a step of a move did not happen, or is not known to have happened.
///
/// After [`MoveError::Database`] and [`MoveError::Silent`] the session is not to be used any more.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// Somebody held a lock for longer than a step waits; nothing was changed. Try again in a moment.
    #[error("shard {shard} could not {operation} now: {why}")]
    Busy {
        /// The shard.
        shard: Ordinal,
        /// What was attempted.
        operation: String,
        /// The database's answer.
        why: String,
    },
    /// The database says that the step does not fit what its book says; nothing was changed. Observe again.
    #[error("shard {shard} refused to {operation}: {why}")]
    Refused {
        /// The shard.
        shard: Ordinal,
        /// What was attempted.
        operation: String,
        /// The rule.
        why: String,
    },
    /// The step was done, but a failover might still forget it. Repeat it; it must not be acted on before that succeeds.
    #[error("shard {shard} may lose this in a failover: {operation} ({why})")]
    NotDurable {
        /// The shard.
        shard: Ordinal,
        /// What was attempted.
        operation: String,
        /// A warning of the commit, or who has not flushed it.
        why: String,
    },
    /// Source and target differ although nothing is written and everything was applied. The range has been thawed. The
    /// copy cannot become right by itself: undo the move.
    #[error(
        "{relation} differs in {range}: {source_rows} rows on shard {source_shard}, {target_rows} on shard {target_shard}"
    )]
    Differs {
        /// The first table that differs.
        relation: String,
        /// The range.
        range: Range,
        /// The source.
        source_shard: Ordinal,
        /// Its rows.
        source_rows: i64,
        /// The target.
        target_shard: Ordinal,
        /// Its rows.
        target_rows: i64,
    },
    /// A statement failed, or the connection did.
    #[error("shard {shard} could not {operation}")]
    Database {
        /// The shard.
        shard: Ordinal,
        /// What was attempted.
        operation: String,
        /// The database's answer.
        #[source]
        source: sqlx::Error,
    },
    /// No answer.
    #[error("shard {shard} did not answer within {limit_s} s when asked to {operation}")]
    Silent {
        /// The shard.
        shard: Ordinal,
        /// What was attempted.
        operation: String,
        /// How long it was waited for.
        limit_s: u64,
    },
}

impl MoveError {
    /// By the SQLSTATE: a lock that was held, a step that does not fit, or anything else.
    pub(super) fn of(shard: Ordinal, operation: &str, source: sqlx::Error) -> Self {
        let code = source
            .as_database_error()
            .and_then(|error| error.code())
            .map(|code| code.into_owned());
        let operation = operation.to_owned();
        let changed_meanwhile = |error: &dyn sqlx::error::DatabaseError| CHANGED_MEANWHILE.contains(&error.message());
        let is_busy = match code.as_deref() {
            // Lock timeout, deadlock, an object in use by another session, a statement that was cancelled or took too long.
            Some("55P03" | "40P01" | "55006" | "57014") => true,
            Some("XX000") => source.as_database_error().is_some_and(changed_meanwhile),
            _ => false,
        };
        match code.as_deref() {
            _ if is_busy => Self::Busy {
                shard,
                operation,
                why: source.to_string(),
            },
            Some("SR007") => Self::Refused {
                shard,
                operation,
                why: source
                    .as_database_error()
                    .map(|error| error.message().to_owned())
                    .unwrap_or_default(),
            },
            _ => Self::Database {
                shard,
                operation,
                source,
            },
        }
    }

    /// Whether the session can go on being used.
    pub fn keeps_session(&self) -> bool {
        matches!(
            self,
            Self::Busy { .. } | Self::Refused { .. } | Self::NotDurable { .. } | Self::Differs { .. }
        )
    }

    /// Whether the server answered, so that the session can be put in order.
    pub(super) fn was_answered(&self) -> bool {
        match self {
            Self::Database { source, .. } => {
                source.as_database_error().is_some() || matches!(source, sqlx::Error::RowNotFound)
            }
            other => other.keeps_session(),
        }
    }

    /// With all causes, in one line.
    pub fn in_full(&self) -> String {
        match self.source() {
            Some(cause) => format!("{self}: {cause}"),
            None => self.to_string(),
        }
    }
}
