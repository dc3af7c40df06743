//! The server's settings as they are in force.

use sqlx::{PgConnection, Row};

use super::{AdminError, failed};

/// One row of `pg_settings`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// In lower case, as a specification names it.
    pub name: String,
    /// The value in force, in `unit`.
    pub value: String,
    /// What a bare number counts: `kB`, `8kB`, `ms`, ... `None` for what has no unit.
    pub unit: Option<String>,
    /// What values it takes.
    pub kind: SettingKind,
    /// The least and the greatest number, in `unit`.
    pub limits: Option<(String, String)>,
    /// The words an enumeration takes; hidden synonyms are not among them.
    pub words: Vec<String>,
    /// Where the value comes from: `configuration file`, `command line`, `default`, `client`, ...
    pub source: String,
    /// The configuration has another value, which waits for a restart.
    pub pending_restart: bool,
    /// Nobody can set it: it tells how the server was built or started.
    pub internal: bool,
}

/// What values a setting takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingKind {
    /// `on` or `off`.
    Switch,
    /// A whole number.
    Integer,
    /// A number.
    Real,
    /// One of some words.
    Word,
    /// Anything.
    Text,
}

const READ: &str = "SELECT lower(name) AS name, coalesce(setting, '') AS value, unit, vartype, min_val, max_val,
           coalesce(enumvals, '{}') AS words, source, pending_restart, context = 'internal' AS internal
      FROM pg_settings";

/// Every setting of the server, as this session sees it.
pub async fn read_settings(conn: &mut PgConnection) -> Result<Vec<Setting>, AdminError> {
    let operation = || "read the server's settings".to_owned();
    let rows = sqlx::query(READ).fetch_all(conn).await.map_err(failed(operation))?;
    rows.iter()
        .map(|row| {
            let kind: &str = row.try_get("vartype")?;
            let (least, greatest): (Option<String>, Option<String>) =
                (row.try_get("min_val")?, row.try_get("max_val")?);
            Ok(Setting {
                name: row.try_get("name")?,
                value: row.try_get("value")?,
                unit: row.try_get("unit")?,
                kind: match kind {
                    "bool" => SettingKind::Switch,
                    "integer" => SettingKind::Integer,
                    "real" => SettingKind::Real,
                    "enum" => SettingKind::Word,
                    _ => SettingKind::Text,
                },
                limits: least.zip(greatest),
                words: row.try_get("words")?,
                source: row.try_get("source")?,
                pending_restart: row.try_get("pending_restart")?,
                internal: row.try_get("internal")?,
            })
        })
        .collect::<Result<_, sqlx::Error>>()
        .map_err(failed(operation))
}
