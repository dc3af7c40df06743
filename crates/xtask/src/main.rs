//! The logic behind the Makefile's verbs.

mod api_key;
mod bench;
mod cargo;
mod fresh;
mod images;
mod instances;
mod mail;
mod manifests;
mod place;
mod platform;
mod port_forward;
mod prerequisites;
mod sample_order;
mod stage;
mod test;
mod up;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::cargo::Profile;
use crate::place::On;
use crate::stage::Runner;
use crate::workspace::Workspace;

/// Builds, runs and tests Ringwright.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// A running platform with a sample cluster, and one order with its email and text message.
    Up {
        /// Where to install. Only `hermetic` is exercised by this project's tests.
        #[arg(long, value_enum, default_value_t = On::Hermetic)]
        on: On,
        /// For `--on current-context`: where images are pushed to and pulled from.
        #[arg(long)]
        registry: Option<String>,
    },
    /// Removes what `up` started.
    Down {
        /// What `up` was told.
        #[arg(long, value_enum, default_value_t = On::Hermetic)]
        on: On,
    },
    /// Everything that must hold, on a cluster of its own.
    Test,
    /// Formatting, lints and the tests that need no cluster.
    Check,
    /// What is checked of the charts alone, on a cluster that is left running.
    Charts,
    /// The end-to-end tests alone, on a cluster that is left running.
    E2e {
        /// Only tests whose names contain this.
        filter: Option<String>,
    },
    /// A PostgreSQL and a RabbitMQ for the tests of single crates, until Ctrl-C.
    Servers,
    /// Moving keys under load and faults, one campaign a seed; resumable.
    TestMoves {
        /// How many campaigns.
        #[arg(long, default_value_t = 20)]
        seeds: u64,
        /// The first seed.
        #[arg(long, default_value_t = 1)]
        from: u64,
        #[command(flatten)]
        load: test::Load,
    },
    /// The benchmarks.
    Bench {
        #[command(flatten)]
        load: test::Load,
    },
    /// Builds the images that are not up to date.
    Images {
        /// Builds all of them, from newly fetched Debian packages.
        #[arg(long)]
        rebuild: bool,
    },
    /// Renders the charts to deploy/ringwright.yaml.
    Manifests,
    /// The README's commands in a temporary clone with empty caches; an hour.
    Fresh,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let workspace = Workspace::locate()?;
    match arguments.verb {
        Verb::Up { on, registry } => up::up(&workspace, on, registry),
        Verb::Down { on } => up::down(&workspace, on),
        Verb::Test => test::everything(&workspace),
        Verb::Check => test::check(&workspace),
        Verb::Charts => test::charts(&workspace),
        Verb::E2e { filter } => test::end_to_end(&workspace, filter.as_deref()),
        Verb::Servers => test::servers(&workspace),
        Verb::TestMoves { seeds, from, load } => {
            let count = seeds;
            test::test_moves(&workspace, test::Seeds { from, count, load })
        }
        Verb::Bench { load } => bench::bench(&workspace, load),
        Verb::Images { rebuild } => build_images(&workspace, rebuild),
        Verb::Manifests => render_manifests(&workspace),
        Verb::Fresh => fresh::fresh(&workspace),
    }
}

fn build_images(workspace: &Workspace, rebuild: bool) -> Result<ExitCode> {
    let mut run = Runner::new("images", workspace)?;
    let ready = run.stage("prerequisites", Some(()), |stage, ()| {
        images::check_recipes(workspace)?;
        prerequisites::ensure_for_images(stage)
    });
    let programs = run.stage("programs", ready, |stage, _| {
        cargo::build_programs(stage, workspace, Profile::Release)
    });
    run.stage("images", programs.as_ref(), |stage, programs| {
        images::build(stage, workspace, programs, rebuild)
    });
    Ok(if run.summary() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn render_manifests(workspace: &Workspace) -> Result<ExitCode> {
    let mut run = Runner::new("manifests", workspace)?;
    run.stage("manifests", Some(()), |stage, ()| manifests::write(stage, workspace));
    Ok(if run.summary() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
