//! What can come of handing a message to a provider, in the one distinction that matters: may it have been taken?

use std::fmt;

use futures::future::BoxFuture;
use store::{StoreError, notifications::SendOutcome};

/// Marks the row `sending`: from its success on, nobody but the provider knows whether the message was taken.
///
/// A sending awaits it once everything is done that may be repeated (connecting, the login, the recipient) and before
/// the first byte that could make the provider take the message. Where it fails, nothing is handed over; where it is
/// never awaited, the row stays `queued`, even if this process dies.
pub type Begin = BoxFuture<'static, Result<(), StoreError>>;

/// The answer of a provider, or its silence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handover {
    /// Taken; the provider may have given it a name.
    Taken {
        /// The provider's name for it.
        reference: Option<String>,
    },
    /// Certainly not taken, and another try may go better.
    NotTaken(Reason),
    /// Certainly not taken, and never will be.
    Refused(Reason),
    /// It may have been taken: repeating it could tell the customer twice.
    Ambiguous(Reason),
}

/// Why, without any address or number in it: it is logged and stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// One of few words, for metrics.
    pub label: &'static str,
    /// For people.
    pub detail: String,
}

impl Reason {
    /// A reason that explains itself.
    pub fn new(label: &'static str, detail: impl Into<String>) -> Self {
        Self {
            label,
            detail: detail.into(),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl Handover {
    /// The label of the reason, for metrics; empty when taken.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Taken { .. } => "",
            Self::NotTaken(reason) | Self::Refused(reason) | Self::Ambiguous(reason) => reason.label,
        }
    }

    /// What is recorded of it. With `last_try`, what was not taken is failed instead of queued again.
    #[must_use]
    pub fn outcome(&self, last_try: bool) -> SendOutcome {
        match self {
            Self::Taken { reference } => SendOutcome::Sent {
                provider_reference: reference.clone(),
            },
            Self::NotTaken(reason) if last_try => SendOutcome::Failed {
                reason: format!("given up after many tries: {reason}"),
            },
            Self::NotTaken(reason) => SendOutcome::Retry {
                reason: reason.to_string(),
            },
            Self::Refused(reason) => SendOutcome::Failed {
                reason: reason.to_string(),
            },
            Self::Ambiguous(reason) => SendOutcome::Unknown {
                reason: reason.to_string(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ambiguous_handover_is_never_tried_again() {
        let ambiguous = Handover::Ambiguous(Reason::new("timeout", "no answer"));
        for last_try in [false, true] {
            assert_eq!(
                ambiguous.outcome(last_try),
                SendOutcome::Unknown {
                    reason: "no answer".to_owned()
                }
            );
        }
    }

    #[test]
    fn what_was_not_taken_is_tried_again_until_the_last_try() {
        let not_taken = Handover::NotTaken(Reason::new("connect", "refused"));
        assert!(matches!(not_taken.outcome(false), SendOutcome::Retry { .. }));
        assert!(matches!(not_taken.outcome(true), SendOutcome::Failed { .. }));
    }
}
