//! Data statements: each reads the range's state and the log's position in the snapshot of the data itself.

use ring::{Generation, Ordinal, Range};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::fault::{Redirect, split_hosts};
use crate::admin::{RangeState, parse_state};
use crate::token::{Lsn, Term};

/// The head of every data statement: where the snapshot stands (`here`) and what state the key's range is in.
macro_rules! look {
    // One key, bound as $1.
    (one $columns:expr, $from:expr) => {
        concat!(
            "SELECT ", $crate::store::query::head_columns!(), ", ", $columns,
            " FROM ringwright.here() h CROSS JOIN ringwright.range_of($1) r LEFT JOIN ", $from
        )
    };
    // Many keys, bound as the array $1; `k.id` is the row's key.
    (many $columns:expr, $from:expr) => {
        concat!(
            "SELECT k.id AS key, ", $crate::store::query::head_columns!(), ", ", $columns,
            " FROM ringwright.here() h CROSS JOIN unnest($1::uuid[]) k(id) CROSS JOIN LATERAL ringwright.range_of(k.id) r LEFT JOIN ",
            $from
        )
    };
}

macro_rules! head_columns {
    () => {
        concat!(
            "h.in_recovery AS here_in_recovery, h.term AS here_term, h.lsn AS here_lsn, ",
            $crate::store::query::range_columns!()
        )
    };
}

/// What [`RangeHere`] reads, from `ringwright.range_of(...) r`.
macro_rules! range_columns {
    () => {
        "r.state AS range_state, r.generation AS range_generation, r.lo AS range_lo, r.hi AS range_hi, \
         r.target AS range_target, r.target_hosts AS range_hosts"
    };
}

pub(crate) use {head_columns, look, range_columns};

/// A named statement with its parameters.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    /// For messages: "could not ...".
    pub(crate) operation: &'static str,
    sql: &'static str,
    parameters: Vec<Parameter>,
}

#[derive(Debug, Clone)]
enum Parameter {
    Id(Option<Uuid>),
    Ids(Vec<Uuid>),
    Number(i64),
}

impl Query {
    pub(crate) fn new(operation: &'static str, sql: &'static str) -> Self {
        Self {
            operation,
            sql,
            parameters: Vec::new(),
        }
    }

    pub(crate) fn id(self, id: Uuid) -> Self {
        self.maybe_id(Some(id))
    }

    pub(crate) fn maybe_id(mut self, id: Option<Uuid>) -> Self {
        self.parameters.push(Parameter::Id(id));
        self
    }

    pub(crate) fn ids(mut self, ids: Vec<Uuid>) -> Self {
        self.parameters.push(Parameter::Ids(ids));
        self
    }

    pub(crate) fn number(mut self, number: i64) -> Self {
        self.parameters.push(Parameter::Number(number));
        self
    }

    pub(crate) async fn ask(&self, conn: &mut PgConnection) -> Result<Vec<PgRow>, sqlx::Error> {
        let mut query = sqlx::query(self.sql);
        for parameter in &self.parameters {
            query = match parameter {
                Parameter::Id(id) => query.bind(*id),
                Parameter::Ids(ids) => query.bind(ids.as_slice()),
                Parameter::Number(number) => query.bind(*number),
            };
        }
        query.fetch_all(conn).await
    }
}

/// Where a statement's snapshot stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Here {
    pub(crate) in_recovery: bool,
    pub(crate) term: Option<Term>,
    pub(crate) lsn: Lsn,
}

impl Here {
    pub(crate) fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        let term: Option<i64> = row.try_get("here_term")?;
        let lsn: Option<i64> = row.try_get("here_lsn")?;
        Ok(Self {
            in_recovery: row.try_get("here_in_recovery")?,
            term: term.and_then(|term| u32::try_from(term).ok()).map(Term),
            lsn: Lsn(lsn.unwrap_or(0).cast_unsigned()),
        })
    }
}

/// The state of a key's range in a statement's snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RangeHere {
    /// `None` where the shard has no row for the position.
    state: Option<RangeState>,
    redirect: Redirect,
}

