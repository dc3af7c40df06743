use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::{Epoch, Position, Ring, Shard, ShardState, Token, encode};

type Weights = BTreeMap<Ordinal, Weight>;

fn planned(previous: Option<&Tokens>, weights: &Weights) -> Tokens {
    let shards: Vec<_> = weights.iter().map(|(ordinal, weight)| (*ordinal, *weight)).collect();
    plan(previous, &shards).unwrap()
}

fn fair_share(weights: &Weights, ordinal: Ordinal) -> f64 {
    let total: u64 = weights.values().map(|weight| weight.0).sum();
    weights
        .get(&ordinal)
        .map_or(0.0, |weight| POSITIONS as f64 * weight.0 as f64 / total as f64)
}

/// The size of the ConfigMap of a ring, its binary part counted as the base64 in which clients see it.
fn encoded_size(tokens: &Tokens, weights: &Weights) -> usize {
    let shard = |&ordinal: &Ordinal| {
        let host = |instance| format!("shop-{ordinal}-{instance}.shop-{ordinal}.production.svc:5432");
        let hosts = (0..2).map(host).collect();
        Shard {
            name: format!("shop-{ordinal}"),
            ordinal,
            state: ShardState::Active,
            hosts,
        }
    };
    let ring = Ring::new(Epoch(1_000_000), weights.keys().map(shard).collect(), tokens.clone()).unwrap();
    let encoded = encode(&ring);
    encoded.ring_json.len() + encoded.digest.len() + encoded.tokens.len().div_ceil(3) * 4
}

/// One change that an operator might make; a number picks one of the shards there are.
#[derive(Clone, Debug)]
enum Change {
    Join(Vec<Weight>),
    Leave(Vec<u32>),
    Reweigh(u32, Weight),
    Swap(u32, Weight),
}

/// A cluster through its changes; ordinals are never used again.
struct Cluster {
    weights: Weights,
    tokens: Tokens,
    next: u16,
}

impl Cluster {
    fn new(weights: Vec<Weight>) -> Self {
        let next = weights.len() as u16;
        let weights: Weights = (0..).map(Ordinal).zip(weights).collect();
        Self {
            tokens: planned(None, &weights),
            weights,
            next,
        }
    }

    fn pick(&self, number: u32) -> Ordinal {
        *self.weights.keys().nth(number as usize % self.weights.len()).unwrap()
    }

    fn join(&mut self, weight: Weight) {
        self.weights.insert(Ordinal(self.next), weight);
        self.next += 1;
    }

    fn leave(&mut self, number: u32) {
        if self.weights.len() > 1 {
            self.weights.remove(&self.pick(number));
        }
    }

    /// Makes a change and checks everything that a plan promises.
    fn apply(&mut self, change: &Change) -> Result<(), TestCaseError> {
        let before = self.weights.clone();
        match change {
            Change::Join(weights) => weights.iter().for_each(|&weight| self.join(weight)),
            Change::Leave(shards) => shards.iter().for_each(|shard| self.leave(*shard)),
            Change::Reweigh(shard, weight) => {
                self.weights.insert(self.pick(*shard), *weight);
            }
            Change::Swap(shard, weight) => {
                self.join(*weight);
                self.leave(*shard);
            }
        }
        let tokens = planned(Some(&self.tokens), &self.weights);
        let moves = self.tokens.moves_to(&tokens);
        let moved: u64 = moves.iter().map(|change| change.range.len()).sum();
        self.check_fairness(&tokens)?;
        // What any planner must move that goes from fair shares to fair shares.
        let grown = |&ordinal: &Ordinal| (fair_share(&self.weights, ordinal) - fair_share(&before, ordinal)).max(0.0);
        let ideal: f64 = self.weights.keys().map(grown).sum();
        // Shares are whole positions: rounding may take a few of each shard.
        let allowed = 1.02 * ideal + 3.0 * self.weights.len() as f64;
        prop_assert!(moved as f64 <= allowed, "{moved} moved, {ideal} ideally, by {change:?}");
        if matches!(change, Change::Join(_) | Change::Leave(_)) {
            let stay = |ordinal: &Ordinal| before.contains_key(ordinal) && self.weights.contains_key(ordinal);
            let idle = moves.iter().find(|change| stay(&change.from) && stay(&change.to));
            prop_assert!(idle.is_none(), "{idle:?} between shards that stay, by {change:?}");
        }
        self.tokens = tokens;
        Ok(())
    }

    fn check_fairness(&self, tokens: &Tokens) -> Result<(), TestCaseError> {
        let shares = tokens.shares();
        let owners: BTreeSet<_> = shares.keys().collect();
        prop_assert_eq!(
            owners,
            self.weights.keys().collect::<BTreeSet<_>>(),
            "who owns something"
        );
        for (ordinal, held) in shares {
            let fill = held as f64 / fair_share(&self.weights, ordinal);
            prop_assert!(fill <= 1.05, "shard {ordinal} has {fill} of its fair share");
            // Stricter than what is promised: else the next change would have to move more than it may.
            prop_assert!(
                (0.975..=1.02).contains(&fill),
                "shard {ordinal} has {fill} of its fair share"
            );
        }
        Ok(())
    }
}

