//! `kubectl ringwright`: shows the ring, tells where a row lives, plans and watches rebalances, and holds them.
//!
//! It asks the API server only: the published ring, and the OrderCluster with its status. It never speaks to a database.

mod arguments;
mod hold;
mod locate;
mod place;
mod plan;
mod show;
mod status;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser;
use kube::Client;
use kube::config::KubeConfigOptions;

use crate::arguments::{Arguments, Command, Rebalance, Ring};
use crate::place::Place;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match connect(&arguments).await {
        Ok(client) => match run(&arguments, client, &mut io::stdout().lock()).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error),
        },
        Err(error) => fail(&error),
    }
}

/// As kubectl says it, with every cause: the innermost is mostly what helps. Some errors tell their causes themselves.
fn fail(error: &anyhow::Error) -> ExitCode {
    let told = error.chain().map(ToString::to_string).reduce(|told, cause| {
        if told.contains(&cause) {
            told
        } else {
            format!("{told}: {cause}")
        }
    });
    eprintln!("error: {}", told.unwrap_or_default());
    ExitCode::FAILURE
}

/// A client as kubectl would make it: from the kubeconfig, or in a pod from its service account.
async fn connect(arguments: &Arguments) -> Result<Client> {
    // An error only if there is one already, which is as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = match &arguments.context {
        None => kube::Config::infer()
            .await
            .context("find how to reach the API server")?,
        Some(context) => {
            let options = KubeConfigOptions {
                context: Some(context.clone()),
                ..KubeConfigOptions::default()
            };
            kube::Config::from_kubeconfig(&options)
                .await
                .with_context(|| format!("find the context {context} in the kubeconfig"))?
        }
    };
    Client::try_from(config).context("make a client of the API server")
}

/// Does what the arguments say, and writes what there is to say.
async fn run(arguments: &Arguments, client: Client, out: &mut dyn Write) -> Result<()> {
    let place = Place::find(client, arguments.namespace.as_deref(), arguments.cluster.as_deref()).await?;
    let output = arguments.output;
    match &arguments.command {
        Command::Ring(Ring::Show) => show::show(&place, output, out).await,
        Command::Ring(Ring::Locate { id }) => locate::locate(&place, id, output, out).await,
        Command::Rebalance(Rebalance::Plan { shards, ranges }) => {
            plan::print(&place, *shards, *ranges, output, out).await
        }
        Command::Rebalance(Rebalance::Status { watch }) => status::print(&place, *watch, output, out).await,
        Command::Rebalance(Rebalance::Pause) => hold::pause(&place, true, output, out).await,
        Command::Rebalance(Rebalance::Resume) => hold::pause(&place, false, output, out).await,
        Command::Rebalance(Rebalance::Abort) => hold::abort(&place, output, out).await,
    }
}