/// Whether an answer counts.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It does, for a range of this generation.
    Serve(Generation),
    /// Only the master's answer would.
    AskMaster,
    /// The range is not here.
    Elsewhere(Redirect),
}

impl RangeHere {
    pub(crate) fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        let state: Option<&str> = row.try_get("range_state")?;
        let bound = |column| {
            row.try_get::<Option<i64>, _>(column)
                .map(|bound| bound.map(i64::cast_unsigned))
        };
        let generation: Option<i64> = row.try_get("range_generation")?;
        let range = match (bound("range_lo")?, bound("range_hi")?, generation) {
            (Some(lo), Some(hi), Some(generation)) => Some((Range { lo, hi }, Generation(generation))),
            _ => None,
        };
        let target: Option<i32> = row.try_get("range_target")?;
        let target = target.and_then(|target| u16::try_from(target).ok()).map(Ordinal);
        let hosts = split_hosts(row.try_get("range_hosts")?);
        let state = state.and_then(parse_state);
        let redirect = Redirect {
            range,
            target,
            hosts,
            state,
        };
        Ok(Self { state, redirect })
    }

    /// A master serves `owned` and `frozen` ranges, a replica `owned` ones. `other_shards` is the highest generation in
    /// tokens of other shards: a replica meets those only if the range came here after all they could have seen.
    pub(crate) fn judge(&self, from_master: bool, other_shards: Option<Generation>) -> Verdict {
        let generation = self.redirect.range.map_or(Generation(0), |(_, generation)| generation);
        match self.state {
            Some(RangeState::Owned) if from_master || other_shards.is_none_or(|other| generation > other) => {
                Verdict::Serve(generation)
            }
            Some(RangeState::Frozen) if from_master => Verdict::Serve(generation),
            _ if !from_master => Verdict::AskMaster,
            _ => Verdict::Elsewhere(self.redirect.clone()),
        }
    }

    /// Where writes to this range belong, if not here: for rows that are not written, which no write fence sees.
    pub(crate) fn elsewhere_for_writes(self) -> Option<Redirect> {
        match self.state {
            Some(RangeState::Owned | RangeState::Frozen) => None,
            _ => Some(self.redirect),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(state: Option<RangeState>, generation: i64) -> RangeHere {
        let range = Some((Range { lo: 0, hi: 8 }, Generation(generation)));
        RangeHere {
            state,
            redirect: Redirect {
                range,
                target: Some(Ordinal(2)),
                ..Redirect::default()
            },
        }
    }

    #[test]
    fn a_master_serves_owned_and_frozen_and_a_replica_owned_only() {
        for (state, master, replica) in [
            (RangeState::Owned, true, true),
            (RangeState::Frozen, true, false),
            (RangeState::Moved, false, false),
            (RangeState::Cleaned, false, false),
            (RangeState::Importing, false, false),
        ] {
            let range = range(Some(state), 1);
            assert_eq!(
                range.judge(true, None) == Verdict::Serve(Generation(1)),
                master,
                "{state:?}"
            );
            assert_eq!(
                range.judge(false, None) == Verdict::Serve(Generation(1)),
                replica,
                "{state:?}"
            );
        }
    }

    #[test]
    fn a_replica_that_knows_no_better_sends_to_the_master_and_a_master_elsewhere() {
        assert_eq!(range(None, 1).judge(false, None), Verdict::AskMaster);
        let moved = range(Some(RangeState::Moved), 1);
        assert_eq!(moved.judge(true, None), Verdict::Elsewhere(moved.redirect.clone()));
    }

    #[test]
    fn a_token_of_another_shard_is_met_by_a_higher_generation_only() {
        let range = range(Some(RangeState::Owned), 4);
        assert_eq!(range.judge(false, Some(Generation(3))), Verdict::Serve(Generation(4)));
        assert_eq!(range.judge(false, Some(Generation(4))), Verdict::AskMaster);
        assert_eq!(range.judge(true, Some(Generation(4))), Verdict::Serve(Generation(4)));
    }
}
