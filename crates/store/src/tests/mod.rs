//! Tests against real PostgreSQL, named by `RINGWRIGHT_TEST_POSTGRES` (the URL of a superuser on a throw-away server).
//!
//! Shards are databases of that one server, each behind a small proxy of its own, so that the store sees a host a shard
//! and tests can cut its connections where they like.

mod admin;
mod claims;
mod fence;
mod fence_race;
mod moves;
mod notifications;
mod orders;
mod outbox;
mod pool;
mod proxy;
mod replica;
mod roles;
mod routing;
mod schema;
mod shards;
mod tokens;
mod users;
