//! `rebalance status`.

use std::io::Write;
use std::pin::pin;

use anyhow::{Result, bail};
use crds::{OrderCluster, OrderClusterStatus, RebalancePhase, RebalanceStatus, labels};
use futures::{Stream, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher;

use crate::arguments::Output;
use crate::place::Place;

/// Prints how far the rebalance is; with `watch`, whenever that changes, until it has ended.
pub(crate) async fn print(place: &Place, watch: bool, output: Output, out: &mut dyn Write) -> Result<()> {
    if !watch {
        let cluster = place.cluster().await?;
        let now = rebalance(&cluster);
        if let Some(why) = stalled(&cluster)
            && output == Output::Text
            && !now.as_ref().is_some_and(is_under_way)
        {
            writeln!(out, "No keys move: {why}\n")?;
        }
        return match now {
            Some(status) => say(&status, output, out),
            None => nothing(output, out),
        };
    }
    // Fails for a name that is not there, for which a watch would wait.
    place.cluster().await?;
    let changes = watcher::watch_object(place.clusters(), &place.name).default_backoff();
    follow(place, changes, output, out).await
}

/// Prints each change of what a watch brings, until the rebalance has ended. One that the specification asks for and that
/// has not begun is waited for: what is told until then is of the one before. One that a person holds, or has to help, is an
/// error.
pub(crate) async fn follow(
    place: &Place,
    changes: impl Stream<Item = Result<Option<OrderCluster>, watcher::Error>>,
    output: Output,
    out: &mut dyn Write,
) -> Result<()> {
    let mut changes = pin!(changes);
    let (mut before, mut waited_for) = (None, None);
    while let Some(change) = changes.next().await {
        let cluster = match change {
            Ok(Some(cluster)) => cluster,
            Ok(None) => bail!("OrderCluster {}/{} was deleted", place.namespace, place.name),
            Err(error) => {
                // The watch is begun again by itself, later each time.
                eprintln!("the watch was interrupted, trying again: {error}");
                continue;
            }
        };
        let now = rebalance(&cluster);
        if !now.iter().chain(&before).any(is_under_way) {
            if let Some(why) = comes_first(&cluster) {
                if output == Output::Text && waited_for.as_ref() != Some(&why) {
                    writeln!(out, "No keys move now: {why}")?;
                }
                waited_for = Some(why);
                continue;
            }
            if let Some(why) = stalled(&cluster) {
                bail!("no keys move: {why}");
            }
        }
        match &now {
            None => return nothing(output, out),
            Some(status) if now != before => {
                line(status, output, out)?;
                if !is_under_way(status) {
                    return Ok(());
                }
            }
            Some(_) => {}
        }
        before = now;
    }
    bail!("the watch ended before the rebalance did; ask again")
}

fn is_under_way(status: &RebalanceStatus) -> bool {
    status.started_at.is_some() && status.finished_at.is_none()
}

/// What the operator does before it can say whether anything has to move, or after everything has; `None` when it is
/// through with the specification, or goes on only when a person has acted.
fn comes_first(cluster: &OrderCluster) -> Option<String> {
    let status = cluster.status.clone().unwrap_or_default();
    if status.observed_generation != cluster.metadata.generation {
        return Some("the operator has not looked at the specification yet".to_owned());
    }
    message_of(&status, "Reconciling")
}

/// Why the operator goes on only when a person has acted.
fn stalled(cluster: &OrderCluster) -> Option<String> {
    message_of(cluster.status.as_ref()?, "Stalled")
}

/// The message of a condition that is true.
fn message_of(status: &OrderClusterStatus, condition: &str) -> Option<String> {
    let is_true = |one: &&Condition| one.type_ == condition && one.status == "True";
    Some(status.conditions.iter().find(is_true)?.message.clone())
}

/// What the cluster says of its rebalance.
pub(crate) fn rebalance(cluster: &OrderCluster) -> Option<RebalanceStatus> {
    let mut status = cluster.status.as_ref()?.rebalance.clone()?;
    // The operator may not have got to it yet.
    let abort = cluster
        .metadata
        .annotations
        .as_ref()
        .is_some_and(|all| all.contains_key(labels::ABORT_REBALANCE));
    if abort && status.finished_at.is_none() {
        status.phase = RebalancePhase::Aborting;
    }
    Some(status)
}

fn nothing(output: Output, out: &mut dyn Write) -> Result<()> {
    match output {
        Output::Json => writeln!(out, "null")?,
        Output::Text => writeln!(out, "There has been no rebalance.")?,
    }
    Ok(())
}

fn say(status: &RebalanceStatus, output: Output, out: &mut dyn Write) -> Result<()> {
    if output == Output::Json {
        writeln!(out, "{}", serde_json::to_string_pretty(status)?)?;
        return Ok(());
    }
    let part = |per_million: i64| per_million as f64 / 10_000.0;
    writeln!(out, "phase     {:?}", status.phase)?;
    writeln!(
        out,
        "shards    {} before, {} after",
        status.shards_before, status.shards_after
    )?;
    writeln!(out, "moves     {} of {}", status.moves_done, status.moves_total)?;
    writeln!(out, "ranges    {} of {}", status.ranges_done, status.ranges_total)?;
    writeln!(
        out,
        "rows      {} of about {}, {} a second",
        status.rows_done, status.rows_total, status.rows_per_second
    )?;
    writeln!(
        out,
        "keys      {:.2} % move, {:.2} % ideally",
        part(status.keys_moved_per_million),
        part(status.keys_ideal_per_million)
    )?;
    writeln!(
        out,
        "pauses    median {} ms, longest {} ms",
        status.median_pause_milliseconds, status.longest_pause_milliseconds
    )?;
    for (what, at) in [
        ("started", &status.started_at),
        ("ends", &status.estimated_end),
        ("ended", &status.finished_at),
    ] {
        if let Some(at) = at {
            let about = if what == "ends" { "about " } else { "" };
            writeln!(out, "{what:<9} {about}{}", at.0)?;
        }
    }
    if let Some(error) = &status.last_error {
        writeln!(out, "error     {} at {}", error.message, error.at.0)?;
        writeln!(out, "          {}", error.action)?;
    }
    Ok(())
}

/// One line a change, so that it can be read back, and sifted.
fn line(status: &RebalanceStatus, output: Output, out: &mut dyn Write) -> Result<()> {
    if output == Output::Json {
        writeln!(out, "{}", serde_json::to_string(status)?)?;
        return Ok(());
    }
    write!(
        out,
        "{:?}: {} of {} ranges, {} of about {} rows, {} rows/s, longest pause {} ms",
        status.phase,
        status.ranges_done,
        status.ranges_total,
        status.rows_done,
        status.rows_total,
        status.rows_per_second,
        status.longest_pause_milliseconds,
    )?;
    match (&status.last_error, status.finished_at.is_some()) {
        (Some(error), false) => writeln!(out, " [{}; {}]", error.message, error.action)?,
        _ => writeln!(out)?,
    }
    Ok(())
}
