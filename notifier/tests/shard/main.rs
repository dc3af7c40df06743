//! Events handled over a real shard, named by RINGWRIGHT_TEST_POSTGRES, logged in with the notifier's own role. The mail
//! server and the SMS provider are small ones of our own, since a real one cannot be told when to fail.

// The whole crate is a test; the lint only knows functions marked as one.
#![allow(clippy::unwrap_used)]

mod events;
mod marking;
mod providers;
mod shop;
mod sweeping;
