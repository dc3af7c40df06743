//! What a database's refusal means for the one who asked.

use ring::{Generation, Ordinal, Range};
use serde::Deserialize;
use sqlx::postgres::PgDatabaseError;

use crate::error::StoreError;

/// Why a transaction's body ended without success.
pub(crate) enum Refusal {
    /// The database said no.
    Sql(sqlx::Error),
    /// A rule of the shop said no.
    Shop(StoreError),
    /// The range of this row is not here, though no write found out: an absent row proves nothing by itself.
    NotHere(Redirect),
    /// The row is here, but cannot be read.
    BadRow(String),
    /// Something changed in between: do the transaction again.
    Again(&'static str),
}

impl From<sqlx::Error> for Refusal {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Shop(error)
    }
}

/// Where a range is, as its former or future owner says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Redirect {
    /// The range and its generation; `None` where the shard has no row for the position.
    pub(crate) range: Option<(Range, Generation)>,
    pub(crate) target: Option<Ordinal>,
    pub(crate) hosts: Vec<String>,
}

/// DETAIL of SR001.
#[derive(Deserialize)]
struct Detail {
    lo: Option<u64>,
    hi: Option<u64>,
    generation: Option<i64>,
    target: Option<u16>,
    host: Option<String>,
}

impl Redirect {
    pub(crate) fn parse(detail: &str) -> Option<Self> {
        let detail: Detail = serde_json::from_str(detail).ok()?;
        let range = match (detail.lo, detail.hi, detail.generation) {
            (Some(lo), Some(hi), Some(generation)) => Some((Range { lo, hi }, Generation(generation))),
            _ => None,
        };
        Some(Self {
            range,
            target: detail.target.map(Ordinal),
            hosts: split_hosts(detail.host.as_deref()),
        })
    }
}

pub(crate) fn split_hosts(hosts: Option<&str>) -> Vec<String> {
    hosts
        .unwrap_or_default()
        .split(',')
        .filter(|host| !host.is_empty())
        .map(str::to_owned)
        .collect()
}

/// What to do about an error of the database or the connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// SR001.
    NotHere(Redirect),
    /// SR002.
    Frozen,
    /// The connection is gone or the server is going: look again who is master.
    Lost,
    /// The member takes no writes (any more).
    NotMaster,
    /// Another transaction was in the way.
    Busy,
    /// The server has no room for another connection.
    Full,
    /// The statement is wrong or a constraint refused it.
    Refused,
}

impl Fault {
    pub(crate) fn of(error: &sqlx::Error) -> Self {
        let Some(database) = error.as_database_error() else {
            return match error {
                sqlx::Error::RowNotFound
                | sqlx::Error::ColumnNotFound(_)
                | sqlx::Error::ColumnDecode { .. }
                | sqlx::Error::ColumnIndexOutOfBounds { .. }
                | sqlx::Error::Decode(_)
                | sqlx::Error::Encode(_)
                | sqlx::Error::TypeNotFound { .. }
                | sqlx::Error::Configuration(_) => Self::Refused,
                _ => Self::Lost,
            };
        };
        let code = database.code();
        match code.as_deref().unwrap_or_default() {
            "SR001" => Self::NotHere(
                database
                    .try_downcast_ref::<PgDatabaseError>()
                    .and_then(PgDatabaseError::detail)
                    .and_then(Redirect::parse)
                    .unwrap_or_default(),
            ),
            "SR002" => Self::Frozen,
            "25006" => Self::NotMaster,
            // Deadlock, serialization failure, lock timeout.
            "40P01" | "40001" | "55P03" => Self::Busy,
            "53300" => Self::Full,
            code if code.starts_with("08") || code.starts_with("57P") => Self::Lost,
            _ => Self::Refused,
        }
    }

    /// Whether the connection can be used again after a rollback.
    pub(crate) fn keeps_connection(&self) -> bool {
        !matches!(self, Self::Lost | Self::Full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_detail_of_a_redirect_is_read() {
        let full = r#"{"lo" : 5, "hi" : 4294967296, "generation" : 3, "target" : 7, "host" : "a:1,b:2"}"#;
        let redirect = Redirect::parse(full).unwrap();
        assert_eq!(redirect.range, Some((Range { lo: 5, hi: 1 << 32 }, Generation(3))));
        assert_eq!(
            (redirect.target, redirect.hosts),
            (Some(Ordinal(7)), vec!["a:1".to_owned(), "b:2".to_owned()])
        );
        let none = r#"{"lo" : null, "hi" : null, "generation" : null, "target" : null, "host" : null}"#;
        assert_eq!(Redirect::parse(none), Some(Redirect::default()));
        assert_eq!(Redirect::parse("not json"), None);
    }
}
