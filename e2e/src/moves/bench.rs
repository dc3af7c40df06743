//! `make bench`: what a scale-out costs those who use the system meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::measure;
use super::observer::Observer;
use super::rebalance::{await_rebalanced, scale};
use super::shards;
use crate::history::{check, report};
use crate::load::{Caller, Client, Clock, Load, Recorder, Settings, prefill};
use crate::platform::{self, CLUSTER, bearer};
use crate::{Kubernetes, Platform, with_temp_ns};

const FROM: usize = 2;
const TO: usize = 3;
/// Before and after the scale-out.
const CALM: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(1_200);
const DELIVERY: Duration = Duration::from_secs(600);

/// Measures a scale-out from two shards to three under load, and prints the figures. The judge looks on: a fast answer
/// that is wrong is worth nothing.
///
/// # Errors
/// When it cannot be run, a request fails, or the judge finds something.
pub async fn bench(orders: usize, rate: u32) -> Result<()> {
    let kubernetes = Kubernetes::connect().await?;
    Platform::make_room(&kubernetes).await?;
    platform::install_operator(&kubernetes).await?;
    with_temp_ns(&kubernetes, "bench", |namespace| run(namespace, orders, rate)).await
}

async fn run(namespace: String, orders: usize, rate: u32) -> Result<()> {
    let mut cluster = platform::cluster(FROM as i32, 2);
    cluster["spec"]["postgres"]["storage"]["size"] = "2Gi".into();
    let platform = Platform::make(Kubernetes::connect().await?, &namespace, &cluster).await?;
    let caller = Caller::new(&platform.api_addresses().await?, bearer())?;
    let clock = Clock::start();
    let client = Client::new(caller, Recorder::new(clock));
    prefill(&client, orders).await?;
    let observer = Observer::start(&namespace, clock).await?;
    let seed = 1;
    let load = Load::start(&client, Settings { rate, seed });
    // Connections are opened, statements prepared.
    tokio::time::sleep(Duration::from_secs(2)).await;
    client.latency().begin("before");
    tokio::time::sleep(CALM).await;
    let counted = measure::pauses(&platform.kubernetes).await?;
    client.latency().begin("during");
    let began = Instant::now();
    scale(&platform, TO)?;
    let cluster = await_rebalanced(&platform, &observer, TO, PATIENCE).await;
    let took = began.elapsed();
    client.latency().begin("after");
    tokio::time::sleep(CALM).await;
    load.stop().await?;
    cluster?;
    let status = rebalance_status(&platform)?;
    let pauses = measure::since(&counted, &measure::pauses(&platform.kubernetes).await?);

    let pools = shards::connect_all(&platform).await?;
    shards::await_delivered(&pools, DELIVERY).await?;
    let contents = shards::contents(&platform, &pools).await?;
    let moved = status["rowsDone"].as_u64().unwrap_or_default();
    let copying = observer.time_copying();
    // The first phase holds what ran before the measurement.
    let phases = client.latency().phases().split_off(1);
    println!(
        "\n{FROM} to {TO} shards with {} orders stored, {rate} requests/s asked for",
        contents.orders.len()
    );
    println!("{}", measure::table(&phases));
    println!("the whole rebalance: {:.1} s", took.as_secs_f64());
    let milliseconds = |field: &str| {
        status[field]
            .as_i64()
            .map_or("not told".to_owned(), |told| format!("{told} ms"))
    };
    println!(
        "write pauses of a batch: median {}, p99 at most {}, longest {}",
        milliseconds("medianPauseMilliseconds"),
        measure::rank(&pauses, 0.99).map_or("not counted".to_owned(), |end| format!("{end} ms")),
        milliseconds("longestPauseMilliseconds")
    );
    println!(
        "{moved} rows moved, {:.0} rows/s copied in {:.1} s of copying",
        moved as f64 / copying.as_secs_f64().max(0.001),
        copying.as_secs_f64()
    );
    let failed: u64 = phases.iter().map(|phase| phase.failed()).sum();
    println!("requests failed: {failed}");
    let [first, second, ..] = &phases[..] else {
        return None.context("phases are missing");
    };
    let part = second.throughput() / first.throughput();
    println!("throughput during the move: {:.0} percent of before", part * 100.0);
    let found = check(&client.recorder().take(), &observer.samples(), &contents);
    ensure!(found.is_empty(), "the judge found:\n{}", report(&found));
    ensure!(failed == 0, "{failed} requests failed because of a move");
    Ok(())
}

/// What the cluster's status says of its last rebalance.
fn rebalance_status(platform: &Platform) -> Result<Value> {
    let (name, output) = (format!("ordercluster/{CLUSTER}"), "jsonpath={.status.rebalance}");
    let text = platform
        .kubernetes
        .cluster
        .kubectl(["get", &name, "-n", &platform.namespace, "-o", output])?;
    serde_json::from_str(&text).with_context(|| format!("the status tells of no rebalance: {text:?}"))
}
