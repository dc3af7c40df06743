//! The program's configuration: flags, each with an environment variable of the same name. Secrets come from files only.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use settings::{ProgramSettings, seconds};
use store::{ReadRace, StoreConfig};

use crate::app::Settings;
use crate::invoices::details::Seller;
use crate::request::BodyLimits;

/// What the names of its environment variables begin with.
pub const PREFIX: &str = "ORDER_API";

/// The order API of Ringwright: users, orders and invoices on the shard that owns them.
#[derive(Clone, Debug, Parser)]
#[command(version, about)]
pub struct Config {
    /// Address of the API; it also answers /livez and /readyz.
    #[arg(long, default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// What it is told like the notifier.
    #[command(flatten)]
    pub program: ProgramSettings,

    /// Most connections to one member of a shard.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub database_connections: u32,
    /// How reads pick between master and replica.
    #[arg(long, default_value = "hedged", value_enum)]
    pub reads: Reads,

    /// Directory with one file per API key, read again when it changes.
    #[arg(long, default_value = "/etc/ringwright/api-keys")]
    pub api_keys_dir: PathBuf,

    /// Who sells: the name on the invoices.
    #[arg(long, default_value = "Ringwright")]
    pub seller_name: String,
    /// The seller's postal address on the invoices, its lines separated by semicolons.
    #[arg(long, value_delimiter = ';')]
    pub seller_address: Vec<String>,
    /// The seller's number at the tax office, on the invoices.
    #[arg(long)]
    pub seller_tax_id: Option<String>,

    /// Largest request body in bytes.
    #[arg(long, default_value_t = 1024 * 1024, value_parser = clap::value_parser!(u32).range(1024..))]
    pub max_body_bytes: u32,
    /// Most requests worked on at once; past it the answer is 503 at once.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_concurrent_requests: u32,
    /// Most open connections; past it new ones wait to be accepted.
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_connections: u32,
    /// Seconds one request may take.
    #[arg(long, default_value = "10", value_parser = seconds(0.0))]
    pub request_timeout: Duration,
    /// Seconds that the body of a request may take to arrive.
    #[arg(long, default_value = "5", value_parser = seconds(0.0))]
    pub read_timeout: Duration,
    /// Seconds that a connection may wait for the head of its next request. Longer than callers, proxies and load balancers
    /// keep theirs (60 usually): else a request is now and then sent into a connection that is just being closed.
    #[arg(long, default_value = "75", value_parser = seconds(0.0))]
    pub idle_timeout: Duration,
    /// Seconds between failing readiness and accepting no more, so that no new request is on its way any more.
    #[arg(long, default_value = "5", value_parser = seconds(0.0))]
    pub shutdown_delay: Duration,
    /// Seconds that requests under way then have to end, and events to be published.
    #[arg(long, default_value = "20", value_parser = seconds(0.0))]
    pub shutdown_deadline: Duration,
}

/// How reads pick between master and replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Reads {
    /// The one that has been faster; the other too when the answer is late.
    Hedged,
    /// Both at once.
    Race,
}

impl Config {
    /// The limits of the HTTP side.
    pub fn settings(&self) -> Settings {
        Settings {
            body: BodyLimits {
                max_bytes: self.max_body_bytes as usize,
                read_timeout: self.read_timeout,
            },
            request_timeout: self.request_timeout,
            max_concurrent_requests: self.max_concurrent_requests as usize,
        }
    }

    /// Who sells, as new invoices have it.
    pub fn seller(&self) -> Seller {
        Seller {
            name: self.seller_name.clone(),
            address: self.seller_address.clone(),
            tax_id: self.seller_tax_id.clone(),
        }
    }

    /// The store's part.
    pub fn store(&self) -> StoreConfig {
        let mut config = self.program.store("ringwright-order-api");
        config.pool.connections = self.database_connections;
        config.reads.race = match self.reads {
            Reads::Hedged => ReadRace::Hedged,
            Reads::Race => ReadRace::Race,
        };
        // A write has to give up before its request does, else the client learns less than the store knows.
        config.write_deadline = config.write_deadline.min(self.request_timeout.mul_f32(0.8));
        config.read_deadline = config.read_deadline.min(self.request_timeout.mul_f32(0.8));
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_has_help_and_its_environment_variable() {
        let command = settings::command::<Config>(PREFIX);
        command.clone().debug_assert();
        for argument in command
            .get_arguments()
            .filter(|argument| !matches!(argument.get_id().as_str(), "help" | "version"))
        {
            let flag = argument.get_long().expect("every argument is a flag");
            let expected = format!("ORDER_API_{}", flag.to_uppercase().replace('-', "_"));
            assert_eq!(
                argument.get_env().and_then(|env| env.to_str()),
                Some(expected.as_str()),
                "--{flag}"
            );
            assert!(argument.get_help().is_some(), "--{flag} lacks help");
        }
    }

    #[test]
    fn the_defaults_parse_and_a_write_gives_up_before_its_request() {
        let config = Config::try_parse_from(["order-api"]).unwrap();
        assert!(config.store().write_deadline < config.request_timeout);
    }
}
