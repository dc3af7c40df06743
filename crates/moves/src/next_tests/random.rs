//! Random worlds, in which operators die, wake late, and the specification changes under them.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use ring::{Ordinal, POSITIONS, Range, Tokens, Weight};

use super::databases::Databases;
use super::operator::{Life, execute};
use crate::{MoveId, RangeState, ShardView, Step, Steps, Wish, next_steps, plan, truth};

/// More rounds than any rebalance of these tests needs.
const ROUNDS: usize = 3_000;

/// Something that happens.
#[derive(Clone, Debug)]
enum Event {
    /// An operator looks, and does what is to do until its life ends.
    Operator {
        life: usize,
        cut: u8,
        first: usize,
        /// A shard that does not answer it.
        silent: Option<usize>,
    },
    /// An operator that was stopped wakes and goes on with what it was about to do.
    Late {
        life: usize,
        cut: u8,
        first: usize,
    },
    Write(u64),
    FailOver(usize),
    /// Routers thaw what has expired; here, everything.
    Thaw,
    LoseSlot(usize),
    StopSubscription(usize),
    /// So many freezes of a move ran into their deadline.
    Expire(usize, u32),
    /// A subscription was switched on again so many times.
    Resumed(usize, u32),
    Paused(bool),
    Abort(bool),
    /// A shard's master begins to answer no commit without a standby, or ends it.
    Strict(usize),
    Want(Vec<u32>),
    Replace(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let life = prop_oneof![1..8usize, Just(60)];
    let cut = prop_oneof![Just(0u8), any::<u8>()];
    let late = (life.clone(), cut.clone(), 0..16usize).prop_map(|(life, cut, first)| Event::Late { life, cut, first });
    let silent = prop_oneof![2 => Just(None), 1 => any::<usize>().prop_map(Some)];
    let operator = (life, cut, 0..16usize, silent).prop_map(|(life, cut, first, silent)| Event::Operator {
        life,
        cut,
        first,
        silent,
    });
    prop_oneof![
        8 => operator,
        3 => late,
        4 => any::<u64>().prop_map(Event::Write),
        1 => any::<usize>().prop_map(Event::FailOver),
        1 => Just(Event::Thaw),
        1 => any::<usize>().prop_map(Event::LoseSlot),
        2 => any::<usize>().prop_map(Event::StopSubscription),
        1 => (any::<usize>(), 1..8u32).prop_map(|(one, resumes)| Event::Resumed(one, resumes)),
        1 => (any::<usize>(), 1..20u32).prop_map(|(one, freezes)| Event::Expire(one, freezes)),
        1 => any::<bool>().prop_map(Event::Paused),
        1 => any::<bool>().prop_map(Event::Abort),
        1 => any::<usize>().prop_map(Event::Strict),
        1 => prop::collection::vec(1..4u32, 1..6).prop_map(Event::Want),
        1 => any::<usize>().prop_map(Event::Replace),
    ]
}

/// Rings of a few shards that are anything but fair.
fn ring() -> impl Strategy<Value = Tokens> {
    prop::collection::btree_map(any::<u32>(), 0..4u16, 1..16).prop_map(|tokens| {
        let mut ranges = Vec::new();
        let mut lo = 0;
        let over_zero = *tokens.first_key_value().unwrap().1;
        for (position, ordinal) in tokens {
            let hi = u64::from(position) + 1;
            ranges.push((Range { lo, hi }, Ordinal(ordinal)));
            lo = hi;
        }
        if lo < POSITIONS {
            ranges.push((Range { lo, hi: POSITIONS }, Ordinal(over_zero)));
        }
        Tokens::from_ranges(ranges).unwrap()
    })
}

struct Cluster {
    databases: Databases,
    wish: Wish,
    /// What an operator had read when it was stopped.
    late: Steps,
    next_ordinal: u16,
}

impl Cluster {
    fn views(&mut self) -> impl Iterator<Item = &mut ShardView> {
        self.databases.shards.values_mut()
    }

    fn new(tokens: &Tokens, weights: &[u32], max_parallel: usize) -> Self {
        let mut cluster = Self {
            databases: Databases::owning(tokens, tokens.shares().into_keys()),
            wish: Wish {
                shards: BTreeSet::new(),
                may_own: BTreeMap::new(),
                max_parallel,
                paused: false,
                abort: false,
                strict: BTreeSet::new(),
            },
            late: Steps::default(),
            next_ordinal: 4,
        };
        cluster.want(weights);
        cluster
    }

