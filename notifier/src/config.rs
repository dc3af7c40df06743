//! The program's configuration: flags, each with an environment variable of the same name. Secrets come from files only.

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration};

use clap::Parser;
use reqwest::Url;
use store::{StoreConfig, config::PgSslMode};
use telemetry::LogFormat;

use crate::{email::Sender, sms::TwilioConfig};

/// The notifier of Ringwright: tells customers by email and text message what became of their orders.
#[derive(Clone, Debug, Parser)]
#[command(version, about)]
pub struct Config {
    /// Address of /metrics, /livez and /readyz.
    #[arg(long, env = "NOTIFIER_TELEMETRY_LISTEN", default_value = "0.0.0.0:9000")]
    pub telemetry_listen: SocketAddr,
    /// Form of the log: json or text.
    #[arg(long, env = "NOTIFIER_LOG_FORMAT", default_value = "json")]
    pub log_format: LogFormat,
    /// What is logged: a level or a filter such as `info,notifier=debug`.
    #[arg(long, env = "NOTIFIER_LOG_LEVEL", default_value = "info")]
    pub log_level: String,

    /// Directory with the mounted ring: ring.json, digest and tokens.
    #[arg(long, env = "NOTIFIER_RING_DIR", default_value = "/etc/ringwright/ring")]
    pub ring_dir: PathBuf,
    /// The ring's ConfigMap as <namespace>/<name>, watched beside the directory; without it the directory alone is read.
    #[arg(long, env = "NOTIFIER_RING_CONFIGMAP", value_parser = config_map)]
    pub ring_configmap: Option<(String, String)>,
    /// How many seconds to wait for a first usable ring before giving up.
    #[arg(long, env = "NOTIFIER_RING_TIMEOUT", default_value = "60", value_parser = seconds)]
    pub ring_timeout: Duration,

    /// Directory with the files username and password of the shards' role.
    #[arg(
        long,
        env = "NOTIFIER_DATABASE_CREDENTIALS_DIR",
        default_value = "/etc/ringwright/database"
    )]
    pub database_credentials_dir: PathBuf,
    /// Name of the database on every shard.
    #[arg(long, env = "NOTIFIER_DATABASE_NAME", default_value = "orders")]
    pub database_name: String,
    /// TLS towards the shards: disable, allow, prefer, require, verify-ca or verify-full.
    #[arg(long, env = "NOTIFIER_DATABASE_SSLMODE", default_value = "prefer")]
    pub database_sslmode: PgSslMode,
    /// PEM file with the authorities that verify-ca and verify-full trust.
    #[arg(long, env = "NOTIFIER_DATABASE_CA_FILE")]
    pub database_ca_file: Option<PathBuf>,

    /// File with the URL of RabbitMQ.
    #[arg(long, env = "NOTIFIER_AMQP_URL_FILE", default_value = "/etc/ringwright/amqp/url")]
    pub amqp_url_file: PathBuf,
    /// Events worked on at the same time.
    #[arg(long, env = "NOTIFIER_PREFETCH", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub prefetch: u16,

    /// File with the URL of the mail server: smtps://user:password@host:465, smtp://user:password@host:587?tls=required,
    /// or smtp://host:25 without a user.
    #[arg(long, env = "NOTIFIER_SMTP_URL_FILE", default_value = "/etc/ringwright/smtp/url")]
    pub smtp_url_file: PathBuf,
    /// Sender of every email: Name <address@domain>, or an address.
    #[arg(long, env = "NOTIFIER_MAIL_FROM")]
    pub mail_from: Sender,
    /// Most emails a second.
    #[arg(long, env = "NOTIFIER_MAIL_RATE", default_value = "50")]
    pub mail_rate: NonZeroU32,

    /// Address of the SMS provider (Twilio's Messages API), without the path.
    #[arg(long, env = "NOTIFIER_SMS_BASE_URL")]
    pub sms_base_url: Url,
    /// File with the provider's account id.
    #[arg(
        long,
        env = "NOTIFIER_SMS_ACCOUNT_FILE",
        default_value = "/etc/ringwright/sms/account"
    )]
    pub sms_account_file: PathBuf,
    /// File with the account's token.
    #[arg(long, env = "NOTIFIER_SMS_TOKEN_FILE", default_value = "/etc/ringwright/sms/token")]
    pub sms_token_file: PathBuf,
    /// Sender of every text message: a number in E.164 form, or a name.
    #[arg(long, env = "NOTIFIER_SMS_FROM")]
    pub sms_from: String,
    /// Most text messages a second.
    #[arg(long, env = "NOTIFIER_SMS_RATE", default_value = "20")]
    pub sms_rate: NonZeroU32,

    /// Directory with message templates that replace the built-in ones of the same name.
    #[arg(long, env = "NOTIFIER_TEMPLATES_DIR")]
    pub templates_dir: Option<PathBuf>,

    /// Hours after which what could not be sent is given up.
    #[arg(long, env = "NOTIFIER_GIVE_UP_HOURS", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=24 * 30))]
    pub give_up_hours: u32,
    /// Seconds between two looks for messages that were left behind.
    #[arg(long, env = "NOTIFIER_SWEEP_INTERVAL", default_value = "30", value_parser = seconds)]
    pub sweep_interval: Duration,
    /// Seconds after which a queued message that nobody touched counts as left behind. Longer than the longest rest
    /// between two tries, 5 minutes.
    #[arg(long, env = "NOTIFIER_OVERDUE_AFTER", default_value = "900", value_parser = seconds)]
    pub overdue_after: Duration,
    /// Seconds that events in hand have to end once the program is told to stop.
    #[arg(long, env = "NOTIFIER_SHUTDOWN_DEADLINE", default_value = "25", value_parser = seconds)]
    pub shutdown_deadline: Duration,
}

