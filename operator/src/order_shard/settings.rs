//! What the server made of the parameters asked for. Pure.
//!
//! Patroni takes parameters as advice: a name it does not know is left out of the configuration, a number beyond the limits
//! becomes the nearest that is allowed, and its log is the only one to hear of it. So what is in force is compared with
//! what was asked for.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use store::admin::{Setting, SettingKind};

use super::members::Member;
use super::shard::Shard;

/// A server that was found to agree is asked again after this time: somebody may have changed a setting by hand.
const ASK_AGAIN: Duration = Duration::from_secs(600);

/// That a master had in force what a specification asks for.
#[derive(Debug, Clone)]
pub(crate) struct Agreement {
    master_uid: String,
    timeline: Option<i64>,
    asked: BTreeMap<String, String>,
    at: Instant,
}

impl Agreement {
    /// As of now.
    pub(crate) fn of(master: &Member, shard: &Shard) -> Self {
        Self {
            master_uid: master.uid.clone(),
            timeline: master.timeline(),
            asked: shard.asked.clone(),
            at: Instant::now(),
        }
    }

    /// Nothing has happened between this one and `now` that would ask for another look.
    pub(crate) fn still_holds(&self, now: &Self) -> bool {
        self.master_uid == now.master_uid
            && self.timeline == now.timeline
            && self.asked == now.asked
            && now.at.duration_since(self.at) < ASK_AGAIN
    }
}

/// A parameter that is not in force as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// PostgreSQL has no setting of that name.
    #[error("{name} is no setting of PostgreSQL: check its spelling")]
    Unknown { name: String },
    /// The server has another value.
    #[error("{name} is asked to be {asked}, and the server has {has}{hint}")]
    Differs {
        name: String,
        asked: String,
        /// The value in force, with its unit.
        has: String,
        /// What it takes, if that is known.
        hint: String,
    },
}

/// The sentence of a condition's message.
pub(crate) fn message(refused: &[Refused]) -> String {
    let all: Vec<String> = refused.iter().map(|one| format!("parameters.{one}")).collect();
    format!("in spec.postgres, {}", all.join("; "))
}

/// Names that PostgreSQL does not know, which can be told before any server is asked.
pub(crate) fn unknown(asked: &BTreeMap<String, String>) -> Vec<Refused> {
    asked
        .keys()
        .filter(|name| !name.contains('.') && !crds::is_postgres_setting(name))
        .map(|name| Refused::Unknown { name: name.clone() })
        .collect()
}

/// Compares what was asked for with what is in force. What waits for a restart is in force later and is no refusal.
pub(crate) fn refused(asked: &BTreeMap<String, String>, server: &[Setting]) -> Vec<Refused> {
    let server: BTreeMap<&str, &Setting> = server.iter().map(|setting| (setting.name.as_str(), setting)).collect();
    asked
        .iter()
        .filter_map(|(name, value)| match server.get(name.as_str()) {
            // The server holds settings of extensions that are not loaded without saying so.
            None if name.contains('.') => None,
            None => Some(Refused::Unknown { name: name.clone() }),
            Some(setting) if setting.pending_restart || is_the_sessions(setting) || agrees(value, setting) => None,
            Some(setting) => Some(Refused::Differs {
                name: name.clone(),
                asked: value.clone(),
                has: in_force(setting),
                hint: hint(setting),
            }),
        })
        .collect()
}

/// Something narrower than the configuration decided the value that this session sees, or the server computed it from a
/// value that stands for "choose yourself".
fn is_the_sessions(setting: &Setting) -> bool {
    matches!(
        setting.source.as_str(),
        "client" | "session" | "database" | "user" | "database user" | "override"
    )
}

fn agrees(asked: &str, setting: &Setting) -> bool {
    let asked = asked.trim();
    match setting.kind {
        SettingKind::Switch => switch(asked).is_some_and(|on| Some(on) == switch(&setting.value)),
        SettingKind::Integer => {
            let value = setting.value.parse::<f64>().ok();
            // PostgreSQL rounds to a whole number of units.
            number(asked, setting.unit.as_deref()).map(f64::round_ties_even) == value && value.is_some()
        }
        SettingKind::Real => match (number(asked, setting.unit.as_deref()), setting.value.parse::<f64>()) {
            (Some(asked), Ok(value)) => (asked - value).abs() <= 1e-6 * asked.abs().max(value.abs()),
            _ => false,
        },
        // A word may be a switch as well, and `on` is then short for the word in force (`pglz`).
        SettingKind::Word => {
            let off = switch(&setting.value) == Some(false);
            asked.eq_ignore_ascii_case(&setting.value) || switch(asked).is_some_and(|on| on != off)
        }
        // The server may write a text in full (`english` is `pg_catalog.english`, `iso` is `ISO, MDY`).
        SettingKind::Text => {
            let (asked, value) = (plain(asked), plain(&setting.value));
            asked == value || (!asked.is_empty() && value.contains(&asked))
        }
    }
}

