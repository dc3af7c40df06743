//! Events over RabbitMQ: what is said ([`Event`]), where it goes ([`Topology`]), and the two ends of the road, a
//! [`Publisher`] that knows when a message is safe and a [`Consumer`] that comes back whatever the broker does.
//!
//! lapin restores neither a consumer that the broker cancelled nor a channel that ended in an error, and a blocked
//! connection would let messages pile up in memory. So nothing here trusts a connection to last: one task a connection
//! ([`link`]) connects, declares the topology, watches, and starts again with backoff; publisher and consumer take the
//! connection of the moment from it and treat every failure of it as ordinary.
//!
//! Delivery is at least once in both directions. Whoever consumes must recognise an event it has already handled
//! ([`Event::id`], or order, kind and [`Event::sequence`]).

mod amqp_url;
mod backoff;
mod consumer;
mod event;
mod health;
mod link;
mod publisher;
mod topology;

pub use amqp_url::{AmqpUrl, UrlError};
pub use consumer::{Consumer, ConsumerConfig, Delivery, Handler, Outcome};
pub use event::{Event, EventError};
pub use event_kind::EventKind;
pub use health::Health;
pub use publisher::{PublishError, Publisher, PublisherConfig};
pub use topology::{RetryTier, Topology, TopologyError};
