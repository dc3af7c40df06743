//! What can go wrong between a caller and the shards.

use std::time::Duration;

use ring::Ordinal;
use row_id::{InvoiceId, OrderId, UserId};

use crate::orders::OrderStatus;

/// The one error of [`crate::Store`]. Conflicts of the shop are variants of their own, so that callers match on types.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No user has this id.
    #[error("user {0} does not exist")]
    UserNotFound(UserId),
    /// No order has this id.
    #[error("order {0} does not exist")]
    OrderNotFound(OrderId),
    /// No invoice has this id.
    #[error("invoice {0} does not exist")]
    InvoiceNotFound(InvoiceId),
    /// Another user holds this email address.
    #[error("the email address belongs to another user")]
    EmailTaken,
    /// Another user holds this mobile number.
    #[error("the mobile number belongs to another user")]
    MobileTaken,
    /// The row is at none of the versions that the change may be based on.
    #[error("the row has version {current}, on which the change is not based: read it again and repeat the change")]
    VersionMismatch {
        /// What the row has.
        current: i64,
    },
    /// The order's state does not allow this.
    #[error("order {order} is {from}, so it cannot become {to}")]
    InvalidTransition {
        /// The order.
        order: OrderId,
        /// Its state now.
        from: OrderStatus,
        /// The state asked for.
        to: OrderStatus,
    },
    /// A cancelled order gets no invoice.
    #[error("order {0} is cancelled, so no invoice can be generated for it")]
    OrderCancelled(OrderId),
    /// The order has its one invoice already.
    #[error("order {order} already has invoice {invoice}")]
    InvoiceExists {
        /// The order.
        order: OrderId,
        /// Its invoice.
        invoice: InvoiceId,
    },
    /// The idempotency key was used with another request.
    #[error("the idempotency key was used before with another request: use a new key for a new request")]
    KeyReuse,
    /// An earlier request with this idempotency key has not ended.
    #[error("an earlier request with this idempotency key has not ended: repeat this one in {} ms", retry_after.as_millis())]
    InProgress {
        /// When to ask again.
        retry_after: Duration,
    },
    /// Another request claims the same address or number and has not ended: whose it will be is not known yet.
    #[error(
        "another request is just giving this email address or mobile number to a user: repeat this one in {} ms",
        retry_after.as_millis()
    )]
    ClaimPending {
        /// When to ask again.
        retry_after: Duration,
    },
    /// The shard cannot serve this now (no master, frozen, redirecting, full queue); nothing was written.
    #[error("shard {shard} could not {operation} within {} ms: {why}", waited.as_millis())]
    Unavailable {
        /// What was attempted.
        operation: &'static str,
        /// The shard.
        shard: Ordinal,
        /// The last reason seen.
        why: String,
        /// How long it was tried.
        waited: Duration,
        /// When a caller may try again.
        retry_after: Duration,
    },
    /// A commit was answered with a warning or not at all and could not be settled: repeat with the same key.
    #[error("shard {shard} left the outcome of `{operation}` unknown ({why}): repeat it with the same idempotency key")]
    OutcomeUnknown {
        /// What was attempted.
        operation: &'static str,
        /// The shard.
        shard: Ordinal,
        /// What was seen.
        why: String,
        /// When a caller may try again.
        retry_after: Duration,
    },
    /// A read token of a term, or a position, that its shard has never come to.
    #[error(
        "the read token names a state that shard {shard} was never in, as one of another installation does, or one given \
         before the shard was restored: read again without it"
    )]
    ForeignToken {
        /// The shard the token names.
        shard: Ordinal,
    },
    /// The lease on a notification is no longer held, so its outcome was not recorded.
    #[error("the lease on notification {0} is no longer held: another worker settles it")]
    LeaseLost(uuid::Uuid),
    /// The ring names no such shard.
    #[error("the ring of epoch {epoch} has no shard {shard}")]
    NoSuchShard {
        /// The ordinal asked for.
        shard: Ordinal,
        /// The epoch looked at.
        epoch: u64,
    },
    /// The database refused for a reason that is no rule of the shop.
    #[error("shard {shard} refused to {operation}")]
    Database {
        /// What was attempted.
        operation: &'static str,
        /// The shard.
        shard: Ordinal,
        /// The database's answer.
        #[source]
        source: sqlx::Error,
    },
    /// A row holds something this version cannot read.
    #[error("shard {shard} holds a row this version cannot read while it tried to {operation}: {why}")]
    BadRow {
        /// What was attempted.
        operation: &'static str,
        /// The shard.
        shard: Ordinal,
        /// What is wrong with it.
        why: String,
    },
    /// The configuration cannot work.
    #[error("the store cannot start: {0}")]
    Config(String),
}

impl StoreError {
    /// The same trouble behind an earlier commit of the same operation: something was written, and a repeat settles it.
    pub(crate) fn outcome_unknown(self) -> Self {
        match self {
            Self::Unavailable {
                operation,
                shard,
                why,
                retry_after,
                ..
            } => Self::OutcomeUnknown {
                operation,
                shard,
                why,
                retry_after,
            },
            other => other,
        }
    }

    /// When a caller may try again, if trying again can help.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::InProgress { retry_after }
            | Self::ClaimPending { retry_after }
            | Self::Unavailable { retry_after, .. }
            | Self::OutcomeUnknown { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }
}
