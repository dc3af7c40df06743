//! What moves left behind, on all shards: freezes nobody holds, rows that are to be deleted, replication nobody knows.

use std::collections::{BTreeMap, BTreeSet};

use ring::{Ordinal, Range, Tokens};

use crate::pair::Pair;
use crate::truth::overlap;
use crate::{Blocked, MoveId, RangeRow, RangeState, ShardView, Step};

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Leftovers {
    /// What to do about it now.
    pub(crate) steps: Vec<Step>,
    pub(crate) blocked: Vec<Blocked>,
    /// Whether there are rows that cannot be dealt with yet.
    waiting: bool,
}

impl Leftovers {
    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.blocked.is_empty() && !self.waiting
    }
}

/// Looks through the shards. Without a truth nothing is deleted; and unless `all` shards were looked at, nothing else goes
/// either, for the one that is missing may be the one that knows of a move.
pub(crate) fn find(
    world: &BTreeMap<Ordinal, ShardView>,
    pairs: &[Pair<'_>],
    truth: Option<&Tokens>,
    all: bool,
) -> Leftovers {
    let mut found = Leftovers::default();
    let replicated = Replicated::of(world);
    let owners = truth.map(Tokens::ranges).unwrap_or_default();
    for view in world.values() {
        for row in &view.rows {
            match (row.state, row.move_id, row.target) {
                (RangeState::Frozen, Some(move_id), Some(target)) if !is_imported(pairs, view.ordinal, row) => {
                    if world.contains_key(&target) {
                        found.steps.push(Step::Thaw {
                            shard: view.ordinal,
                            move_id,
                            range: row.range,
                            attempt: row.attempt,
                        });
                    } else {
                        found.blocked.push(Blocked::NotObserved { needed: target });
                    }
                }
                (RangeState::Moved, Some(move_id), _) => {
                    if !all || replicated.involves(move_id) || !is_anothers(&owners, view.ordinal, row.range) {
                        found.waiting = true;
                    } else {
                        found.steps.push(Step::Clean {
                            shard: view.ordinal,
                            move_id,
                            range: row.range,
                        });
                    }
                }
                _ => {}
            }
        }
        found.steps.extend(replicated.unknown_at(view).filter(|_| all));
    }
    found
}

/// Whether the move that froze a row still imports it.
fn is_imported(pairs: &[Pair<'_>], shard: Ordinal, frozen: &RangeRow) -> bool {
    pairs.iter().any(|pair| {
        pair.source.ordinal == shard
            && Some(pair.move_id) == frozen.move_id
            && pair
                .importing
                .iter()
                .any(|row| overlap(row.range, frozen.range).is_some())
    })
}

/// Whether other shards own all of a range: only then may this one delete its rows. `owners` in the order of positions.
fn is_anothers(owners: &[(Range, Ordinal)], shard: Ordinal, range: Range) -> bool {
    let first = owners.partition_point(|(owned, _)| owned.hi <= range.lo);
    let theirs = owners[first..]
        .iter()
        .take_while(|(owned, _)| owned.lo < range.hi)
        .filter(|(_, owner)| *owner != shard)
        .filter_map(|(owned, _)| overlap(*owned, range));
    theirs.map(|both| both.len()).sum::<u64>() == range.len()
}

/// Which moves have something to do with replication, anywhere.
struct Replicated {
    /// Written down in `copies`, or importing.
    known: BTreeSet<MoveId>,
    subscribed: BTreeSet<MoveId>,
    /// With a slot or a publication.
    published: BTreeSet<MoveId>,
}

impl Replicated {
    fn of(world: &BTreeMap<Ordinal, ShardView>) -> Self {
        let importing = |row: &RangeRow| row.move_id.filter(|_| row.state == RangeState::Importing);
        let (mut known, mut subscribed, mut published) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for view in world.values() {
            known.extend(view.copies.iter().map(|copy| copy.move_id));
            known.extend(view.rows.iter().filter_map(importing));
            subscribed.extend(view.subscriptions.iter().map(|one| one.move_id));
            published.extend(view.slots.iter().map(|slot| slot.move_id));
            published.extend(&view.publications);
        }
        Self {
            known,
            subscribed,
            published,
        }
    }

    /// Whether rows of this move's ranges could still be replicated: as long as that is so, none may be deleted.
    fn involves(&self, move_id: MoveId) -> bool {
        [&self.known, &self.subscribed, &self.published]
            .into_iter()
            .any(|all| all.contains(&move_id))
    }

    /// What no move knows on one shard. A slot goes after its subscription, which would hold it.
    fn unknown_at(&self, view: &ShardView) -> Option<Step> {
        let unknown = |move_id: &MoveId| !self.known.contains(move_id);
        let free = |move_id: &MoveId| unknown(move_id) && !self.subscribed.contains(move_id);
        let subscriptions: Vec<MoveId> = view
            .subscriptions
            .iter()
            .map(|one| one.move_id)
            .filter(unknown)
            .collect();
        let slots: Vec<MoveId> = view.slots.iter().map(|slot| slot.move_id).filter(free).collect();
        let publications: Vec<MoveId> = view.publications.iter().copied().filter(free).collect();
        (!subscriptions.is_empty() || !slots.is_empty() || !publications.is_empty()).then_some(Step::Sweep {
            shard: view.ordinal,
            subscriptions,
            slots,
            publications,
        })
    }
}

/// The shards whose books have neighbours that can be one row.
pub(crate) fn merges(world: &BTreeMap<Ordinal, ShardView>) -> impl Iterator<Item = Step> + '_ {
    let one = |first: &RangeRow, second: &RangeRow| {
        first.range.hi == second.range.lo
            && first.state == second.state
            && first.generation == second.generation
            && match first.state {
                RangeState::Owned => true,
                RangeState::Cleaned => first.target == second.target,
                RangeState::Frozen | RangeState::Moved | RangeState::Importing => false,
            }
    };
    let mergeable = move |view: &&ShardView| view.rows.windows(2).any(|rows| one(&rows[0], &rows[1]));
    world
        .values()
        .filter(mergeable)
        .map(|view| Step::Merge { shard: view.ordinal })
}
