//! Figures of a run: tables of latencies, the operator's own count of pauses.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::kubernetes::{Kubernetes, address};
use crate::load::{Kind, Phase};
use crate::platform::OPERATOR_NAMESPACE;

/// The operator's histogram of pauses of writes.
const PAUSES: &str = "ringwright_operator_rebalance_pause_seconds_bucket{";

/// One line for reads and one for writes of each phase.
pub(super) fn table(phases: &[Phase]) -> String {
    let mut lines = vec![format!(
        "{:<22} {:>6} {:>9} {:>7} {:>9} {:>9} {:>9} {:>9} {:>7} {:>9}",
        "phase", "", "seconds", "req/s", "p50 ms", "p99 ms", "p99.9 ms", "longest", "failed", "not sent"
    )];
    let measured = phases.iter().filter(|phase| phase.quantiles(|_| true).count > 0);
    for phase in measured {
        for (name, reads) in [("reads", true), ("writes", false)] {
            let found = phase.quantiles(|kind: Kind| kind.is_read() == reads);
            let seconds = phase.duration().as_secs_f64();
            lines.push(format!(
                "{:<22} {name:>6} {seconds:>9.1} {:>7.0} {:>9} {:>9} {:>9} {:>9} {:>7} {:>9}",
                phase.name,
                found.count as f64 / seconds,
                millis(found.median),
                millis(found.p99),
                millis(found.p999),
                millis(found.longest),
                phase.failed(),
                phase.not_sent,
            ));
        }
    }
    lines.join("\n")
}

fn millis(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1_000.0)
}

/// Pauses of writes as the operators counted them: (upper end of a bucket in seconds, how many pauses up to it).
/// Operators that died took their counts along.
pub(super) async fn pauses(kubernetes: &Kubernetes) -> Result<Vec<(f64, u64)>> {
    let selector = "app.kubernetes.io/name=ringwright-operator";
    let mut sums: Vec<(f64, u64)> = Vec::new();
    for pod in kubernetes.pods(OPERATOR_NAMESPACE, selector).await? {
        let address = address(&pod).context("an operator without address")?;
        let metrics = reqwest::get(format!("http://{address}:9000/metrics"))
            .await?
            .text()
            .await?;
        for (end, count) in buckets(&metrics) {
            match sums.iter_mut().find(|(other, _)| *other == end) {
                Some((_, sum)) => *sum += count,
                None => sums.push((end, count)),
            }
        }
    }
    sums.sort_by(|one, other| one.0.total_cmp(&other.0));
    Ok(sums)
}

/// What was counted since `before`.
pub(super) fn since(before: &[(f64, u64)], now: &[(f64, u64)]) -> Vec<(f64, u64)> {
    let counted = |end: f64| {
        before
            .iter()
            .find(|(other, _)| *other == end)
            .map_or(0, |(_, count)| *count)
    };
    now.iter()
        .map(|(end, count)| (*end, count.saturating_sub(counted(*end))))
        .collect()
}

/// The end of the bucket that holds the pause of this rank, 0 to 1, in milliseconds.
pub(super) fn rank(buckets: &[(f64, u64)], rank: f64) -> Option<f64> {
    let total = buckets.last().map(|(_, count)| *count).filter(|count| *count > 0)?;
    let found = buckets.iter().find(|(_, count)| *count as f64 >= rank * total as f64)?;
    Some(found.0 * 1_000.0)
}

fn buckets(metrics: &str) -> Vec<(f64, u64)> {
    let lines = metrics.lines().filter(|line| line.starts_with(PAUSES));
    let found = lines.filter_map(|line| {
        let end = line.split("le=\"").nth(1)?.split('"').next()?;
        let end = if end == "+Inf" {
            f64::INFINITY
        } else {
            end.parse().ok()?
        };
        Some((end, line.rsplit(' ').next()?.parse().ok()?))
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = r#"# TYPE ringwright_operator_rebalance_pause_seconds histogram
ringwright_operator_rebalance_pause_seconds_sum{namespace="shop",cluster="shop"} 1.5
ringwright_operator_rebalance_pause_seconds_bucket{le="0.01",namespace="shop",cluster="shop"} 90
ringwright_operator_rebalance_pause_seconds_bucket{le="0.05",namespace="shop",cluster="shop"} 99
ringwright_operator_rebalance_pause_seconds_bucket{le="+Inf",namespace="shop",cluster="shop"} 100
"#;

    #[test]
    fn ranks_are_read_from_a_histogram() {
        let found = buckets(METRICS);
        assert_eq!(found.len(), 3);
        assert_eq!((rank(&found, 0.5), rank(&found, 0.99)), (Some(10.0), Some(50.0)));
        assert_eq!(rank(&found, 1.0), Some(f64::INFINITY));
        assert_eq!(rank(&since(&found, &found), 0.5), None);
    }
}
