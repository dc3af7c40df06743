//! The platform as its users meet it, on a real Kubernetes. The tests run one after the other (`make test` sees to
//! that): most share one cluster of three shards, the others make small ones in namespaces of their own, so that there
//! are never more than twelve database pods.

mod claims;
mod convergence;
mod failover;
mod lifecycle;
mod outages;
mod refusals;
mod ring_map;
mod road;
mod spread;
