//! What must be so before anything moves. Pure.

use std::collections::{BTreeMap, BTreeSet};

use moves::PairMove;
use ring::{Ordinal, Tokens};

use super::{hands::Survey, orders::Orders};

/// Of a target's volume, the part that may be full when all its moves are done. The rest is for the log and for what is
/// written meanwhile.
const FULL: f64 = 0.8;

/// Why nothing may move now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("waiting for {0} to become ready")]
    NotReady(String),
    #[error("waiting for the ring to list shard {0}")]
    NotListed(Ordinal),
    #[error("waiting for all shards to have the same schema: {0}")]
    SchemasDiffer(String),
    /// A move had to be undone a moment ago. `at` in words, so that the same wait is always told alike.
    #[error("a move had to be undone ({why}); what still has to move is planned anew at {at}")]
    AfterSetback { why: String, at: String },
    /// The same, and so had those before it: it most likely does not pass by itself.
    #[error(
        "{setbacks} times in a row a move had to be undone, the last time because {why}; it is tried again at {at}"
    )]
    AfterSetbacks { setbacks: u32, why: String, at: String },
    #[error("{0}")]
    Unreachable(String),
    #[error(
        "shard {target} has not enough space: about {needed} MiB of keys would come to {used} MiB, on a volume of {volume} MiB of which {percent} % may be used; raise spec.postgres.storage.size",
        percent = (FULL * 100.0).round()
    )]
    NoSpace {
        target: Ordinal,
        needed: u64,
        used: u64,
        volume: u64,
    },
    #[error(
        "shard {shard} holds rows outside of every range it owns ({rows}): find out where they came from, and delete them as docs/operations.md says"
    )]
    RowsOutside { shard: Ordinal, rows: String },
}

impl Refusal {
    /// Whether a person has to act: it does not pass by itself.
    pub(crate) fn needs_a_person(&self) -> bool {
        matches!(
            self,
            Self::NoSpace { .. } | Self::RowsOutside { .. } | Self::AfterSetbacks { .. }
        )
    }

    /// What the operator does about it.
    pub(crate) fn action(&self) -> &'static str {
        match self {
            Self::NoSpace { .. } | Self::RowsOutside { .. } => {
                "nothing moves until that is mended; it is looked at again every few seconds"
            }
            Self::AfterSetback { .. } | Self::AfterSetbacks { .. } => {
                "it is planned anew then, whatever was the matter"
            }
            _ => "the rebalance begins when that is so",
        }
    }
}

/// What can be seen without asking the databases.
pub(crate) fn at_a_glance(orders: &Orders) -> Result<(), Refusal> {
    let unready: Vec<&str> = orders
        .shards
        .values()
        .filter(|party| !party.ready)
        .map(|party| party.name.as_str())
        .collect();
    if !unready.is_empty() {
        return Err(Refusal::NotReady(few(&unready)));
    }
    let versions: BTreeSet<Option<i64>> = orders.shards.values().map(|party| party.schema_version).collect();
    if versions.len() > 1 {
        let each: Vec<String> = orders
            .shards
            .values()
            .map(|party| match party.schema_version {
                Some(version) => format!("{} has {version}", party.name),
                None => format!("{} has none", party.name),
            })
            .collect();
        return Err(Refusal::SchemasDiffer(few(&each)));
    }
    listed(orders)
}

/// Whether programs know where every shard is that is to own keys.
pub(crate) fn listed(orders: &Orders) -> Result<(), Refusal> {
    match orders.owners.keys().find(|ordinal| !orders.listed.contains(*ordinal)) {
        Some(unlisted) => Err(Refusal::NotListed(*unlisted)),
        None => Ok(()),
    }
}

/// What the databases say; also how many rows are going to move.
pub(crate) fn in_depth(
    orders: &Orders,
    now: &Tokens,
    moves: &[PairMove],
    surveys: &BTreeMap<Ordinal, Survey>,
) -> Result<u64, Refusal> {
    if let Some((shard, rows)) = surveys
        .iter()
        .find_map(|(shard, survey)| Some((*shard, survey.outside.clone()?)))
    {
        return Err(Refusal::RowsOutside { shard, rows });
    }
    let shares = now.shares();
    let mut rows = 0.0;
    let mut incoming: BTreeMap<Ordinal, f64> = BTreeMap::new();
    for one in moves {
        let held = shares.get(&one.source).copied().unwrap_or(1).max(1);
        let part = one.positions() as f64 / held as f64;
        let survey = surveys.get(&one.source).cloned().unwrap_or_default();
        rows += survey.rows as f64 * part;
        *incoming.entry(one.target).or_default() += survey.bytes as f64 * part;
    }
    for (target, needed) in incoming {
        let volume = orders.shards.get(&target).and_then(|party| party.volume_bytes);
        let used = surveys.get(&target).map_or(0, |survey| survey.bytes);
        let Some(volume) = volume else { continue };
        if used as f64 + needed > FULL * volume as f64 {
            return Err(Refusal::NoSpace {
                target,
                needed: mebibytes(needed),
                used: mebibytes(used as f64),
                volume: mebibytes(volume as f64),
            });
        }
    }
    Ok(whole(rows))
}

