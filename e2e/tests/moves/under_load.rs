//! Campaigns with fewer orders than the 200,000 of `make test-moves`: CI has an hour for everything.

use anyhow::{Result, ensure};
use e2e::moves::{Campaign, Summary};

/// Every range has rows to move: from 2 to 3 shards there are some forty. The load adds more than is there before.
const ORDERS: usize = 2_000;
/// Two cores are busy with these, beside a Kubernetes of three nodes, ten databases and programs compiled for tests. At 25
/// requests a second databases come to fail over for lack of time.
const RATE: u32 = 10;

const LONG: Campaign = Campaign {
    seed: 1,
    orders: ORDERS,
    rate: RATE,
    numbers: Campaign::LONG,
    members_die: false,
    strict: false,
};

async fn run(campaign: Campaign) -> Result<Summary> {
    let summary = campaign.run().await?;
    println!("{}", serde_json::to_string_pretty(&summary)?);
    ensure!(summary.passed, "seed {}:\n{}", campaign.seed, summary.report);
    Ok(summary)
}

async fn run_without_failures(campaign: Campaign) -> Result<()> {
    let summary = run(campaign).await?;
    ensure!(summary.failed == 0, "{} requests failed", summary.failed);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_and_back_no_request_fails_though_the_operator_dies_in_each_move() -> Result<()> {
    run_without_failures(Campaign {
        // The operator dies in the copy and in the hand-over, and is stopped in a freeze on the way to 3.
        seed: 6,
        numbers: &[3, 2],
        strict: true,
        ..LONG
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a quarter of an hour; make e2e ONLY=shards runs it"]
async fn from_2_to_3_to_5_to_3_to_5_shards_no_request_fails_though_the_operator_dies_in_each_move() -> Result<()> {
    run_without_failures(LONG).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a quarter of an hour; make e2e ONLY=shards runs it"]
async fn from_2_to_3_to_5_to_3_to_5_shards_nothing_is_lost_though_masters_and_standbys_die_too() -> Result<()> {
    let members_die = true;
    run(Campaign {
        seed: 2,
        members_die,
        ..LONG
    })
    .await
    .map(drop)
}