impl Config {
    /// The store's part.
    #[must_use]
    pub fn store(&self) -> StoreConfig {
        let mut config = StoreConfig::new("ringwright-notifier", &self.database_credentials_dir);
        config.database = self.database_name.clone();
        config.ssl_mode = self.database_sslmode;
        config.ca_file = self.database_ca_file.clone();
        config
    }

    /// The SMS provider's part.
    #[must_use]
    pub fn twilio(&self) -> TwilioConfig {
        TwilioConfig {
            base_url: self.sms_base_url.clone(),
            account_file: self.sms_account_file.clone(),
            token_file: self.sms_token_file.clone(),
            from: self.sms_from.clone(),
        }
    }

    /// When what could not be sent is given up.
    #[must_use]
    pub fn give_up_after(&self) -> Duration {
        Duration::from_secs(u64::from(self.give_up_hours) * 3600)
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=86_400.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("give seconds between 0.1 and 86400".to_owned()),
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
        let ours = |id: &str| !matches!(id, "help" | "version");
        for argument in command
            .get_arguments()
            .filter(|argument| ours(argument.get_id().as_str()))
        {
            let flag = argument.get_long().expect("every argument is a flag");
            let expected = format!("NOTIFIER_{}", flag.to_uppercase().replace('-', "_"));
            assert_eq!(
                argument.get_env().and_then(|env| env.to_str()),
                Some(expected.as_str()),
                "--{flag}"
            );
            assert!(argument.get_help().is_some(), "--{flag} lacks help");
        }
    }

    #[test]
    fn only_sender_and_provider_have_no_default() {
        let needed = [
            "--mail-from",
            "Shop <orders@shop.example>",
            "--sms-base-url",
            "https://sms.example",
            "--sms-from",
            "Shop",
        ];
        let config = Config::try_parse_from(["notifier"].into_iter().chain(needed)).unwrap();
        assert_eq!(config.give_up_after(), Duration::from_secs(24 * 3600));
        assert!(Config::try_parse_from(["notifier", "--mail-from", "nobody"]).is_err());
    }
}
