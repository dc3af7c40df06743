//! `rebalance plan`.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::io::Write;

use anyhow::{Context as _, Result, bail};
use crds::{OrderCluster, OrderClusterSpec, ShardOverride};
use moves::{PairMove, RebalancePlan, Summary};
use ring::{Ordinal, Ring, Weight};
use serde::Serialize;

use crate::arguments::Output;
use crate::place::Place;

/// A plan, as it is printed for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Planned {
    shards_before: usize,
    shards_after: usize,
    /// Shards that come.
    join: Vec<Ordinal>,
    /// Shards that give up everything, and go.
    leave: Vec<Ordinal>,
    /// Shards that give up everything, and stay.
    drain: Vec<Ordinal>,
    summary: Summary,
    moves: Vec<PairMove>,
    /// A rebalance is under way: what is planned starts from where the ring is now.
    rebalancing: bool,
}

/// Prints what would move, by the planner the operator uses.
pub(crate) async fn print(
    place: &Place,
    shards: Option<u16>,
    every_range: bool,
    output: Output,
    out: &mut dyn Write,
) -> Result<()> {
    let (cluster, (ring, highest)) = (place.cluster().await?, place.published().await?);
    let (planned, plan) = planned(&cluster, &ring, highest, shards)?;
    match output {
        Output::Json => writeln!(out, "{}", serde_json::to_string_pretty(&planned)?)?,
        Output::Text => text(&planned, &plan, every_range, out)?,
    }
    Ok(())
}

fn planned(
    cluster: &OrderCluster,
    ring: &Ring,
    highest: Option<Ordinal>,
    shards: Option<u16>,
) -> Result<(Planned, RebalancePlan)> {
    let shards = match shards {
        Some(shards) => shards,
        None => u16::try_from(cluster.spec.shards).context("spec.shards is no number of shards")?,
    };
    let members = Members::choose(&cluster.spec, ring, highest, shards)?;
    let owners = members.owners(&cluster.spec)?;
    if owners.is_empty() {
        bail!(
            "every shard is drained, so none is left to own the keys: set drain to false for one, or ask for more shards"
        );
    }
    let plan = moves::plan(ring.tokens(), &owners).context("plan the ring")?;
    let rebalance = cluster.status.as_ref().and_then(|status| status.rebalance.as_ref());
    let planned = Planned {
        shards_before: ring.shards().len(),
        shards_after: members.stay.len(),
        join: members.join.iter().copied().collect(),
        leave: members.leave.iter().copied().collect(),
        drain: members.drain.iter().copied().collect(),
        summary: moves::summary(&plan, ring.tokens(), &owners),
        moves: plan.moves.clone(),
        rebalancing: rebalance.is_some_and(|one| one.started_at.is_some() && one.finished_at.is_none()),
    };
    Ok((planned, plan))
}

/// Who stays, comes and goes: the operator's rule, by the shards of the published ring. Drained ones go first, then the
/// highest; new ones get ordinals that no shard ever had.
struct Members {
    stay: BTreeSet<Ordinal>,
    join: BTreeSet<Ordinal>,
    leave: BTreeSet<Ordinal>,
    drain: BTreeSet<Ordinal>,
}

impl Members {
    fn choose(spec: &OrderClusterSpec, ring: &Ring, highest: Option<Ordinal>, shards: u16) -> Result<Self> {
        let is_drained = |ordinal: Ordinal| override_of(spec, ordinal).is_some_and(|one| one.drain);
        let now: BTreeSet<Ordinal> = ring.shards().iter().map(|shard| shard.ordinal).collect();
        let mut order: Vec<Ordinal> = now.iter().copied().collect();
        order.sort_by_key(|ordinal| (!is_drained(*ordinal), Reverse(*ordinal)));
        let surplus = now.len().saturating_sub(shards.into());
        let leave: BTreeSet<Ordinal> = order.into_iter().take(surplus).collect();
        let mut stay: BTreeSet<Ordinal> = now.difference(&leave).copied().collect();
        let mut highest = highest.max(now.last().copied());
        let mut join = BTreeSet::new();
        while stay.len() < usize::from(shards) {
            let next = highest.map_or(Some(0), |highest| highest.get().checked_add(1));
            let next = Ordinal(next.context("no ordinals are left for new shards: one is never used twice")?);
            stay.insert(next);
            join.insert(next);
            highest = Some(next);
        }
        let drain = stay.iter().copied().filter(|ordinal| is_drained(*ordinal)).collect();
        Ok(Self {
            stay,
            join,
            leave,
            drain,
        })
    }

    fn owners(&self, spec: &OrderClusterSpec) -> Result<Vec<(Ordinal, Weight)>> {
        let owner = |ordinal: &Ordinal| {
            let weight = override_of(spec, *ordinal).map_or(1, |one| one.weight);
            let weight = u32::try_from(weight).context("a weight is negative")?;
            Ok((
                *ordinal,
                Weight::new(weight).with_context(|| format!("weigh shard {ordinal}"))?,
            ))
        };
        self.stay.difference(&self.drain).map(owner).collect()
    }
}

fn override_of(spec: &OrderClusterSpec, ordinal: Ordinal) -> Option<&ShardOverride> {
    spec.shard_overrides
        .iter()
        .find(|one| one.ordinal == i32::from(ordinal.get()))
}

fn text(planned: &Planned, plan: &RebalancePlan, every_range: bool, out: &mut dyn Write) -> Result<()> {
    if planned.rebalancing {
        writeln!(
            out,
            "A rebalance is under way; this starts from where the ring is now.\n"
        )?;
    }
    let words = [
        ("join", &planned.join),
        ("leave", &planned.leave),
        ("give up their keys and stay", &planned.drain),
    ];
    writeln!(
        out,
        "Shards: {} now, {} then",
        planned.shards_before, planned.shards_after
    )?;
    for (what, ordinals) in words.into_iter().filter(|(_, ordinals)| !ordinals.is_empty()) {
        let ordinals: Vec<String> = ordinals.iter().map(ToString::to_string).collect();
        writeln!(out, "  {what}: {}", ordinals.join(", "))?;
    }
    writeln!(out, "{}", planned.summary)?;
    if every_range {
        write!(out, "{plan:#}")?;
    } else {
        write!(out, "{plan}")?;
    }
    Ok(())
}
