//! Replication that no move knows, and that is taken away only when it was found so twice.

use std::collections::BTreeSet;

use moves::{MoveId, Step};
use ring::Ordinal;

use super::hands::Job;

/// What the last look found that no move knows.
///
/// The shards do not answer at one moment. An operator that is stopped in the middle of a look, after a target has answered
/// and before the source has, finds there the slot of a copy that its successor has begun meanwhile. A copy is written down
/// at the target before there is anything of it at the source; so whoever looks again, after he has seen that, finds it
/// known. What is unknown in both looks was left behind.
#[derive(Debug, Default)]
pub(crate) struct Suspects(BTreeSet<Suspect>);

type Suspect = (Ordinal, Kind, MoveId);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Subscription,
    Slot,
    Publication,
}

impl Suspects {
    /// Takes out of the jobs of a look what the one before did not find.
    pub(crate) fn acquit(&mut self, lanes: &mut [Vec<Job>]) {
        let mut found = BTreeSet::new();
        for lane in lanes {
            lane.retain_mut(|job| {
                let Step::Sweep {
                    shard,
                    subscriptions,
                    slots,
                    publications,
                } = &mut job.step
                else {
                    return true;
                };
                let lists = [
                    (Kind::Subscription, subscriptions),
                    (Kind::Slot, slots),
                    (Kind::Publication, publications),
                ];
                let mut left = 0;
                for (kind, list) in lists {
                    found.extend(list.iter().map(|id| (*shard, kind, *id)));
                    list.retain(|id| self.0.contains(&(*shard, kind, *id)));
                    left += list.len();
                }
                left > 0
            });
        }
        self.0 = found;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::order_cluster::{masters::Keeper, rebalance::hands::Limits};

    fn keeper() -> Keeper {
        Keeper {
            namespace: "ns".to_owned(),
            cluster: "shop".to_owned(),
            ordinal: Ordinal(1),
            hosts: Vec::new(),
            others: Vec::new(),
            synchronous: false,
            shard: "shop-1".to_owned(),
            master: "shop-1-0".to_owned(),
        }
    }

    fn look(slots: &[u128], publications: &[u128]) -> Vec<Vec<Job>> {
        let ids = |all: &[u128]| all.iter().map(|id| MoveId(row_id::Uuid::from_u128(*id))).collect();
        let job = Job {
            step: Step::Sweep {
                shard: Ordinal(1),
                subscriptions: Vec::new(),
                slots: ids(slots),
                publications: ids(publications),
            },
            source: keeper(),
            target: keeper(),
            limits: Limits {
                max_pause: Duration::ZERO,
                budget: Duration::ZERO,
                rows_per_second: None,
                expired_freezes: 0,
            },
        };
        vec![vec![job]]
    }

    fn steps(lanes: &[Vec<Job>]) -> Vec<Step> {
        lanes.iter().flatten().map(|job| job.step.clone()).collect()
    }

    #[test]
    fn only_what_two_looks_in_a_row_have_found_unknown_goes() {
        let mut suspects = Suspects::default();
        let mut first = look(&[1, 2], &[2]);
        suspects.acquit(&mut first);
        assert_eq!(steps(&first), []);
        // The slot of move 1 was that of a copy that had just begun; move 3 was not seen before.
        let mut second = look(&[2], &[2, 3]);
        suspects.acquit(&mut second);
        assert_eq!(steps(&second), steps(&look(&[2], &[2])));
        let mut third = look(&[1], &[3]);
        suspects.acquit(&mut third);
        assert_eq!(steps(&third), steps(&look(&[], &[3])));
    }
}
