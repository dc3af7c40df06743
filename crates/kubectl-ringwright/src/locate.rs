//! `ring locate`.

use std::io::Write;

use anyhow::{Context as _, Result};
use ring::Position;
use row_id::{OrderId, UserId};
use serde::Serialize;

use crate::arguments::Output;
use crate::place::Place;

/// Where a row lives, as it is printed for programs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Found<'a> {
    /// Eight hexadecimal digits.
    position: String,
    shard: &'a str,
    ordinal: u16,
    hosts: &'a [String],
    /// Whether the id passes the check that ids of users have; absent for a position.
    #[serde(skip_serializing_if = "Option::is_none")]
    is_user_id: Option<bool>,
    epoch: u64,
}

/// Prints which shard owns a row.
pub(crate) async fn locate(place: &Place, id: &str, output: Output, out: &mut dyn Write) -> Result<()> {
    let (position, is_user_id) = position(id)?;
    let ring = place.ring().await?;
    let shard = ring.locate(position);
    let found = Found {
        position: position.to_string(),
        shard: &shard.name,
        ordinal: shard.ordinal.get(),
        hosts: &shard.hosts,
        is_user_id,
        epoch: ring.epoch().get(),
    };
    match output {
        Output::Json => writeln!(out, "{}", serde_json::to_string_pretty(&found)?)?,
        Output::Text => {
            let kind = match is_user_id {
                Some(true) => " (an id of a user)",
                Some(false) => " (no id of a user, or a mistyped one: it fails the check that those have)",
                None => "",
            };
            writeln!(out, "position  {position}{kind}")?;
            writeln!(out, "shard     {}", found.shard)?;
            writeln!(out, "hosts     {}", found.hosts.join(" "))?;
            writeln!(out, "by the ring of epoch {}", found.epoch)?;
        }
    }
    Ok(())
}

/// The position of an id of any kind, and whether it can be a user's; or a position as it is.
fn position(id: &str) -> Result<(Position, Option<bool>)> {
    if id.len() == 8
        && let Ok(number) = u32::from_str_radix(id, 16)
    {
        return Ok((Position::new(number), None));
    }
    // An order's id stands for every kind: only users' are told from the others.
    let row: Option<OrderId> = id.parse().ok();
    let row = row.with_context(|| {
        format!("`{id}` is neither the id of a row (a UUID of version 8) nor a position (eight hexadecimal digits)")
    })?;
    Ok((row.position(), Some(UserId::from_uuid(row.uuid()).is_ok())))
}
