//! From the outbox to the broker. An event commits with its order, so none is lost; it goes out at once after the
//! commit ([`PublishNow`]), and what could not go then (a crash, the broker away) is taken by the poller ([`poller`]).

pub mod backlog;
mod delivery;
pub mod poller;
mod publish_now;

pub use publish_now::{PublishNow, PublishNowWorker};
