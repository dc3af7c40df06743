//! Which ordinals a cluster consists of: who stays, who comes, who leaves. Pure.
//!
//! The decision is made anew from the specification each time, so one that is taken back takes its effect back: a shard
//! that was leaving stays after all. There is one point of no return: a shard that has given up everything is struck off
//! the roster, and from then on it only goes.

use std::{cmp::Reverse, collections::BTreeSet};

use crds::ShardState;

use super::{
    plan::{Known, Refusal},
    validate::Cluster,
};

/// The ordinals of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Members {
    /// Those there shall be in the end, the new ones included.
    pub(crate) stay: BTreeSet<u16>,
    /// Those that give up their keys in order to go.
    pub(crate) leave: BTreeSet<u16>,
    /// Those that hold nothing any more and are to be deleted.
    pub(crate) departing: BTreeSet<u16>,
    /// Why there are fewer than asked for.
    pub(crate) refusal: Option<Refusal>,
}

/// Chooses them.
pub(crate) fn members(cluster: &Cluster, known: Known<'_>) -> Members {
    let Some(roster) = known.settled_roster() else {
        return Members {
            stay: before_the_first_ring(cluster, known),
            ..Members::default()
        };
    };
    let departed = |ordinal: &u16| {
        let found = known.shards.get(ordinal);
        !roster.contains(*ordinal) && found.is_some_and(|shard| shard.spec.state == ShardState::Leaving)
    };
    let mut departing: BTreeSet<u16> = known.shards.keys().copied().filter(departed).collect();
    let mut stay: BTreeSet<u16> = roster.iter().chain(known.shards.keys().copied()).collect();
    stay.retain(|ordinal| !departing.contains(ordinal));

    let leave = leaving(cluster, &stay);
    stay.retain(|ordinal| !leave.contains(ordinal));
    let (gone, leave): (BTreeSet<u16>, BTreeSet<u16>) =
        leave.into_iter().partition(|ordinal| known.empty.contains(ordinal));
    departing.extend(gone);
    let refusal = recruit(cluster, known, &mut stay);
    Members {
        stay,
        leave,
        departing,
        refusal,
    }
}

/// Shards that exist stay, so that lowering the number cannot orphan a volume unseen; what is too many leaves when it can
/// be asked what it holds. While the first ranges are given out the set stands.
fn before_the_first_ring(cluster: &Cluster, known: Known<'_>) -> BTreeSet<u16> {
    match known.roster {
        Some(roster) => roster.iter().collect(),
        None => (0..cluster.shards).chain(known.shards.keys().copied()).collect(),
    }
}

/// As many as are too many: first those that are drained, then the highest.
fn leaving(cluster: &Cluster, all: &BTreeSet<u16>) -> BTreeSet<u16> {
    let surplus = all.len().saturating_sub(cluster.shards.into());
    let mut order: Vec<u16> = all.iter().copied().collect();
    order.sort_by_key(|ordinal| (!is_drained(cluster, *ordinal), Reverse(*ordinal)));
    order.into_iter().take(surplus).collect()
}

/// Adds new shards up to the number asked for, with ordinals that no shard ever had.
fn recruit(cluster: &Cluster, known: Known<'_>, stay: &mut BTreeSet<u16>) -> Option<Refusal> {
    let mut highest = known.highest.max(stay.last().copied());
    while stay.len() < usize::from(cluster.shards) {
        let next = match highest {
            None => Some(0),
            Some(highest) => highest.checked_add(1),
        };
        let Some(next) = next else {
            return Some(Refusal::OrdinalsUsedUp {
                wanted: cluster.shards,
                highest: u16::MAX,
            });
        };
        stay.insert(next);
        highest = Some(next);
    }
    None
}

/// Whether the shard is to give up its keys.
pub(crate) fn is_drained(cluster: &Cluster, ordinal: u16) -> bool {
    cluster.overrides.get(&ordinal).is_some_and(|over| over.drain)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::order_cluster::{
        fixtures::{cluster, known},
        roster::Roster,
    };

    fn set(ordinals: &[u16]) -> BTreeSet<u16> {
        ordinals.iter().copied().collect()
    }

    fn with_drained(shards: u16, drained: &[u16]) -> Cluster {
        let mut cluster = cluster(shards);
        for ordinal in drained {
            let over = crds::ShardOverride {
                ordinal: (*ordinal).into(),
                weight: 1,
                drain: true,
                image: None,
            };
            cluster.overrides.insert(*ordinal, over);
        }
        cluster
    }

    /// The members of a cluster with this roster whose specification is now `cluster`.
    fn of(cluster: &Cluster, roster: &str, highest: u16, empty: &[u16]) -> Members {
        let roster: Roster = roster.parse().unwrap();
        let (none, empty) = (BTreeMap::new(), set(empty));
        members(
            cluster,
            Known {
                highest: Some(highest),
                empty: &empty,
                ..known(&none, Some(&roster))
            },
        )
    }

    #[test]
    fn a_larger_number_adds_shards_above_the_highest_that_ever_was() {
        assert_eq!(of(&cluster(3), "0-1", 1, &[]).stay, set(&[0, 1, 2]));
        assert_eq!(of(&cluster(4), "0-1", 4, &[]).stay, set(&[0, 1, 5, 6]));
    }

    #[test]
    fn a_smaller_number_takes_the_highest_unless_others_are_drained() {
        let members = of(&cluster(2), "0-3", 3, &[]);
        assert_eq!((members.stay, members.leave), (set(&[0, 1]), set(&[2, 3])));
        let members = of(&with_drained(2, &[0]), "0-3", 3, &[]);
        assert_eq!((members.stay, members.leave), (set(&[1, 2]), set(&[0, 3])));
    }

    #[test]
    fn a_drained_shard_stays_until_the_number_is_lowered() {
        let members = of(&with_drained(3, &[1]), "0-2", 2, &[]);
        assert_eq!((members.stay, members.leave), (set(&[0, 1, 2]), set(&[])));
    }

    #[test]
    fn a_leaving_shard_that_holds_nothing_departs_and_one_that_shall_stay_does_not() {
        let members = of(&cluster(2), "0-2", 2, &[2]);
        assert_eq!((members.leave, members.departing), (set(&[]), set(&[2])));
        let members = of(&cluster(3), "0-2", 2, &[2]);
        assert_eq!((members.stay, members.departing), (set(&[0, 1, 2]), set(&[])));
    }

    #[test]
    fn while_the_first_ranges_are_given_out_the_set_stands() {
        let roster: Roster = "0-2".parse().unwrap();
        let none = BTreeMap::new();
        for shards in [1, 5] {
            let known = Known {
                published: false,
                ..known(&none, Some(&roster))
            };
            assert_eq!(members(&cluster(shards), known).stay, set(&[0, 1, 2]));
        }
    }

    #[test]
    fn ordinals_that_are_used_up_are_refused_not_used_again() {
        let members = of(&cluster(3), "0-1", u16::MAX, &[]);
        assert_eq!(members.stay, set(&[0, 1]));
        assert!(matches!(
            members.refusal,
            Some(Refusal::OrdinalsUsedUp { wanted: 3, .. })
        ));
    }
}
