//! How the connection to the broker is doing, for readiness and metrics.

/// The state of one supervised connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Not connected, and trying. Carries why, if a try has failed.
    Connecting {
        /// The last failure.
        reason: Option<String>,
    },
    /// Connected, topology declared.
    Connected,
    /// Connected, but the broker takes no messages: it has raised a memory or disk alarm.
    Blocked {
        /// The broker's words.
        reason: String,
    },
    /// Stopped by this program.
    Closed,
}

impl Health {
    /// Whether messages can be published now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        matches!(self, Self::Connected)
    }

    /// Whether the broker holds publishers back.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        matches!(self, Self::Blocked { .. })
    }

    /// One word for a metric's label.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Connecting { .. } => "connecting",
            Self::Connected => "connected",
            Self::Blocked { .. } => "blocked",
            Self::Closed => "closed",
        }
    }
}

impl std::fmt::Display for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connecting { reason: Some(reason) } => {
                write!(f, "connecting to the broker, last try failed: {reason}")
            }
            Self::Connecting { reason: None } => f.write_str("connecting to the broker"),
            Self::Connected => f.write_str("connected to the broker"),
            Self::Blocked { reason } => write!(f, "the broker takes no messages: {reason}"),
            Self::Closed => f.write_str("the connection to the broker was closed by this program"),
        }
    }
}
