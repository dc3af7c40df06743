//! What the judge finds.

use std::fmt;

/// How the system broke its word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Two shards owned a position.
    TwoOwners,
    /// A shard came to own a position that its owner before had not given away for good, or a generation went back.
    NotHandedOver,
    /// An acknowledged write is gone.
    LostWrite,
    /// A write is there twice.
    WrittenTwice,
    /// One version was given to two writes or seen with two contents, or a write got another version than the one after
    /// its base.
    VersionTwice,
    /// A row is there that nobody wrote, or a version that no write accounts for.
    WrittenByNobody,
    /// A row lies on a shard that does not own it.
    StrayRow,
    /// A repeated request got another answer than the first, or was refused after it had been done.
    OtherAnswer,
    /// A write took effect before one that was acknowledged before it began.
    WriteOutOfOrder,
    /// A write was refused because of a state that was not so.
    RefusedWithoutCause,
    /// A strong read saw less than was acknowledged or seen before it began.
    StaleStrongRead,
    /// A session read saw less than its token covers, or, with or without a token, than had been acknowledged for seconds.
    StaleSessionRead,
    /// A read saw what nobody had written by then.
    ReadFromNowhere,
    /// An event was not published, or its customer was not told.
    NotDelivered,
    /// A customer was told twice, or of what did not happen.
    DeliveredTwice,
    /// A key changed shards without need, or more keys than needed did.
    MovedInVain,
}

impl Kind {
    /// The number of the invariant in `docs/moving-keys.md` that it breaks.
    pub fn invariant(self) -> u8 {
        match self {
            Self::TwoOwners => 1,
            Self::NotHandedOver => 2,
            Self::LostWrite
            | Self::WrittenTwice
            | Self::VersionTwice
            | Self::WrittenByNobody
            | Self::StrayRow
            | Self::OtherAnswer
            | Self::WriteOutOfOrder => 3,
            Self::RefusedWithoutCause | Self::StaleStrongRead | Self::StaleSessionRead | Self::ReadFromNowhere => 4,
            Self::NotDelivered | Self::DeliveredTwice => 5,
            Self::MovedInVain => 6,
        }
    }
}

/// One broken rule, with the lines of the history that prove it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which rule.
    pub kind: Kind,
    /// What is wrong, in a sentence.
    pub what: String,
    /// The lines that prove it.
    pub proof: Vec<String>,
}

impl Violation {
    pub(super) fn new(kind: Kind, what: impl Into<String>, proof: Vec<String>) -> Self {
        Self {
            kind,
            what: what.into(),
            proof,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invariant {}, {:?}: {}", self.kind.invariant(), self.kind, self.what)?;
        self.proof.iter().try_for_each(|line| write!(f, "\n    {line}"))
    }
}

/// Most violations that a report shows of one kind; one cause usually has thousands of effects.
const SHOWN_OF_A_KIND: usize = 5;

/// The violations for a person to read: the first few of each kind, and how many there were.
pub fn report(violations: &[Violation]) -> String {
    let mut kinds: Vec<Kind> = violations.iter().map(|violation| violation.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let mut lines = Vec::new();
    for kind in kinds {
        let of_kind: Vec<&Violation> = violations.iter().filter(|violation| violation.kind == kind).collect();
        lines.push(format!("{kind:?} (invariant {}): {}", kind.invariant(), of_kind.len()));
        lines.extend(of_kind.iter().take(SHOWN_OF_A_KIND).map(ToString::to_string));
    }
    lines.join("\n")
}
