use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// Upper bounds of the buckets for latencies, in seconds: from a look-up that is answered from memory to a request
/// that runs into a time limit, two to three buckets a decade.
pub const LATENCY_BUCKETS: [f64; 15] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// A registry whose metrics are all named `ringwright_...`, with the build's name and version in
/// `ringwright_build_info`.
pub fn registry(program: &'static str, version: &'static str) -> Registry {
    let mut registry = Registry::with_prefix("ringwright");
    let build = Info::new(vec![("program", program), ("version", version)]);
    registry.register("build", "The program that is running and its version", build);
    registry
}

/// A histogram of latencies in seconds; also to be given to `Family::new_with_constructor`.
pub fn latency_histogram() -> Histogram {
    Histogram::new(LATENCY_BUCKETS)
}