    /// What an operator decides whom one shard may not answer.
    fn look(&mut self, silent: Option<usize>) -> Steps {
        self.wish.shards = self.databases.shards.keys().copied().collect();
        let mut seen = self.databases.shards.clone();
        if let Some(ordinal) = silent.and_then(|silent| pick(seen.keys().copied(), silent)) {
            seen.remove(&ordinal);
        }
        next_steps(&seen, &self.wish)
    }

    fn want(&mut self, weights: &[u32]) {
        let weights = weights.iter().map(|weight| Weight::new(*weight).unwrap());
        self.wish.may_own = (0..).map(Ordinal).zip(weights).collect();
        let ordinals: Vec<Ordinal> = self.wish.may_own.keys().copied().collect();
        ordinals.into_iter().for_each(|ordinal| self.databases.join(ordinal));
    }

    fn happens(&mut self, event: &Event) {
        match event {
            Event::Operator {
                life,
                cut,
                first,
                silent,
            } => {
                let steps = self.look(*silent);
                work(&mut self.databases, &steps, *first, *cut, Life(*life));
                // Now and then somebody remembers this for later.
                if first % 3 == 0 {
                    self.late = steps;
                }
            }
            Event::Late { life, cut, first } => work(&mut self.databases, &self.late, *first, *cut, Life(*life)),
            Event::Write(key) => self.databases.write(*key),
            Event::FailOver(shard) => {
                let shard = pick(self.databases.shards.keys().copied(), *shard).unwrap();
                self.databases.fail_over(shard);
            }
            Event::Thaw => self.thaw(),
            Event::LoseSlot(number) => {
                let slots = self.views().flat_map(|view| view.slots.iter_mut());
                if let Some(slot) = pick(slots, *number) {
                    slot.invalidated = true;
                }
            }
            Event::StopSubscription(number) => {
                let all = self.views().flat_map(|view| view.subscriptions.iter_mut());
                if let Some(one) = pick(all, *number) {
                    one.enabled = false;
                }
            }
            Event::Expire(number, freezes) => {
                let all = self.views().flat_map(|view| view.copies.iter_mut());
                if let Some(copy) = pick(all, *number) {
                    copy.expired_freezes += freezes;
                }
            }
            Event::Resumed(number, resumes) => {
                let all = self.views().flat_map(|view| view.copies.iter_mut());
                if let Some(copy) = pick(all, *number) {
                    copy.resumes += resumes;
                }
            }
            Event::Paused(paused) => self.wish.paused = *paused,
            Event::Abort(abort) => self.wish.abort = *abort,
            Event::Strict(shard) => {
                let shard = pick(self.databases.shards.keys().copied(), *shard).unwrap();
                if !self.wish.strict.remove(&shard) {
                    self.wish.strict.insert(shard);
                }
            }
            Event::Want(weights) => self.want(weights),
            Event::Replace(number) => {
                let gone = pick(self.wish.may_own.keys().copied(), *number).unwrap();
                let weight = self.wish.may_own.remove(&gone).unwrap();
                let new = Ordinal(self.next_ordinal.max(6));
                self.next_ordinal = new.get() + 1;
                self.wish.may_own.insert(new, weight);
                self.databases.join(new);
            }
        }
    }

    fn thaw(&mut self) {
        let frozen: Vec<_> = self
            .databases
            .shards
            .values()
            .flat_map(|view| view.rows.iter().map(|row| (view.ordinal, row)))
            .filter(|(_, row)| row.state == RangeState::Frozen)
            .filter_map(|(shard, row)| Some((shard, row.move_id?, row.range, row.attempt)))
            .collect();
        for (shard, move_id, range, attempt) in frozen {
            self.databases.thaw(shard, move_id, range, attempt);
        }
    }

    /// Each position has one owner, which has the newest row that anybody was told is stored.
    fn check_safety(&self) -> Result<(), TestCaseError> {
        let truth = truth(&self.databases.shards);
        prop_assert!(truth.is_ok(), "{truth:?}");
        let ranges = truth.unwrap().ranges();
        for (key, version) in &self.databases.acknowledged {
            let owner = ranges[ranges.partition_point(|(range, _)| range.hi <= *key)].1;
            let found = self.databases.data[&owner].get(key);
            prop_assert_eq!(found, Some(version), "key {} at its owner {}", key, owner);
        }
        Ok(())
    }

