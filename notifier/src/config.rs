//! The program's configuration: flags, each with an environment variable of the same name. Secrets come from files only.

use std::{num::NonZeroU32, path::PathBuf, time::Duration};

use clap::Parser;
use reqwest::Url;
use settings::{ProgramSettings, seconds};
use store::StoreConfig;

use crate::{email::Sender, sms::TwilioConfig};

/// What the names of its environment variables begin with.
pub const PREFIX: &str = "NOTIFIER";

/// The notifier of Ringwright: tells customers by email and text message what became of their orders.
#[derive(Clone, Debug, Parser)]
#[command(version, about)]
pub struct Config {
    /// What it is told like the order API.
    #[command(flatten)]
    pub program: ProgramSettings,

    /// Events worked on at the same time.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub prefetch: u16,

    /// File with the URL of the mail server: smtps://user:password@host:465, smtp://user:password@host:587?tls=required,
    /// or smtp://host:25 without a user.
    #[arg(long, default_value = "/etc/ringwright/smtp/url")]
    pub smtp_url_file: PathBuf,
    /// Sender of every email: Name <address@domain>, or an address.
    #[arg(long)]
    pub mail_from: Sender,
    /// Most emails a second.
    #[arg(long, default_value = "50")]
    pub mail_rate: NonZeroU32,

    /// Address of the SMS provider (Twilio's Messages API), without the path.
    #[arg(long)]
    pub sms_base_url: Url,
    /// File with the provider's account id.
    #[arg(long, default_value = "/etc/ringwright/sms/account")]
    pub sms_account_file: PathBuf,
    /// File with the account's token.
    #[arg(long, default_value = "/etc/ringwright/sms/token")]
    pub sms_token_file: PathBuf,
    /// Sender of every text message: a number in E.164 form, or a name.
    #[arg(long)]
    pub sms_from: String,
    /// Most text messages a second.
    #[arg(long, default_value = "20")]
    pub sms_rate: NonZeroU32,

    /// Directory with message templates that replace the built-in ones of the same name.
    #[arg(long)]
    pub templates_dir: Option<PathBuf>,

    /// Hours after which what could not be sent is given up.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=24 * 30))]
    pub give_up_hours: u32,
    /// Seconds between two looks for messages that were left behind.
    #[arg(long, default_value = "30", value_parser = seconds(0.1))]
    pub sweep_interval: Duration,
    /// Seconds after which a queued message that nobody touched counts as left behind. Longer than the longest rest
    /// between two tries, 5 minutes.
    #[arg(long, default_value = "900", value_parser = seconds(0.1))]
    pub overdue_after: Duration,
    /// Seconds that events in hand have to end once the program is told to stop. What is cut off while it is handed over is
    /// never known to have been sent; a mail server takes up to 40 s for a letter.
    #[arg(long, default_value = "60", value_parser = seconds(0.1))]
    pub shutdown_deadline: Duration,
}

impl Config {
    /// The store's part.
    #[must_use]
    pub fn store(&self) -> StoreConfig {
        self.program.store("ringwright-notifier")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_has_help_and_its_environment_variable() {
        let command = settings::command::<Config>(PREFIX);
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
