//! What a shard still holds: whether it can go.

use moves::{RangeRow, RangeState, ShardView};
use store::moves::{MoveError, ShardSession, confirm, observe, remnants};

/// Marks in the log and names of cleaning sessions: nobody's data, and nothing that anybody waits for.
const OF_NO_CONSEQUENCE: [&str; 2] = ["marker", "origin"];

/// What keeps the shard from going, in words; `None` if it holds nothing: every range of its book has been given away and
/// cleaned, no table has a row of a user (the outbox included), and nothing of a move is left.
///
/// The answer no is made durable before it is given, in the session that saw it.
pub(crate) async fn holdings(session: &mut ShardSession) -> Result<Option<String>, MoveError> {
    let view = observe(session).await?;
    if let Some(row) = view.rows.iter().find(|row| row.state != RangeState::Cleaned) {
        return Ok(Some(in_words(row)));
    }
    let left: Vec<String> = remnants(session)
        .await?
        .into_iter()
        .filter(|remnant| !OF_NO_CONSEQUENCE.contains(&remnant.kind.as_str()))
        .map(|remnant| format!("{} {}", remnant.kind, remnant.name))
        .collect();
    if !left.is_empty() {
        return Ok(Some(format!("it still has {}", left.join(", "))));
    }
    confirm(session).await?;
    Ok(None)
}

fn in_words(row: &RangeRow) -> String {
    match row.state {
        RangeState::Owned | RangeState::Frozen => "it owns keys".to_owned(),
        RangeState::Moved | RangeState::Cleaned => "rows that have moved are not deleted yet".to_owned(),
        RangeState::Importing => "keys are being copied to it".to_owned(),
    }
}

/// Whether the shard takes part in a move: then its schema must stay as it is.
pub(crate) fn takes_part_in_moves(view: &ShardView) -> bool {
    let moving = |row: &RangeRow| !matches!(row.state, RangeState::Owned | RangeState::Cleaned);
    view.rows.iter().any(moving)
        || !view.copies.is_empty()
        || !view.publications.is_empty()
        || !view.slots.is_empty()
        || !view.subscriptions.is_empty()
}