fn mebibytes(bytes: f64) -> u64 {
    whole(bytes / f64::from(1 << 20))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "estimates of sizes: never negative, far below 2^53"
)]
fn whole(number: f64) -> u64 {
    number.ceil() as u64
}

/// At most three, so that a message stays readable at a thousand shards.
fn few(all: &[impl AsRef<str>]) -> String {
    let shown: Vec<&str> = all.iter().take(3).map(AsRef::as_ref).collect();
    match all.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use ring::{Range, Weight};

    use super::*;
    use crate::order_cluster::{
        fixtures,
        rebalance::orders::{Abort, Party},
    };

    const MIB: u64 = 1 << 20;

    pub(crate) fn orders(shards: u16) -> Orders {
        let cluster = fixtures::cluster(shards);
        let ordinals = || (0..shards).map(Ordinal);
        let party = |ordinal: Ordinal| Party {
            name: format!("shop-{ordinal}"),
            keeper: Err("not needed here".to_owned()),
            ready: true,
            schema_version: Some(7),
            volume_bytes: Some(1000 * MIB),
            strict: false,
        };
        Orders {
            namespace: cluster.namespace,
            cluster: cluster.name,
            reference: cluster.reference,
            generation: 1,
            owners: ordinals().map(|ordinal| (ordinal, Weight::ONE)).collect(),
            leaving: BTreeSet::new(),
            shards: ordinals().map(|ordinal| (ordinal, party(ordinal))).collect(),
            listed: ordinals().collect(),
            settings: cluster.rebalance,
            abort: Abort::No,
        }
    }

    /// Shard 0 owns all and gives a quarter of it to shard 1.
    fn a_quarter() -> (Tokens, Vec<PairMove>) {
        let now = Tokens::from_ranges([(Range::ALL, Ordinal(0))]).unwrap();
        let range = Range {
            lo: 0,
            hi: ring::POSITIONS / 4,
        };
        let one = PairMove {
            source: Ordinal(0),
            target: Ordinal(1),
            ranges: vec![range],
        };
        (now, vec![one])
    }

    fn surveys(source: u64, target: u64) -> BTreeMap<Ordinal, Survey> {
        let survey = |megabytes: u64| Survey {
            bytes: megabytes * MIB,
            rows: megabytes * 1_000,
            outside: None,
        };
        BTreeMap::from([(Ordinal(0), survey(source)), (Ordinal(1), survey(target))])
    }

    #[test]
    fn shards_that_are_ready_listed_and_of_one_schema_may_begin() {
        assert_eq!(at_a_glance(&orders(3)), Ok(()));
    }

    #[test]
    fn a_shard_that_is_not_ready_is_named_and_awaited() {
        let mut orders = orders(3);
        orders.shards.get_mut(&Ordinal(2)).unwrap().ready = false;
        let refusal = at_a_glance(&orders).unwrap_err();
        assert_eq!(refusal.to_string(), "waiting for shop-2 to become ready");
        assert!(!refusal.needs_a_person());
    }

    #[test]
    fn different_schemas_are_awaited() {
        let mut orders = orders(2);
        orders.shards.get_mut(&Ordinal(1)).unwrap().schema_version = Some(6);
        let refusal = at_a_glance(&orders).unwrap_err();
        assert_eq!(refusal, Refusal::SchemasDiffer("shop-0 has 7, shop-1 has 6".to_owned()));
    }

    #[test]
    fn nothing_moves_to_a_shard_that_the_ring_does_not_list() {
        let mut orders = orders(3);
        orders.listed.remove(&Ordinal(2));
        assert_eq!(at_a_glance(&orders), Err(Refusal::NotListed(Ordinal(2))));
    }

    #[test]
    fn rows_are_estimated_by_the_share_that_moves() {
        let (now, moves) = a_quarter();
        assert_eq!(in_depth(&orders(2), &now, &moves, &surveys(400, 10)), Ok(100_000));
    }

    #[test]
    fn a_target_without_the_space_is_refused_before_anything_starts() {
        let (now, moves) = a_quarter();
        assert!(in_depth(&orders(2), &now, &moves, &surveys(400, 699)).is_ok());
        let refusal = in_depth(&orders(2), &now, &moves, &surveys(400, 701)).unwrap_err();
        assert!(refusal.needs_a_person());
        let said = refusal.to_string();
        assert!(said.contains("shard 1 has not enough space: about 100 MiB"), "{said}");
    }

    #[test]
    fn rows_outside_of_every_range_are_refused() {
        let (now, moves) = a_quarter();
        let mut surveys = surveys(1, 1);
        surveys.get_mut(&Ordinal(1)).unwrap().outside = Some("shop.orders: 3".to_owned());
        let refusal = in_depth(&orders(2), &now, &moves, &surveys).unwrap_err();
        assert!(refusal.needs_a_person() && refusal.to_string().contains("shop.orders: 3"));
    }
}
