//! What both programs are told alike. In Kubernetes the files are where the chart mounts them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use store::StoreConfig;
use store::config::PgSslMode;
use telemetry::LogFormat;

use crate::seconds;

/// Where a program logs, where the ring and the shards are, and where RabbitMQ.
#[derive(Args, Clone, Debug)]
pub struct ProgramSettings {
    /// Address of /metrics, /livez and /readyz.
    #[arg(long, default_value = "0.0.0.0:9000")]
    pub telemetry_listen: SocketAddr,
    /// Form of the log: json or text.
    #[arg(long, default_value = "json")]
    pub log_format: LogFormat,
    /// What is logged: a level or a filter such as `info,store=debug`.
    #[arg(long, default_value = "info")]
    pub log_level: String,

    /// Directory with the mounted ring: ring.json, digest and tokens.
    #[arg(long, default_value = "/etc/ringwright/ring")]
    pub ring_dir: PathBuf,
    /// The ring's ConfigMap as <namespace>/<name>, watched beside the directory; without it the directory alone is read.
    #[arg(long, value_parser = config_map)]
    pub ring_configmap: Option<(String, String)>,
    /// How many seconds to wait for a first usable ring before giving up.
    #[arg(long, default_value = "60", value_parser = seconds(0.0))]
    pub ring_timeout: Duration,

    /// Directory with the files username and password of the shards' role.
    #[arg(long, default_value = "/etc/ringwright/database")]
    pub database_credentials_dir: PathBuf,
    /// Name of the database on every shard.
    #[arg(long, default_value = "orders")]
    pub database_name: String,
    /// TLS towards the shards: disable, allow, prefer, require, verify-ca or verify-full.
    #[arg(long, default_value = "prefer")]
    pub database_sslmode: PgSslMode,
    /// PEM file with the authorities that verify-ca and verify-full trust.
    #[arg(long)]
    pub database_ca_file: Option<PathBuf>,

    /// File with the URL of RabbitMQ.
    #[arg(long, default_value = "/etc/ringwright/amqp/url")]
    pub amqp_url_file: PathBuf,
}

impl ProgramSettings {
    /// How the shards are reached by the program called `application_name`.
    #[must_use]
    pub fn store(&self, application_name: &str) -> StoreConfig {
        let mut config = StoreConfig::new(application_name, &self.database_credentials_dir);
        config.database = self.database_name.clone();
        config.ssl_mode = self.database_sslmode;
        config.ca_file = self.database_ca_file.clone();
        config
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
    use super::*;

    #[test]
    fn a_config_map_needs_namespace_and_name() {
        assert!(config_map("shop/shop-ring").is_ok());
        for bad in ["shop-ring", "/x", "x/", "a/b/c"] {
            assert!(config_map(bad).is_err(), "{bad}");
        }
    }
}
