//! What was asked and answered, as the clients saw it.

use std::fmt;

use uuid::Uuid;

/// Nanoseconds since the start of the run, on the one monotonic clock of the process that recorded everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(pub u64);

/// From just before something was sent until just after its answer was there: it happened at some point in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Before it was sent.
    pub start: Moment,
    /// After it was answered.
    pub end: Moment,
}

impl Span {
    /// Whether this was over before the other began. Spans of which neither precedes the other are concurrent.
    pub fn precedes(self, other: Self) -> bool {
        self.end < other.start
    }
}

/// The shard and the point of its log that an answer covers. Points of one shard are ordered by term, then position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    /// Ordinal of the shard that answered.
    pub shard: u16,
    /// Postgres' timeline.
    pub term: u32,
    /// The position in the log.
    pub lsn: u64,
}

/// Number of an operation: its index in [`History::operations`]. What an operation writes carries it, so every row and
/// every answer says who wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId(pub u32);

impl OperationId {
    /// Reads it back from the text that its [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('w')?;
        u32::from_str_radix(digits, 16).ok().map(Self)
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "w{:x}", self.0)
    }
}

/// What a client wants done once, however often it has to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// A new user.
    CreateUser,
    /// A new order.
    CreateOrder {
        /// Whose.
        user: Uuid,
    },
    /// A user's next version, made from this one (If-Match).
    UpdateUser {
        /// Who.
        user: Uuid,
        /// The version it replaces.
        base: i64,
    },
    /// The order is processed.
    Process {
        /// Which.
        order: Uuid,
    },
    /// The order is cancelled.
    Cancel {
        /// Which.
        order: Uuid,
    },
}

impl Intent {
    /// The row it changes; none when it makes one, whose key is known only from the answer.
    pub fn changes(&self) -> Option<Uuid> {
        match self {
            Self::CreateUser | Self::CreateOrder { .. } => None,
            Self::UpdateUser { user, .. } => Some(*user),
            Self::Process { order } | Self::Cancel { order } => Some(*order),
        }
    }

    /// The row that has to be there for it.
    pub fn needs(&self) -> Option<Uuid> {
        match self {
            Self::CreateOrder { user } => Some(*user),
            other => other.changes(),
        }
    }
}

impl fmt::Display for Intent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateUser => write!(f, "create a user"),
            Self::CreateOrder { user } => write!(f, "create an order of user {user}"),
            Self::UpdateUser { user, base } => write!(f, "update user {user} at version {base}"),
            Self::Process { order } => write!(f, "process order {order}"),
            Self::Cancel { order } => write!(f, "cancel order {order}"),
        }
    }
}

/// Where an order stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// Placed. Users have this one too, for they have no status.
    Created,
    /// Its customer is told.
    Processed,
    /// Given up.
    Cancelled,
}

impl Status {
    /// As API and database call it.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "created" => Some(Self::Created),
            "processed" => Some(Self::Processed),
            "cancelled" => Some(Self::Cancelled),
            _ => None,
        }
    }
}

/// What a row holds, as far as the judge compares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// Of a user, who wrote this version; of an order, who placed it.
    pub by: OperationId,
    /// Of an order; always `Created` of a user.
    pub status: Status,
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "by {}, {:?}", self.by, self.status)
    }
}

/// One attempt at an operation: a request, or an item of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// At what.
    pub operation: OperationId,
    /// When.
    pub span: Span,
    /// With what outcome.
    pub outcome: Outcome,
}

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Acknowledged.
    Done(Done),
    /// Answered that it is not done, because of the state of things.
    Refused(Refusal),
    /// No answer, or one that leaves open whether it was or will be done.
    Unknown(Box<str>),
}

/// An acknowledged write.
#[derive(Debug, Clone, PartialEq)]
pub struct Done {
    /// The row.
    pub key: Uuid,
    /// Its version by this write.
    pub version: i64,
    /// What the answer covers.
    pub covers: Box<[Token]>,
    /// Hash of the answer as the client sees it: repeats get the same.
    pub answer: u64,
}

/// Why a write was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// 412: the version it was made from is not the current one.
    Stale,
    /// 409: the order's status does not allow it.
    Status,
    /// 404: there is no such row.
    Absent,
    /// Anything else that is the client's fault, by status. A load that asks only for what is allowed never gets it.
    Other(u16),
}

/// One look at one row.
#[derive(Debug, Clone, PartialEq)]
pub struct Read {
    /// Which row.
    pub key: Uuid,
    /// When.
    pub span: Span,
    /// What it must see.
    pub consistency: Consistency,
    /// What it saw.
    pub seen: Sight,
}

/// What a read must see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Consistency {
    /// Everything acknowledged before it began.
    Strong,
    /// Everything these tokens cover.
    Session(Box<[Token]>),
}

/// What a read saw.
#[derive(Debug, Clone, PartialEq)]
pub enum Sight {
    /// A row.
    Found {
        /// Its version.
        version: i64,
        /// What it held.
        content: Content,
        /// What the answer covers.
        covers: Box<[Token]>,
    },
    /// 404.
    Absent,
    /// No answer: it proves nothing.
    Nothing,
}

impl Sight {
    /// The version seen, 0 where there was no row; `None` when nothing was seen.
    pub fn version(&self) -> Option<i64> {
        match self {
            Self::Found { version, .. } => Some(*version),
            Self::Absent => Some(0),
            Self::Nothing => None,
        }
    }
}

/// All that the clients did.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// What they wanted done.
    pub operations: Vec<Intent>,
    /// How they tried.
    pub attempts: Vec<Attempt>,
    /// What they looked at.
    pub reads: Vec<Read>,
}

impl History {
    /// What an operation was to do; `None` for a number that was never given out.
    pub fn intent(&self, operation: OperationId) -> Option<&Intent> {
        self.operations.get(operation.0 as usize)
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}", self.0 as f64 / 1e9)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} .. {} s]", self.start, self.end)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{:x}", self.shard, self.term, self.lsn)
    }
}

fn list(tokens: &[Token]) -> String {
    let tokens: Vec<String> = tokens.iter().map(Token::to_string).collect();
    tokens.join(" ")
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(done) => write!(
                f,
                "done, row {} at version {}, covers {}, answer {:016x}",
                done.key,
                done.version,
                list(&done.covers),
                done.answer
            ),
            Self::Refused(refusal) => write!(f, "refused, {refusal:?}"),
            Self::Unknown(why) => write!(f, "outcome unknown, {why}"),
        }
    }
}

impl fmt::Display for Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.span)?;
        match &self.consistency {
            Consistency::Strong => write!(f, "strong read")?,
            Consistency::Session(tokens) => write!(f, "session read with [{}]", list(tokens))?,
        }
        write!(f, " of {}: ", self.key)?;
        match &self.seen {
            Sight::Found {
                version,
                content,
                covers,
            } => write!(f, "version {version}, {content}, covers {}", list(covers)),
            Sight::Absent => write!(f, "not there"),
            Sight::Nothing => write!(f, "no answer"),
        }
    }
}