fn weight(largest: u32) -> impl Strategy<Value = Weight> {
    (1..=largest).prop_map(|weight| Weight::new(weight).unwrap())
}

fn change(largest: u32) -> impl Strategy<Value = Change> {
    prop_oneof![
        2 => prop::collection::vec(weight(largest), 1..4).prop_map(Change::Join),
        2 => prop::collection::vec(any::<u32>(), 1..4).prop_map(Change::Leave),
        2 => (any::<u32>(), weight(largest)).prop_map(|(shard, weight)| Change::Reweigh(shard, weight)),
        1 => (any::<u32>(), weight(largest)).prop_map(|(shard, weight)| Change::Swap(shard, weight)),
    ]
}

/// Clusters of 1 to `shards` shards, most of them small, and the largest weight their shards have.
fn cluster(shards: usize) -> impl Strategy<Value = (Vec<Weight>, u32)> {
    let count = prop_oneof![4 => 1..=12usize, 2 => 1..=100usize, 1 => 1..=shards];
    let largest = prop_oneof![Just(1u32), 2..=16u32, Just(Weight::MAX)];
    (count, largest).prop_flat_map(|(count, largest)| (prop::collection::vec(weight(largest), count), Just(largest)))
}

/// A fixed sequence of pseudo-random changes of a cluster of at most `most` shards.
fn random_changes(most: usize, largest: u32) -> impl FnMut(&Cluster) -> Change {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: u32| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 16) % u64::from(below)) as u32
    };
    move |cluster| {
        let weight = Weight::new(1 + random(largest)).unwrap();
        match random(3) {
            0 => Change::Reweigh(random(1 << 20), weight),
            1 if cluster.weights.len() < most => Change::Join(vec![weight]),
            _ => Change::Leave(vec![random(1 << 20)]),
        }
    }
}

/// Runs 1,000 random changes and returns the largest size that the encoded ring had.
fn largest_of_a_thousand_changes(shards: usize, largest_weight: u32) -> usize {
    let mut change = random_changes(shards, largest_weight);
    let weights = std::iter::repeat_n(Weight::ONE, shards).collect();
    let mut cluster = Cluster::new(weights);
    let mut largest = 0;
    for number in 0..1_000 {
        let change = change(&cluster);
        cluster.apply(&change).unwrap();
        if number % 20 == 19 {
            largest = largest.max(encoded_size(&cluster.tokens, &cluster.weights));
        }
    }
    largest
}

#[test]
fn after_a_thousand_changes_a_thousand_shards_fit_into_700_kilobytes() {
    assert!(largest_of_a_thousand_changes(1_000, 8) < 700_000);
}

#[test]
fn a_thousand_changes_keep_a_small_ring_small() {
    // 64 tokens a shard would be 10 kB packed, and twice that is what a larger number of shards leaves behind.
    assert!(largest_of_a_thousand_changes(20, 3) < 20_000);
}

#[test]
fn a_cluster_grows_to_a_thousand_shards_and_shrinks_to_one() {
    let mut cluster = Cluster::new(vec![Weight::ONE]);
    while cluster.weights.len() < 1_000 {
        // One by one, and by steps of five percent once that is more.
        let joining = (cluster.weights.len() / 20).clamp(1, 1_000 - cluster.weights.len());
        cluster.apply(&Change::Join(vec![Weight::ONE; joining])).unwrap();
    }
    assert!(encoded_size(&cluster.tokens, &cluster.weights) < 700_000);
    while cluster.weights.len() > 1 {
        let leaving = (cluster.weights.len() / 20).max(1) as u32;
        cluster
            .apply(&Change::Leave((0..leaving).map(|number| number * 7).collect()))
            .unwrap();
    }
    let last = Token {
        position: Position::new(u32::MAX),
        ordinal: *cluster.weights.keys().next().unwrap(),
    };
    assert_eq!(cluster.tokens.as_slice(), [last]);
}

#[test]
fn a_shard_that_takes_the_place_of_another_gets_what_that_had() {
    // Found at random: the new shard was handed the lower edge of the band and took the rest from those that stay.
    let mut cluster = Cluster::new(vec![Weight::ONE; 11]);
    cluster.apply(&Change::Leave(vec![44_347_177])).unwrap();
    cluster.apply(&Change::Swap(171_624_773, Weight::ONE)).unwrap();
}