/// Every way in which PostgreSQL lets a switch be written; prefixes of the words count.
fn switch(text: &str) -> Option<bool> {
    let text = text.to_ascii_lowercase();
    let begins = |word: &str, least: usize| text.len() >= least && word.starts_with(&text);
    if begins("true", 1) || begins("yes", 1) || text == "on" || text == "1" {
        Some(true)
    } else if begins("false", 1) || begins("no", 1) || begins("off", 2) || text == "0" {
        Some(false)
    } else {
        None
    }
}

/// A number with or without a unit, in the unit of the setting.
fn number(text: &str, base: Option<&str>) -> Option<f64> {
    let text = text.trim();
    if let Some(hexadecimal) = text.strip_prefix("0x") {
        return u32::from_str_radix(hexadecimal, 16).ok().map(f64::from);
    }
    let end = text.find(|c: char| !matches!(c, '0'..='9' | '.' | '-' | '+' | 'e' | 'E'));
    let (digits, unit) = text.split_at(end.unwrap_or(text.len()));
    let value: f64 = digits.trim().parse().ok()?;
    match (unit.trim(), base) {
        ("", _) => Some(value),
        (unit, Some(base)) => {
            let (from, to) = (measure(unit)?, measure(base)?);
            (from.0 == to.0).then(|| value * from.1 / to.1)
        }
        _ => None,
    }
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quantity {
    Memory,
    Time,
}

/// A unit, perhaps with a number before it (`8kB`), in bytes or microseconds. Case matters, as it does to PostgreSQL.
fn measure(unit: &str) -> Option<(Quantity, f64)> {
    let (count, name) = unit.split_at(unit.find(|c: char| !c.is_ascii_digit())?);
    let count: f64 = if count.is_empty() { 1.0 } else { count.parse().ok()? };
    let (quantity, size) = match name {
        "B" => (Quantity::Memory, 1.0),
        "kB" => (Quantity::Memory, 1024.0),
        "MB" => (Quantity::Memory, 1_048_576.0),
        "GB" => (Quantity::Memory, 1_073_741_824.0),
        "TB" => (Quantity::Memory, 1_099_511_627_776.0),
        "us" => (Quantity::Time, 1.0),
        "ms" => (Quantity::Time, 1e3),
        "s" => (Quantity::Time, 1e6),
        "min" => (Quantity::Time, 60e6),
        "h" => (Quantity::Time, 3600e6),
        "d" => (Quantity::Time, 86_400e6),
        _ => return None,
    };
    Some((quantity, count * size))
}

fn plain(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_whitespace() && !matches!(c, '"' | '\''))
        .flat_map(char::to_lowercase)
        .collect()
}

fn in_force(setting: &Setting) -> String {
    match (&setting.unit, setting.value.is_empty()) {
        (_, true) => "nothing".to_owned(),
        (Some(unit), _) if unit.starts_with(|c: char| c.is_ascii_digit()) => format!("{} times {unit}", setting.value),
        (Some(unit), _) => format!("{}{unit}", setting.value),
        (None, _) => setting.value.clone(),
    }
}

