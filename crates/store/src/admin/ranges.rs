//! A shard's book of ranges, as far as the operator writes it without a move.

pub use ::moves::RangeState;
use ring::{Generation, Ordinal, Range};
use sqlx::postgres::PgRow;
use sqlx::{Connection, PgConnection, Row};

use super::{AdminError, failed};

/// From the database's word for it.
pub(crate) fn parse_state(text: &str) -> Option<RangeState> {
    match text {
        "owned" => Some(RangeState::Owned),
        "frozen" => Some(RangeState::Frozen),
        "moved" => Some(RangeState::Moved),
        "cleaned" => Some(RangeState::Cleaned),
        "importing" => Some(RangeState::Importing),
        _ => None,
    }
}

/// A row of `ringwright.range_owners`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedRange {
    /// Never reused.
    pub range_id: i64,
    /// The positions.
    pub range: Range,
    /// How often the range changed hands.
    pub generation: Generation,
    /// Its state.
    pub state: RangeState,
    /// The shard it goes or went to (`frozen`, `moved`, `cleaned`) or comes from (`importing`).
    pub target: Option<Ordinal>,
}

impl OwnedRange {
    /// True for the states in which this shard is the owner of the data: `owned` and `frozen`.
    pub fn is_here(&self) -> bool {
        self.state.is_here()
    }
}

const READ: &str = "SELECT range_id, lo, hi, generation, state, target FROM ringwright.range_owners ORDER BY lo";

/// The shard's whole book, in order of `lo`.
pub async fn read_ranges(conn: &mut PgConnection) -> Result<Vec<OwnedRange>, AdminError> {
    let rows = sqlx::query(READ)
        .fetch_all(conn)
        .await
        .map_err(failed(|| "read the shard's ranges".to_owned()))?;
    rows.iter().map(from_row).collect()
}

fn from_row(row: &PgRow) -> Result<OwnedRange, AdminError> {
    let operation = || "read a row of range_owners".to_owned();
    let state: &str = row.try_get("state").map_err(failed(operation))?;
    let position = |column| {
        row.try_get::<i64, _>(column)
            .map(i64::cast_unsigned)
            .map_err(failed(operation))
    };
    let target: Option<i32> = row.try_get("target").map_err(failed(operation))?;
    Ok(OwnedRange {
        range_id: row.try_get("range_id").map_err(failed(operation))?,
        range: Range {
            lo: position("lo")?,
            hi: position("hi")?,
        },
        generation: Generation(row.try_get("generation").map_err(failed(operation))?),
        state: parse_state(state).ok_or_else(|| {
            AdminError::Refused(format!(
                "range_owners holds the state `{state}`, which only a newer operator knows"
            ))
        })?,
        target: target.and_then(|target| u16::try_from(target).ok()).map(Ordinal),
    })
}

/// Gives a shard that never owned anything its first ranges, generation 1. The same set again is fine; anything else
/// is refused with [`AdminError::AlreadyOwns`]: the ring of a cluster that holds data is rebuilt from what its shards
/// own, never planned anew.
pub async fn claim_initial_ranges(conn: &mut PgConnection, ranges: &[Range]) -> Result<(), AdminError> {
    let operation = || format!("claim the shard's first {} ranges", ranges.len());
    let mut wanted = ranges.to_vec();
    wanted.sort();
    if let Some(wrong) = wanted.iter().find(|range| !range.is_valid()) {
        return Err(AdminError::Refused(format!("{wrong} is not a range of the ring")));
    }
    let mut tx = conn.begin().await.map_err(failed(operation))?;
    // Against another operator that sees the same empty book. One whose commit waits for a standby holds it for as long.
    sqlx::raw_sql("SET LOCAL lock_timeout = '5s'; LOCK TABLE ringwright.range_owners IN EXCLUSIVE MODE")
        .execute(&mut *tx)
        .await
        .map_err(failed(operation))?;
    let book = read_ranges(&mut tx).await?;
    if !book.is_empty() {
        return if owns_exactly(&book, &wanted) {
            Ok(())
        } else {
            Err(AdminError::AlreadyOwns {
                existing: book.len(),
                wanted: wanted.len(),
            })
        };
    }
    // Ranges are never taken out of a book, so an empty one was never written; rows beside it mean it was lost.
    let holds_rows: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM shop.users) OR EXISTS (SELECT FROM ringwright.contact_claims)
             OR EXISTS (SELECT FROM ringwright.idempotency_keys)",
    )
    .fetch_one(&mut *tx)
    .await
    .map_err(failed(operation))?;
    if holds_rows {
        return Err(AdminError::Refused(
            "the shard holds rows, but its book of ranges is empty: it was lost; restore the volume, or write \
             range_owners by hand from the rows that are there"
                .to_owned(),
        ));
    }
    let bounds = |bound: fn(&Range) -> u64| {
        wanted
            .iter()
            .map(|range| bound(range).cast_signed())
            .collect::<Vec<i64>>()
    };
    sqlx::query(
        "INSERT INTO ringwright.range_owners (lo, hi, generation, state)
         SELECT lo, hi, 1, 'owned' FROM unnest($1::bigint[], $2::bigint[]) AS wanted (lo, hi)",
    )
    .bind(bounds(|range| range.lo))
    .bind(bounds(|range| range.hi))
    .execute(&mut *tx)
    .await
    .map_err(failed(operation))?;
    tx.commit().await.map_err(failed(operation))
}

fn owns_exactly(book: &[OwnedRange], wanted: &[Range]) -> bool {
    book.len() == wanted.len()
        && book.iter().zip(wanted).all(|(row, range)| {
            row.range == *range && row.state == RangeState::Owned && row.generation == Generation(1)
        })
}
