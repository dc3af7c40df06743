//! Against a real RabbitMQ 4, named by RINGWRIGHT_TEST_AMQP. Each test uses exchanges and queues of its own prefix and
//! removes them; faults of the network are made by a proxy between this program and the broker.

// The whole crate is a test; the lint only knows functions marked as one.
#![allow(clippy::unwrap_used)]

mod consuming;
mod installation;
mod proxy;
mod publishing;