    /// From here on nothing goes wrong any more.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..ROUNDS {
            let steps = self.look(None);
            prop_assert!(steps.blocked.is_empty(), "{:?}", steps.blocked);
            if steps.is_done() {
                return Ok(());
            }
            work(&mut self.databases, &steps, 0, 0, Life::LONG);
            self.check_safety()?;
        }
        let steps = next_steps(&self.databases.shards, &self.wish);
        prop_assert!(false, "it does not end: {:?}", steps);
        Ok(())
    }

    fn check_nothing_is_left(&self) -> Result<(), TestCaseError> {
        prop_assert_eq!(self.databases.leftovers(), Vec::<String>::new());
        let truth = truth(&self.databases.shards).unwrap();
        prop_assert!(
            self.databases.strays(&truth).is_empty(),
            "{:?}",
            self.databases.strays(&truth)
        );
        Ok(())
    }

    fn owners(&self) -> Vec<(Ordinal, Weight)> {
        self.wish
            .may_own
            .iter()
            .map(|(ordinal, weight)| (*ordinal, *weight))
            .collect()
    }
}

fn pick<T>(all: impl Iterator<Item = T>, number: usize) -> Option<T> {
    let mut all: Vec<T> = all.collect();
    let index = number.checked_rem(all.len())?;
    Some(all.swap_remove(index))
}

/// Does the steps in turn, beginning anywhere: they may be done in any order.
fn work(databases: &mut Databases, steps: &Steps, first: usize, cut: u8, mut life: Life) {
    let count = steps.steps.len().max(1);
    for index in 0..steps.steps.len() {
        if execute(databases, &steps.steps[(first + index) % count], cut, &mut life).is_none() && life.0 == 0 {
            return;
        }
    }
}

fn shards_with(steps: &Steps, is: impl Fn(&Step) -> bool) -> usize {
    steps.steps.iter().filter(|step| is(step)).count()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_happens_the_wished_ring_is_reached_and_nothing_is_left(
        tokens in ring(),
        weights in prop::collection::vec(1..4u32, 1..6),
        max_parallel in 1..4usize,
        events in prop::collection::vec(event(), 0..60),
    ) {
        let mut cluster = Cluster::new(&tokens, &weights, max_parallel);
        for event in &events {
            cluster.happens(event);
            cluster.check_safety()?;
        }
        cluster.wish.paused = false;
        cluster.wish.abort = false;
        cluster.settle()?;
        cluster.check_nothing_is_left()?;
        let truth = truth(&cluster.databases.shards).unwrap();
        prop_assert_eq!(plan(&truth, &cluster.owners()).unwrap().moves, []);
        prop_assert!(truth.shares().keys().all(|ordinal| cluster.wish.may_own.contains_key(ordinal)));
    }

    #[test]
    fn an_abort_ends_with_nothing_left_wherever_it_comes(
        tokens in ring(),
        weights in prop::collection::vec(1..4u32, 1..6),
        events in prop::collection::vec(event(), 0..40),
    ) {
        let mut cluster = Cluster::new(&tokens, &weights, 2);
        for event in &events {
            cluster.happens(event);
        }
        cluster.wish.abort = true;
        let before = truth(&cluster.databases.shards).unwrap();
        cluster.settle()?;
        cluster.check_nothing_is_left()?;
        prop_assert_eq!(truth(&cluster.databases.shards).unwrap(), before, "an abort moves nothing");
    }

    #[test]
    fn a_paused_rebalance_finishes_what_it_copies_and_begins_nothing(
        tokens in ring(),
        weights in prop::collection::vec(1..4u32, 1..6),
        rounds in 0..12usize,
    ) {
        let mut cluster = Cluster::new(&tokens, &weights, 1);
        for _ in 0..rounds {
            cluster.happens(&Event::Operator { life: 5, cut: 0, first: 0, silent: None });
        }
        cluster.wish.paused = true;
        let waiting = |cluster: &Cluster| -> Vec<MoveId> {
            let copies = cluster.databases.shards.values().flat_map(|view| &view.copies);
            copies.filter(|copy| copy.source_term.is_none()).map(|copy| copy.move_id).collect()
        };
        for _ in 0..ROUNDS {
            let steps = next_steps(&cluster.databases.shards, &cluster.wish);
            prop_assert_eq!(shards_with(&steps, |step| matches!(step, Step::Begin { .. })), 0);
            if steps.is_done() {
                break;
            }
            work(&mut cluster.databases, &steps, 0, 0, Life::LONG);
        }
        prop_assert!(next_steps(&cluster.databases.shards, &cluster.wish).is_done());
        let left: Vec<MoveId> = cluster.databases.shards.values().flat_map(|view| &view.copies).map(|copy| copy.move_id).collect();
        prop_assert_eq!(left, waiting(&cluster), "only moves that nobody has begun to copy are left");
        cluster.wish.paused = false;
        cluster.settle()?;
        cluster.check_nothing_is_left()?;
    }
}