fn hint(setting: &Setting) -> String {
    match (&setting.limits, setting.kind) {
        (Some((least, greatest)), SettingKind::Integer | SettingKind::Real) => {
            let unit = setting
                .unit
                .as_deref()
                .map_or_else(String::new, |unit| format!(" in units of {unit}"));
            format!(" (it takes {least} to {greatest}{unit})")
        }
        (_, SettingKind::Word) => format!(" (it takes {})", setting.words.join(", ")),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(name: &str, kind: SettingKind, value: &str, unit: Option<&str>) -> Setting {
        Setting {
            name: name.to_owned(),
            value: value.to_owned(),
            unit: unit.map(str::to_owned),
            kind,
            limits: matches!(kind, SettingKind::Integer | SettingKind::Real)
                .then(|| ("64".to_owned(), "2147483647".to_owned())),
            words: Vec::new(),
            source: "configuration file".to_owned(),
            pending_restart: false,
            internal: false,
        }
    }

    fn asked(name: &str, value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(name.to_owned(), value.to_owned())])
    }

    #[test]
    fn values_agree_whatever_way_they_are_written() {
        use SettingKind::{Integer, Real, Switch, Text, Word};
        let cases = [
            ("64MB", Integer, "65536", Some("kB"), true),
            ("0.5GB", Integer, "65536", Some("8kB"), true),
            ("65536", Integer, "65536", Some("kB"), true),
            ("64mb", Integer, "65536", Some("kB"), false),
            ("32kB", Integer, "64", Some("kB"), false),
            ("5min", Integer, "300", Some("s"), true),
            ("1.5min", Integer, "90000", Some("ms"), true),
            ("-1", Integer, "-1", Some("ms"), true),
            ("lots", Integer, "1", None, false),
            ("0x10", Integer, "16", None, true),
            ("0.90", Real, "0.9", None, true),
            ("2ms", Real, "2", Some("ms"), true),
            ("1.2", Real, "1.1", None, false),
            ("true", Switch, "on", None, true),
            ("OF", Switch, "off", None, true),
            ("maybe", Switch, "off", None, false),
            ("english", Text, "pg_catalog.english", None, true),
            ("german", Text, "pg_catalog.english", None, false),
            ("ISO,DMY", Text, "ISO, DMY", None, true),
            ("", Text, "x", None, false),
            ("on", Word, "pglz", None, true),
            ("on", Word, "off", None, false),
            ("lz5", Word, "off", None, false),
        ];
        for (value, kind, has, unit, agree) in cases {
            let server = [setting("a", kind, has, unit)];
            assert_eq!(
                refused(&asked("a", value), &server).is_empty(),
                agree,
                "{value} against {has} {unit:?}"
            );
        }
    }

    #[test]
    fn a_word_that_is_known_must_be_the_one_in_force() {
        let mut compression = setting("wal_compression", SettingKind::Word, "off", None);
        compression.words = ["pglz", "lz4", "on", "off"].map(str::to_owned).into();
        let server = [compression];
        let refused = refused(&asked("wal_compression", "lz4"), &server);
        assert_eq!(
            message(&refused),
            "in spec.postgres, parameters.wal_compression is asked to be lz4, and the server has off (it takes pglz, lz4, \
             on, off)"
        );
    }

    #[test]
    fn a_number_that_was_clamped_is_told_with_what_is_allowed() {
        let server = [setting("work_mem", SettingKind::Integer, "64", Some("kB"))];
        let refused = refused(&asked("work_mem", "1kB"), &server);
        assert_eq!(
            message(&refused),
            "in spec.postgres, parameters.work_mem is asked to be 1kB, and the server has 64kB (it takes 64 to 2147483647 \
             in units of kB)"
        );
    }

    #[test]
    fn names_that_the_server_does_not_have_are_told_and_those_of_extensions_left_alone() {
        let misspelt = asked("wokr_mem", "64MB");
        let told = vec![Refused::Unknown {
            name: "wokr_mem".to_owned(),
        }];
        assert_eq!(unknown(&misspelt), told);
        assert_eq!(refused(&misspelt, &[]), told);
        assert_eq!(unknown(&asked("auto_explain.log_min_duration", "1s")), []);
        assert_eq!(refused(&asked("auto_explain.log_min_duration", "1s"), &[]), []);
    }

    #[test]
    fn what_waits_for_a_restart_or_is_the_sessions_own_is_no_refusal() {
        let mut buffers = setting("shared_buffers", SettingKind::Integer, "16384", Some("8kB"));
        buffers.pending_restart = true;
        assert_eq!(refused(&asked("shared_buffers", "1GB"), &[buffers]), []);
        let mut digits = setting("extra_float_digits", SettingKind::Integer, "2", None);
        digits.source = "client".to_owned();
        assert_eq!(refused(&asked("extra_float_digits", "1"), &[digits]), []);
    }

    /// `crds` lists what PostgreSQL 17 knows; the list is right if it is the server's own.
    #[tokio::test]
    async fn the_names_that_a_specification_may_give_are_those_of_postgresql_17() {
        use sqlx::Connection as _;
        let url = std::env::var("RINGWRIGHT_TEST_POSTGRES").expect(
            "RINGWRIGHT_TEST_POSTGRES must name a superuser's URL on a throw-away PostgreSQL 17 (`make servers` starts one)",
        );
        let mut conn = sqlx::PgConnection::connect(&url).await.expect("a connection");
        let server = store::admin::read_settings(&mut conn).await.expect("settings");
        for setting in server.iter().filter(|s| !s.internal && !s.name.contains('.')) {
            assert!(crds::is_postgres_setting(&setting.name), "{} is missing", setting.name);
        }
        for name in crds::FREE_PARAMETERS {
            // Debian adds it to PostgreSQL.
            let anywhere = *name != "extension_destdir";
            assert!(
                !anywhere || server.iter().any(|s| s.name == *name),
                "{name} is not a setting"
            );
        }
    }
}
