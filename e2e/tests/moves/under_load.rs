//! Two campaigns of the long kind, with fewer orders and a smaller load: CI has an hour for everything.

use anyhow::{Result, ensure};
use e2e::moves::Campaign;

/// Every range has rows to move: from 2 to 3 shards there are some forty. The load adds more than is there before.
const ORDERS: usize = 2_000;
/// Two cores are busy with these, beside a Kubernetes of three nodes, ten databases and programs compiled for tests. At 25
/// requests a second databases come to fail over for lack of time.
const RATE: u32 = 10;

async fn run(seed: u64, members_die: bool, strict: bool) -> Result<()> {
    let campaign = Campaign {
        seed,
        orders: ORDERS,
        rate: RATE,
        numbers: Campaign::LONG,
        members_die,
        strict,
    };
    let summary = campaign.run().await?;
    println!("{}", serde_json::to_string_pretty(&summary)?);
    ensure!(summary.passed, "seed {seed}:\n{}", summary.report);
    Ok(())
}

/// A campaign in which no member dies has not passed when a request failed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_2_to_3_to_5_to_3_to_5_shards_no_request_fails_though_the_operator_dies_in_each_move() -> Result<()> {
    run(3, false, true).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_2_to_3_to_5_to_3_to_5_shards_nothing_is_lost_though_masters_and_standbys_die_too() -> Result<()> {
    run(2, true, false).await
}
