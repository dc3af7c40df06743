//! `ring show`.

use std::io::Write;

use anyhow::Result;
use ring::{POSITIONS, Range, Ring, Shard};
use serde::Serialize;

use crate::arguments::Output;
use crate::place::Place;

/// The ring, as it is printed for programs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    epoch: u64,
    shards: Vec<ShownShard<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownShard<'a> {
    #[serde(flatten)]
    shard: &'a Shard,
    /// Its part of all keys, from 0 to 1.
    share: f64,
    /// What it owns, in ring positions: `lo` and what comes before `hi`.
    ranges: Vec<Range>,
}

/// Prints the published ring.
pub(crate) async fn show(place: &Place, output: Output, out: &mut dyn Write) -> Result<()> {
    let ring = place.ring().await?;
    let shown = shown(&ring);
    match output {
        Output::Json => writeln!(out, "{}", serde_json::to_string_pretty(&shown)?)?,
        Output::Text => text(place, &shown, out)?,
    }
    Ok(())
}

fn shown(ring: &Ring) -> Shown<'_> {
    let all = ring.ranges();
    let of = |shard: &Shard| -> Vec<Range> {
        let own = all.iter().filter(|(_, owner)| *owner == shard.ordinal);
        own.map(|(range, _)| *range).collect()
    };
    let shards = ring.shards().iter().map(|shard| {
        let ranges = of(shard);
        let positions: u64 = ranges.iter().map(|range| range.len()).sum();
        ShownShard {
            shard,
            share: positions as f64 / POSITIONS as f64,
            ranges,
        }
    });
    Shown {
        epoch: ring.epoch().get(),
        shards: shards.collect(),
    }
}

fn text(place: &Place, shown: &Shown<'_>, out: &mut dyn Write) -> Result<()> {
    writeln!(
        out,
        "Ring of {}/{}, epoch {}\n",
        place.namespace, place.name, shown.epoch
    )?;
    let width = shown
        .shards
        .iter()
        .map(|one| one.shard.name.len())
        .max()
        .unwrap_or(0)
        .max(5);
    writeln!(
        out,
        "{:<width$}  {:<7}  {:>8}  {:>6}  HOSTS",
        "SHARD", "STATE", "KEYS", "RANGES"
    )?;
    for ShownShard { shard, share, ranges } in &shown.shards {
        // As the encoding has it: one lower-case word.
        let state = serde_json::to_value(shard.state)?;
        writeln!(
            out,
            "{:<width$}  {:<7}  {:>6.2} %  {:>6}  {}",
            shard.name,
            state.as_str().unwrap_or_default(),
            100.0 * share,
            ranges.len(),
            shard.hosts.join(" "),
        )?;
    }
    Ok(())
}
