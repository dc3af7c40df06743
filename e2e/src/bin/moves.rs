//! Moves of keys on a running test cluster, one at a time: what `make test-moves` and `make bench` run.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use e2e::moves::{Campaign, bench};

#[derive(Debug, Parser)]
#[command(about = "Moves keys on a running test cluster")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// From 2 to 3 to 5 to 3 to 5 shards under load, with faults, judged.
    Campaign {
        /// Faults and load come from it; members die in every other one, and in every third `durability` is `required`.
        #[arg(long)]
        seed: u64,
        /// Orders stored before the first move.
        #[arg(long, default_value_t = 200_000)]
        orders: usize,
        /// Requests a second.
        #[arg(long, default_value_t = 500)]
        rate: u32,
        /// Where the outcome is written as JSON, and what is wrong beside it as text.
        #[arg(long)]
        result: PathBuf,
    },
    /// What a scale-out costs those who use the system meanwhile.
    Bench {
        /// Orders stored before.
        #[arg(long, default_value_t = 200_000)]
        orders: usize,
        /// Requests a second.
        #[arg(long, default_value_t = 500)]
        rate: u32,
    },
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<ExitCode> {
    match Arguments::parse().verb {
        Verb::Bench { orders, rate } => bench(orders, rate).await?,
        Verb::Campaign {
            seed,
            orders,
            rate,
            result,
        } => {
            let (members_die, strict) = (seed % 2 == 0, seed % 3 == 0);
            let campaign = Campaign {
                seed,
                orders,
                rate,
                numbers: Campaign::LONG,
                members_die,
                strict,
            };
            let summary = campaign.run().await?;
            let line = serde_json::to_string(&summary)?;
            std::fs::write(&result, &line).with_context(|| format!("writing {}", result.display()))?;
            println!("{line}");
            if !summary.passed {
                let report = result.with_extension("txt");
                std::fs::write(&report, &summary.report).with_context(|| format!("writing {}", report.display()))?;
                eprintln!("{}", summary.report);
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
