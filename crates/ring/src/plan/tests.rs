use std::collections::BTreeMap;

use super::*;
use crate::{Epoch, Ring, Shard, ShardState, encode};

type Weights = BTreeMap<Ordinal, Weight>;

fn weight(weight: u32) -> Weight {
    Weight::new(weight).unwrap()
}

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

/// The fullest shard's share, over what would be fair.
fn worst_fill(tokens: &Tokens, weights: &Weights) -> f64 {
    let fills = tokens
        .shares()
        .into_iter()
        .map(|(ordinal, held)| held as f64 / fair_share(weights, ordinal));
    fills.fold(0.0, f64::max)
}

/// What moved, over what any planner that ends with fair shares would have to move.
fn cost(before: &Tokens, weights_before: &Weights, after: &Tokens, weights_after: &Weights) -> f64 {
    let moved: u64 = before.moves_to(after).iter().map(|change| change.range.len()).sum();
    let gained = weights_after
        .keys()
        .map(|&ordinal| (fair_share(weights_after, ordinal) - fair_share(weights_before, ordinal)).max(0.0));
    moved as f64 / gained.sum::<f64>().max(1.0)
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
