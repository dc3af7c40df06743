use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What goes wrong on purpose, set by tests through `PUT /faults`. All of it is off by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Faults {
    /// How many of the next messages are refused with `status`.
    pub(crate) fail_next: u32,
    /// The status they are refused with, 400 to 599.
    pub(crate) status: u16,
    /// How long every answer is held back, in milliseconds.
    pub(crate) delay_ms: u64,
    /// How many of the next messages are taken, but the connection is cut instead of an answer.
    pub(crate) accept_then_drop: u32,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            fail_next: 0,
            status: 503,
            delay_ms: 0,
            accept_then_drop: 0,
        }
    }
}

/// What happens to one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Accept,
    Fail { status: u16 },
    AcceptThenDrop,
}

impl Faults {
    /// Decides about the next message, and counts it.
    pub(crate) fn next_fate(&mut self) -> Fate {
        if self.fail_next > 0 {
            self.fail_next -= 1;
            Fate::Fail { status: self.status }
        } else if self.accept_then_drop > 0 {
            self.accept_then_drop -= 1;
            Fate::AcceptThenDrop
        } else {
            Fate::Accept
        }
    }

    pub(crate) fn delay(&self) -> Duration {
        Duration::from_millis(self.delay_ms)
    }
}
