//! The operator's settings, read once at start.

use std::net::SocketAddr;

use clap::{ArgAction, Parser};
use telemetry::LogFormat;

/// Runs Postgres shards for OrderClusters and publishes the ring over them.
#[derive(Debug, Clone, Parser)]
#[command(version)]
pub(crate) struct Config {
    /// Namespace to watch; all namespaces when left out.
    #[arg(long, env = "OPERATOR_WATCH_NAMESPACE")]
    pub(crate) watch_namespace: Option<String>,

    /// Namespace the operator runs in, where its Lease lies.
    #[arg(long, env = "OPERATOR_NAMESPACE", default_value = "default")]
    pub(crate) namespace: String,

    /// Name of the Lease: the same for all processes of one installation, another one for each installation.
    #[arg(long, env = "OPERATOR_LEASE_NAME", default_value = "ringwright-operator")]
    pub(crate) lease_name: String,

    /// Name of this process in the Lease and in events: the pod's name. Two running processes must never share it.
    #[arg(long, env = "OPERATOR_IDENTITY", default_value_t = own_identity())]
    pub(crate) identity: String,

    /// Whether to wait for the Lease before acting. Switch it off only where one process is certain.
    #[arg(long, env = "OPERATOR_LEADER_ELECTION", default_value_t = true, action = ArgAction::Set)]
    pub(crate) leader_election: bool,

    /// Image of the database pods where the OrderCluster names none.
    #[arg(
        long,
        env = "OPERATOR_POSTGRES_IMAGE",
        default_value = concat!("localhost/ringwright/postgres:", env!("CARGO_PKG_VERSION"))
    )]
    pub(crate) postgres_image: String,

    /// Address of /livez, /readyz and /metrics.
    #[arg(long, env = "OPERATOR_TELEMETRY_LISTEN", default_value = "0.0.0.0:9000")]
    pub(crate) telemetry_listen: SocketAddr,

    /// Form of the log: json or text.
    #[arg(long, env = "OPERATOR_LOG_FORMAT", default_value_t = LogFormat::Json)]
    pub(crate) log_format: LogFormat,

    /// What is logged: error, warn, info, debug, trace, or a filter such as info,operator=debug.
    #[arg(long, env = "OPERATOR_LOG_LEVEL", default_value = "info")]
    pub(crate) log_level: String,
}

/// A name for a process outside a pod: the host's, and a random part because two may run there.
fn own_identity() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "operator".to_owned());
    format!("{host}-{:08x}", rand::random::<u32>())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_setting_is_documented_and_has_an_environment_variable() {
        Config::command().debug_assert();
        for arg in Config::command().get_arguments() {
            let env = arg.get_env().map(|env| env.to_string_lossy().into_owned());
            let wanted = format!("OPERATOR_{}", arg.get_id().as_str().to_uppercase());
            assert_eq!(env, Some(wanted));
            assert!(arg.get_help().is_some(), "{} has no help", arg.get_id());
        }
    }
}
