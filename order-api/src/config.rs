//! The program's configuration: flags, each with an environment variable of the same name. Secrets come from files only.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use store::config::PgSslMode;
use store::{ReadRace, StoreConfig};
use telemetry::LogFormat;

use crate::app::Settings;
use crate::invoices::details::Seller;
use crate::request::BodyLimits;

/// The order API of Ringwright: users, orders and invoices on the shard that owns them.
#[derive(Clone, Debug, Parser)]
#[command(version, about)]
pub struct Config {
    /// Address of the API; it also answers /livez and /readyz.
    #[arg(long, env = "ORDER_API_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// Address of /metrics, /livez and /readyz.
    #[arg(long, env = "ORDER_API_TELEMETRY_LISTEN", default_value = "0.0.0.0:9000")]
    pub telemetry_listen: SocketAddr,
    /// Form of the log: json or text.
    #[arg(long, env = "ORDER_API_LOG_FORMAT", default_value = "json")]
    pub log_format: LogFormat,
    /// What is logged: a level or a filter such as `info,order_api=debug`.
    #[arg(long, env = "ORDER_API_LOG_LEVEL", default_value = "info")]
    pub log_level: String,

    /// Directory with the mounted ring: ring.json, digest and tokens.
    #[arg(long, env = "ORDER_API_RING_DIR", default_value = "/etc/ringwright/ring")]
    pub ring_dir: PathBuf,
    /// The ring's ConfigMap as <namespace>/<name>, watched beside the directory; without it the directory alone is read.
    #[arg(long, env = "ORDER_API_RING_CONFIGMAP", value_parser = config_map)]
    pub ring_configmap: Option<(String, String)>,
    /// How many seconds to wait for a first usable ring before giving up.
    #[arg(long, env = "ORDER_API_RING_TIMEOUT", default_value = "60", value_parser = seconds)]
    pub ring_timeout: Duration,

    /// Directory with the files username and password of the shards' role.
    #[arg(
        long,
        env = "ORDER_API_DATABASE_CREDENTIALS_DIR",
        default_value = "/etc/ringwright/database"
    )]
    pub database_credentials_dir: PathBuf,
    /// Name of the database on every shard.
    #[arg(long, env = "ORDER_API_DATABASE_NAME", default_value = "orders")]
    pub database_name: String,
    /// TLS towards the shards: disable, allow, prefer, require, verify-ca or verify-full.
    #[arg(long, env = "ORDER_API_DATABASE_SSLMODE", default_value = "prefer")]
    pub database_sslmode: PgSslMode,
    /// PEM file with the authorities that verify-ca and verify-full trust.
    #[arg(long, env = "ORDER_API_DATABASE_CA_FILE")]
    pub database_ca_file: Option<PathBuf>,
    /// Most connections to one member of a shard.
    #[arg(long, env = "ORDER_API_DATABASE_CONNECTIONS", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub database_connections: u32,
    /// How reads pick between master and replica.
    #[arg(long, env = "ORDER_API_READS", default_value = "hedged", value_enum)]
    pub reads: Reads,

    /// File with the URL of RabbitMQ.
    #[arg(long, env = "ORDER_API_AMQP_URL_FILE", default_value = "/etc/ringwright/amqp/url")]
    pub amqp_url_file: PathBuf,
    /// Directory with one file per API key, read again when it changes.
    #[arg(long, env = "ORDER_API_API_KEYS_DIR", default_value = "/etc/ringwright/api-keys")]
    pub api_keys_dir: PathBuf,

    /// Who sells: the name on the invoices.
    #[arg(long, env = "ORDER_API_SELLER_NAME", default_value = "Ringwright")]
    pub seller_name: String,
    /// The seller's postal address on the invoices, its lines separated by semicolons.
    #[arg(long, env = "ORDER_API_SELLER_ADDRESS", value_delimiter = ';')]
    pub seller_address: Vec<String>,
    /// The seller's number at the tax office, on the invoices.
    #[arg(long, env = "ORDER_API_SELLER_TAX_ID")]
    pub seller_tax_id: Option<String>,

    /// Largest request body in bytes.
    #[arg(long, env = "ORDER_API_MAX_BODY_BYTES", default_value_t = 1024 * 1024, value_parser = clap::value_parser!(u32).range(1024..))]
    pub max_body_bytes: u32,
    /// Most requests worked on at once; past it the answer is 503 at once.
    #[arg(long, env = "ORDER_API_MAX_CONCURRENT_REQUESTS", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_concurrent_requests: u32,
    /// Most open connections; past it new ones wait to be accepted.
    #[arg(long, env = "ORDER_API_MAX_CONNECTIONS", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_connections: u32,
    /// Seconds one request may take.
    #[arg(long, env = "ORDER_API_REQUEST_TIMEOUT", default_value = "10", value_parser = seconds)]
    pub request_timeout: Duration,
    /// Seconds that the head of a request, and then its body, may take to arrive.
    #[arg(long, env = "ORDER_API_READ_TIMEOUT", default_value = "5", value_parser = seconds)]
    pub read_timeout: Duration,
    /// Seconds between failing readiness and accepting no more, so that no new request is on its way any more.
    #[arg(long, env = "ORDER_API_SHUTDOWN_DELAY", default_value = "5", value_parser = seconds)]
    pub shutdown_delay: Duration,
    /// Seconds that requests under way then have to end, and events to be published.
    #[arg(long, env = "ORDER_API_SHUTDOWN_DEADLINE", default_value = "20", value_parser = seconds)]
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
        let mut config = StoreConfig::new("ringwright-order-api", &self.database_credentials_dir);
        config.database = self.database_name.clone();
        config.ssl_mode = self.database_sslmode;
        config.ca_file = self.database_ca_file.clone();
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

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("give seconds between 0 and 86400".to_owned()),
    }
}

fn config_map(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err("give it as <namespace>/<name>".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_flag_has_help_and_its_environment_variable() {
        let command = Config::command();
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

    #[test]
    fn a_config_map_needs_namespace_and_name() {
        assert!(config_map("shop/shop-ring").is_ok());
        for bad in ["shop-ring", "/x", "x/", "a/b/c"] {
            assert!(config_map(bad).is_err(), "{bad}");
        }
    }
}
