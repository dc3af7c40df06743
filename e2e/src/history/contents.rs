//! What all shards hold at the end, and what the customers received.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::ownership::BookRow;
use super::record::{Content, OperationId, Status};

/// A row of users or orders.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRow {
    /// Where it lies.
    pub shard: u16,
    /// Its key.
    pub key: Uuid,
    /// Its version.
    pub version: i64,
    /// Who made it, as a part of it that never changes says; `None` when that part is none of ours.
    pub created_by: Option<OperationId>,
    /// What it holds; `None` when no client of ours can have written it.
    pub content: Option<Content>,
}

/// How a notification is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Channel {
    /// Email.
    Email,
    /// Text message.
    Sms,
}

/// A row of emails or sms.
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    /// Where it lies.
    pub shard: u16,
    /// Its key.
    pub key: Uuid,
    /// How it is sent.
    pub channel: Channel,
    /// Of which order.
    pub order: Uuid,
    /// The event's kind, such as `order.processed`.
    pub kind: String,
    /// The event's number within the order.
    pub sequence: i64,
    /// `queued`, `sending`, `sent`, `failed` or `unknown`.
    pub status: String,
}

/// A message that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// How.
    pub channel: Channel,
    /// Who placed the order it tells of; `None` when it does not say.
    pub order_of: Option<OperationId>,
}

/// A row of which only where it lies matters.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    /// Where it lies.
    pub shard: u16,
    /// Its key.
    pub key: Uuid,
}

/// What a claim is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Contact {
    /// An email address.
    Email,
    /// A mobile number.
    Mobile,
}

impl Contact {
    /// As the database calls it.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "email" => Some(Self::Email),
            "mobile" => Some(Self::Mobile),
            _ => None,
        }
    }
}

/// A claim of an address or number.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// Where it lies.
    pub shard: u16,
    /// Its key.
    pub key: Uuid,
    /// Whose.
    pub user: Uuid,
    /// On what.
    pub contact: Contact,
    /// Held; or still pending, until its user is known to be written or not.
    pub is_held: bool,
}

impl Claim {
    pub(super) fn line(&self) -> String {
        let state = if self.is_held { "held" } else { "pending" };
        format!(
            "at the end shard {} has claim {} of user {}, {:?}, {state}",
            self.shard, self.key, self.user, self.contact
        )
    }
}

/// An event that was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Published {
    /// Of which order.
    pub order: Uuid,
    /// Its number within the order, from 1.
    pub sequence: i64,
}

/// Everything, after the load has ended and all moves are done.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    /// `shop.users`.
    pub users: Vec<StoredRow>,
    /// `shop.orders`.
    pub orders: Vec<StoredRow>,
    /// `shop.emails` and `shop.sms`.
    pub notices: Vec<Notice>,
    /// How many events each order has had.
    pub events: BTreeMap<Uuid, i64>,
    /// What reached the broker; `None` when nobody read along.
    pub published: Option<BTreeSet<Published>>,
    /// `ringwright.outbox`.
    pub outbox: Vec<Placed>,
    /// `ringwright.idempotency_keys`.
    pub keys: Vec<Placed>,
    /// `ringwright.contact_claims`.
    pub claims: Vec<Claim>,
    /// `ringwright.range_owners` of each shard, in the order of the positions.
    pub books: BTreeMap<u16, Vec<BookRow>>,
    /// What mail server and SMS gateway took.
    pub received: Vec<Received>,
}

impl Contents {
    /// Whether the shard owns the position of this key.
    pub(super) fn owns(&self, shard: u16, key: Uuid) -> bool {
        let position = position(key);
        self.books.get(&shard).is_some_and(|rows| {
            let at = rows.partition_point(|row| row.hi <= position);
            rows.get(at)
                .is_some_and(|row| row.state.may_write() && row.lo <= position)
        })
    }
}

/// The ring position that every key begins with.
pub fn position(key: Uuid) -> u64 {
    let [a, b, c, d, ..] = *key.as_bytes();
    u64::from(u32::from_be_bytes([a, b, c, d]))
}

impl StoredRow {
    pub(super) fn line(&self) -> String {
        let content = self
            .content
            .map_or("content of nobody".to_owned(), |content| content.to_string());
        format!(
            "at the end shard {} has {} at version {}, {content}",
            self.shard, self.key, self.version
        )
    }

    /// Whether the order is processed.
    pub(super) fn is_processed(&self) -> bool {
        self.content.is_some_and(|content| content.status == Status::Processed)
    }
}
