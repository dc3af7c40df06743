//! The load: a shop's backend that calls the order API as shops do, at a rate that does not wait for the answers, and
//! remembers everything for the judge.
//!
//! Open loop: each request has its time, whether or not those before it were answered, and its latency counts from that
//! time. A system that stands still for a second is then seen to have kept hundreds of requests waiting, not one.

mod answers;
mod caller;
mod client;
mod latency;
mod population;
mod prefill;
mod recorder;
mod repeats;
mod request;
mod run;

pub use caller::Caller;
pub use client::Client;
pub use latency::{Kind, Latency, Phase, Quantiles};
pub use prefill::prefill;
pub use recorder::{Clock, Recorder};
pub use repeats::Repeats;
pub use run::{Load, Settings};
