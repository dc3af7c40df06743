//! What can be asked for.

use clap::{Parser, Subcommand, ValueEnum};

/// The ring of an OrderCluster, and moves of its keys.
#[derive(Debug, Parser)]
#[command(name = "kubectl ringwright", bin_name = "kubectl ringwright", version)]
pub(crate) struct Arguments {
    /// Namespace of the OrderCluster; that of the kubeconfig's context when left out.
    #[arg(short, long, global = true)]
    pub(crate) namespace: Option<String>,

    /// Context of the kubeconfig; the current one when left out.
    #[arg(long, global = true)]
    pub(crate) context: Option<String>,

    /// Name of the OrderCluster; may be left out where the namespace has just one.
    #[arg(short, long, global = true)]
    pub(crate) cluster: Option<String>,

    /// How to say it.
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The form of what is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// For programs: one JSON object.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Who owns which keys.
    #[command(subcommand)]
    Ring(Ring),
    /// Moves of keys between shards.
    #[command(subcommand)]
    Rebalance(Rebalance),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Ring {
    /// The published ring: its shards, where they are, and what part of the keys each owns.
    Show,
    /// The shard on which a row lives, by the row's id or a ring position.
    Locate {
        /// The id of a user, an order or another row, or a position of eight hexadecimal digits.
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Rebalance {
    /// What would move if the specification were carried out now; nothing is changed.
    Plan {
        /// Another number of shards than the specification has.
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..=i64::from(crds::MAX_SHARDS)))]
        shards: Option<u16>,
        /// Every range that moves, too.
        #[arg(long)]
        ranges: bool,
    },
    /// How far the running rebalance is, or what the last one came to.
    Status {
        /// Goes on until it has ended, a line for each change.
        #[arg(short, long)]
        watch: bool,
    },
    /// Finishes the moves that copy, and begins no other.
    Pause,
    /// Goes on after a pause.
    Resume,
    /// Undoes what has not changed hands yet, and pauses.
    Abort,
}