#[test]
fn a_small_change_of_a_weight_moves_no_more_than_its_part() {
    // Found at random: shards a little above the band were left alone, and brought within it by the next change.
    let weight = |weight| Weight::new(weight).unwrap();
    let mut cluster = Cluster::new(vec![weight(9), weight(7), weight(1)]);
    for change in [
        Change::Leave(vec![0, 0]),
        Change::Join(vec![weight(2)]),
        Change::Join(vec![weight(1)]),
        Change::Leave(vec![43_129_385]),
        Change::Join(vec![weight(12)]),
        Change::Reweigh(200_038_676, weight(13)),
    ] {
        cluster.apply(&change).unwrap();
    }
}

#[test]
fn a_fresh_ring_is_the_same_for_ever() {
    // A cluster whose ring was planned and not yet written must get the same one from another operator's version.
    let tokens = plan(
        None,
        &[
            (Ordinal(0), Weight::ONE),
            (Ordinal(1), Weight::ONE),
            (Ordinal(2), Weight::ONE),
        ],
    )
    .unwrap();
    let first: Vec<_> = tokens.as_slice()[..6]
        .iter()
        .map(|token| (token.position.get(), token.ordinal.get()))
        .collect();
    let golden = [
        (22_369_620, 2),
        (44_739_241, 0),
        (67_108_862, 1),
        (89_478_483, 0),
        (111_848_104, 2),
        (134_217_725, 1),
    ];
    assert_eq!(first, golden);
}

#[test]
fn plans_for_nobody_for_too_many_or_for_one_twice_are_refused() {
    let shards = |count: u16| {
        (0..count)
            .map(|ordinal| (Ordinal(ordinal), Weight::ONE))
            .collect::<Vec<_>>()
    };
    assert_eq!(plan(None, &[]), Err(PlanError::NoShards));
    assert_eq!(plan(None, &shards(1_001)), Err(PlanError::TooManyShards(1_001)));
    let twice = [(Ordinal(3), Weight::ONE), (Ordinal(3), Weight::ONE)];
    assert_eq!(plan(None, &twice), Err(PlanError::DuplicateOrdinal(Ordinal(3))));
    assert_eq!(Weight::new(0), Err(PlanError::Weight(0)));
    assert_eq!(Weight::new(1_001), Err(PlanError::Weight(1_001)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_fresh_ring_is_fair_to_the_position_with_64_tokens_each((weights, _) in cluster(1_000)) {
        let cluster = Cluster::new(weights);
        let shares = cluster.tokens.shares();
        prop_assert_eq!(shares.len(), cluster.weights.len());
        for (ordinal, held) in shares {
            prop_assert!((held as f64 - fair_share(&cluster.weights, ordinal)).abs() <= 1.0);
        }
        let mut tokens = BTreeMap::new();
        cluster.tokens.as_slice().iter().for_each(|token| *tokens.entry(token.ordinal).or_insert(0) += 1);
        let each = if cluster.weights.len() == 1 { 1 } else { 64 };
        prop_assert!(tokens.values().all(|count| *count == each));
    }

    #[test]
    fn changes_move_little_and_end_fair(
        (changes, weights) in cluster(1_000).prop_flat_map(|(weights, largest)| {
            (prop::collection::vec(change(largest), 1..12), Just(weights))
        }),
    ) {
        let mut cluster = Cluster::new(weights);
        for change in changes {
            if cluster.weights.len() <= MAX_SHARDS - 3 {
                cluster.apply(&change)?;
            }
        }
    }

    #[test]
    fn a_plan_that_changes_nothing_moves_nothing((weights, _) in cluster(1_000)) {
        let cluster = Cluster::new(weights);
        prop_assert_eq!(&planned(Some(&cluster.tokens), &cluster.weights), &cluster.tokens);
    }

    #[test]
    fn the_order_of_the_shards_does_not_matter((weights, _) in cluster(100), join: u16) {
        let cluster = Cluster::new(weights);
        let mut shards: Vec<_> = cluster.weights.iter().map(|(ordinal, weight)| (*ordinal, *weight)).collect();
        shards.push((Ordinal(1_000 + join % 1_000), Weight::ONE));
        let forward = plan(Some(&cluster.tokens), &shards).unwrap();
        shards.reverse();
        prop_assert_eq!(plan(Some(&cluster.tokens), &shards).unwrap(), forward);
    }

    /// What is rebuilt from the databases need not be a ring that was ever planned.
    #[test]
    fn any_ring_is_brought_into_the_band(
        tokens in prop::collection::btree_map(any::<u32>(), 0..40u16, 1..200), (weights, _) in cluster(40),
    ) {
        let mut ranges = Vec::new();
        let mut lo = 0;
        for (position, ordinal) in tokens {
            let hi = u64::from(position) + 1;
            ranges.push((crate::Range { lo, hi }, Ordinal(ordinal)));
            lo = hi;
        }
        if lo < POSITIONS {
            ranges.push((crate::Range { lo, hi: POSITIONS }, Ordinal(0)));
        }
        let cluster = Cluster::new(weights);
        let wild = Tokens::from_ranges(ranges).unwrap();
        cluster.check_fairness(&planned(Some(&wild), &cluster.weights))?;
    }
}
