//! How the order API and the notifier are configured: flags, each with an environment variable of the same name, and what
//! both are told alike. Secrets come from files only.

mod program;

use std::time::Duration;

use clap::{Command, CommandFactory, FromArgMatches};

pub use program::ProgramSettings;

/// Reads the settings of this process; ends it with a message when they make no sense, or when help was asked for.
///
/// `prefix` begins the name of every environment variable, such as `NOTIFIER`.
#[must_use]
pub fn parse<T: CommandFactory + FromArgMatches>(prefix: &str) -> T {
    let mut command = command::<T>(prefix);
    let matches = command.get_matches_mut();
    T::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut command).exit())
}

/// The command line, where `--log-level` is `<PREFIX>_LOG_LEVEL` too, and so on.
#[must_use]
pub fn command<T: CommandFactory>(prefix: &str) -> Command {
    T::command().mut_args(|argument| match argument.get_long() {
        Some(flag) => {
            let variable = format!("{prefix}_{}", flag.to_uppercase().replace('-', "_"));
            argument.env(variable)
        }
        None => argument,
    })
}

/// Parses seconds, fractions allowed, between `least` and a day.
pub fn seconds(least: f64) -> impl Fn(&str) -> Result<Duration, String> + Clone + Send + Sync + 'static {
    move |text: &str| match text.parse::<f64>() {
        Ok(seconds) if (least..=86_400.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!("give seconds between {least} and 86400")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    /// An example.
    #[derive(Parser)]
    #[command(about)]
    struct Example {
        #[command(flatten)]
        program: ProgramSettings,
        /// A flag of its own.
        #[arg(long, default_value = "1")]
        rest_between_tries: u32,
    }

    #[test]
    fn every_flag_has_its_environment_variable() {
        let command = command::<Example>("EXAMPLE");
        command.clone().debug_assert();
        let variable = |id: &str| {
            let argument = command.get_arguments().find(|argument| argument.get_id() == id);
            argument
                .and_then(|argument| argument.get_env())
                .and_then(|variable| variable.to_str())
        };
        assert_eq!(variable("rest_between_tries"), Some("EXAMPLE_REST_BETWEEN_TRIES"));
        assert_eq!(variable("ring_configmap"), Some("EXAMPLE_RING_CONFIGMAP"));
        assert_eq!(
            command.get_about().map(ToString::to_string).as_deref(),
            Some("An example")
        );
    }

    #[test]
    fn what_is_not_given_has_its_default() {
        let matches = command::<Example>("EXAMPLE").try_get_matches_from(["example"]).unwrap();
        let example = Example::from_arg_matches(&matches).unwrap();
        assert_eq!(example.rest_between_tries, 1);
        assert_eq!(example.program.store("example").database, "orders");
    }

    #[test]
    fn seconds_have_a_least_and_a_most() {
        assert_eq!(seconds(0.1)("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(seconds(0.0)("0"), Ok(Duration::ZERO));
        for bad in ["0", "-1", "86401", "NaN", "soon"] {
            assert!(seconds(0.1)(bad).is_err(), "{bad}");
        }
    }
}
