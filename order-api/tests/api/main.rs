//! The API as its clients meet it: whole requests through the whole router. What needs shards runs against real ones,
//! databases of the PostgreSQL that `RINGWRIGHT_TEST_POSTGRES` names.

// The whole crate is a test; the lint only knows functions marked as one.
#![allow(clippy::unwrap_used)]

mod batches;
mod description;
mod idempotency;
mod invoices;
mod judged;
mod orders;
mod outbox;
mod reading;
mod refusals;
mod robustness;
mod serving;
mod shards;
mod support;
mod users;
