//! What a database's refusal means for the one who asked.

use ring::{Generation, Ordinal, Range};
use serde::Deserialize;
use sqlx::postgres::PgDatabaseError;
use uuid::Uuid;

use crate::admin::{RangeState, parse_state};
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
    /// What the range is at the shard that says so.
    pub(crate) state: Option<RangeState>,
}

/// A freeze as SR002 tells it; an expired one may be ended by anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Freeze {
    pub(crate) range: Range,
    pub(crate) move_id: Uuid,
    pub(crate) attempt: i64,
    pub(crate) expired: bool,
}

/// DETAIL of SR002.
#[derive(Deserialize)]
struct FreezeDetail {
    lo: u64,
    hi: u64,
    move_id: Option<Uuid>,
    attempt: i64,
    expired: bool,
}

impl Freeze {
    /// `None` for a freeze that no move made.
    pub(crate) fn parse(detail: &str) -> Option<Self> {
        let detail: FreezeDetail = serde_json::from_str(detail).ok()?;
        Some(Self {
            range: Range {
                lo: detail.lo,
                hi: detail.hi,
            },
            move_id: detail.move_id?,
            attempt: detail.attempt,
            expired: detail.expired,
        })
    }
}

/// DETAIL of SR001.
#[derive(Deserialize)]
struct Detail {
    lo: Option<u64>,
    hi: Option<u64>,
    generation: Option<i64>,
    target: Option<u16>,
    host: Option<String>,
    state: Option<String>,
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
            state: detail.state.as_deref().and_then(parse_state),
        })
    }

    /// Source and target of the move that `from` tells of, if it tells of one.
    pub(crate) fn ends(&self, from: Ordinal) -> Option<(Ordinal, Ordinal)> {
        match (self.state?, self.target?) {
            (RangeState::Moved | RangeState::Cleaned, target) => Some((from, target)),
            (RangeState::Importing, source) => Some((source, from)),
            (RangeState::Owned | RangeState::Frozen, _) => None,
        }
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
    Frozen(Option<Freeze>),
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
        let detail = || {
            database
                .try_downcast_ref::<PgDatabaseError>()
                .and_then(PgDatabaseError::detail)
        };
        let code = database.code();
        match code.as_deref().unwrap_or_default() {
            "SR001" => Self::NotHere(detail().and_then(Redirect::parse).unwrap_or_default()),
            "SR002" => Self::Frozen(detail().and_then(Freeze::parse)),
            "25006" => Self::NotMaster,
            // Deadlock, serialization failure, lock timeout.
            "40P01" | "40001" | "55P03" => Self::Busy,
            "53300" => Self::Full,
            // idle_in_transaction_session_timeout: this process was stopped.
            "25P03" => Self::Lost,
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

    #[test]
    fn a_redirect_of_a_move_tells_its_two_ends() {
        let detail = |state: &str| {
            format!(
                r#"{{"lo" : 5, "hi" : 9, "generation" : 3, "target" : 7, "host" : "a:1", "state" : "{state}", "move_id" : null, "attempt" : 1}}"#
            )
        };
        let ends = |state| Redirect::parse(&detail(state)).unwrap().ends(Ordinal(2));
        assert_eq!(ends("moved"), Some((Ordinal(2), Ordinal(7))));
        assert_eq!(ends("importing"), Some((Ordinal(7), Ordinal(2))));
        assert_eq!(ends("owned"), None);
        assert_eq!(Redirect::default().ends(Ordinal(2)), None);
    }

    #[test]
    fn the_detail_of_a_freeze_is_read() {
        let detail = r#"{"lo" : 5, "hi" : 9, "move_id" : "11111111-2222-3333-4444-555555555555", "attempt" : 4, "expired" : true}"#;
        let freeze = Freeze::parse(detail).unwrap();
        assert_eq!(
            (freeze.range, freeze.attempt, freeze.expired),
            (Range { lo: 5, hi: 9 }, 4, true)
        );
        let by_hand = r#"{"lo" : 5, "hi" : 9, "move_id" : null, "attempt" : 0, "expired" : false}"#;
        assert_eq!(Freeze::parse(by_hand), None);
    }
}
