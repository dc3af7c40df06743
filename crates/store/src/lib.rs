//! The shard store: every SQL statement that Ringwright sends to its shards, and the rules by which it is sent.
//!
//! * [`Store`] is what the order API and the notifier use: typed operations that find the owning shard by the ring
//!   position inside a row's id, follow the write fence's redirects, and read from master or replica by the session rule.
//! * [`admin`] is what the operator uses: roles, grants, migrations, the identity of a volume, the ranges it owns.
//! * [`moves`] hands ranges from one shard to another: the steps of a move, each over the databases of its two shards.
//! * One module an aggregate ([`users`], [`orders`], [`invoices`], [`notifications`], [`outbox`], [`idempotency`],
//!   [`contacts`]) holds its row types beside the statements on them.
//!
//! The guard of the data is not the ring but `ringwright.range_owners` in each shard's own database: a process with an
//! old ring is redirected by the write fence (`SR001`), never wrong.

pub mod admin;
pub mod config;
pub mod contacts;
pub mod currency;
pub mod error;
mod failpoint;
pub mod idempotency;
pub mod invoices;
mod metrics;
pub mod moves;
pub mod notifications;
pub mod orders;
pub mod outbox;
pub mod reading;
pub mod store;
pub mod token;
pub mod users;
pub mod version;

#[cfg(test)]
mod tests;

pub use config::{PoolConfig, ReadDefaults, ReadRace, StoreConfig};
pub use currency::CurrencyCode;
pub use error::StoreError;
pub use idempotency::{IdempotencyKey, RequestHash, StoredResponse, Written};
pub use reading::{Answer, Consistency, ReadAt};
pub use store::{Member, MemberRole, ShardHealth, Store};
pub use token::{Lsn, ReadToken, ReadTokens, Term, TokenError};
pub use version::BasedOn;
