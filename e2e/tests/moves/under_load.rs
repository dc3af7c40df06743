//! The campaign with two seeds, and fewer orders than the 200,000 of `make test-moves`: CI has an hour for everything.

use anyhow::{Result, ensure};
use e2e::moves::{Campaign, Summary};

/// Every range has rows to move: from 2 to 3 shards there are some forty. The load adds more than is there before.
const ORDERS: usize = 2_000;
/// Two cores are busy with these, beside a Kubernetes of three nodes, ten databases and programs compiled for tests.
const RATE: u32 = 25;

async fn run(seed: u64, masters_die: bool) -> Result<Summary> {
    let campaign = Campaign {
        seed,
        orders: ORDERS,
        rate: RATE,
        masters_die,
    };
    let summary = campaign.run().await?;
    println!("{}", serde_json::to_string_pretty(&summary)?);
    ensure!(summary.passed, "seed {seed}:\n{}", summary.report);
    Ok(summary)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_2_to_3_to_5_to_3_to_5_shards_no_request_fails_though_the_operator_dies_in_each_move() -> Result<()> {
    let summary = run(1, false).await?;
    ensure!(summary.failed == 0, "{} requests failed", summary.failed);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_2_to_3_to_5_to_3_to_5_shards_nothing_is_lost_though_masters_of_sources_and_targets_die_too() -> Result<()>
{
    run(2, true).await?;
    Ok(())
}