/// One change of a cluster whose shards have their fair shares.
#[derive(Clone, Debug)]
enum Change {
    Join(usize),
    Leave(usize),
    Reweigh(usize, u32),
    Replace(usize),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (1..4usize).prop_map(Change::Join),
        (1..3usize).prop_map(Change::Leave),
        (any::<usize>(), 1..4u32).prop_map(|(one, weight)| Change::Reweigh(one, weight)),
        any::<usize>().prop_map(Change::Replace),
    ]
}

fn changed(before: &BTreeMap<Ordinal, Weight>, change: &Change) -> BTreeMap<Ordinal, Weight> {
    let mut after = before.clone();
    match change {
        Change::Join(number) => after.extend((100..).map(Ordinal).zip(vec![Weight::ONE; *number])),
        Change::Leave(number) => {
            let stay = after.len().saturating_sub(*number).max(1);
            after = after.into_iter().take(stay).collect();
        }
        Change::Reweigh(one, weight) => {
            let ordinal = pick(before.keys().copied(), *one).unwrap();
            after.insert(ordinal, Weight::new(*weight).unwrap());
        }
        Change::Replace(one) => {
            let gone = pick(before.keys().copied(), *one).unwrap();
            let weight = after.remove(&gone).unwrap();
            after.insert(Ordinal(100), weight);
        }
    }
    after
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn operators_that_die_move_no_more_than_the_ideal_and_no_key_that_need_not(
        weights in prop::collection::vec(1..4u32, 1..6),
        change in change(),
        max_parallel in 1..4usize,
        lives in prop::collection::vec((1..40usize, any::<u8>()), 0..20),
    ) {
        let before: BTreeMap<Ordinal, Weight> =
            (0..).map(Ordinal).zip(weights.iter().map(|weight| Weight::new(*weight).unwrap())).collect();
        let owners: Vec<_> = before.iter().map(|(ordinal, weight)| (*ordinal, *weight)).collect();
        let tokens = ring::plan(None, &owners).unwrap();
        let mut cluster = Cluster::new(&tokens, &weights, max_parallel);
        cluster.wish.may_own = changed(&before, &change);
        let ordinals: Vec<Ordinal> = cluster.wish.may_own.keys().copied().collect();
        ordinals.into_iter().for_each(|ordinal| cluster.databases.join(ordinal));
        for (life, cut) in lives {
            cluster.happens(&Event::Operator { life, cut, first: 1, silent: None });
        }
        cluster.settle()?;
        cluster.check_nothing_is_left()?;

        let moves = tokens.moves_to(&truth(&cluster.databases.shards).unwrap());
        let fair = |weights: &BTreeMap<Ordinal, Weight>, ordinal: &Ordinal| {
            let total: u32 = weights.values().map(|weight| weight.get()).sum();
            let part = |weight: &Weight| POSITIONS as f64 * f64::from(weight.get()) / f64::from(total);
            weights.get(ordinal).map_or(0.0, part)
        };
        let after = &cluster.wish.may_own;
        let ideal: f64 = after.keys().map(|one| (fair(after, one) - fair(&before, one)).max(0.0)).sum();
        let moved: u64 = moves.iter().map(|one| one.range.len()).sum();
        prop_assert!(moved as f64 <= 1.02 * ideal + 32.0, "{moved} moved, {ideal} ideally, by {change:?}");
        if matches!(change, Change::Join(_) | Change::Leave(_)) {
            let stays = |ordinal: &Ordinal| before.contains_key(ordinal) && after.contains_key(ordinal);
            let idle = moves.iter().find(|one| stays(&one.from) && stays(&one.to));
            prop_assert!(idle.is_none(), "{idle:?} between shards that stay, by {change:?}");
        }
    }
}
