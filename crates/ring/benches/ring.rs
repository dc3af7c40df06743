//! How long planning and looking up take: `cargo bench -p ringwright-ring`. Plain measurements, to compare by eye.

use std::hint::black_box;
use std::time::Instant;

use ring::{Epoch, Ordinal, Position, Ring, Shard, ShardState, Tokens, Weight, decode, encode, plan};

fn measure<T>(what: &str, times: u32, mut work: impl FnMut() -> T) {
    let start = Instant::now();
    for _ in 0..times {
        black_box(work());
    }
    println!("{what:<40} {:>12.3?}", start.elapsed() / times);
}

fn shards(count: u16) -> Vec<(Ordinal, Weight)> {
    (0..count).map(|ordinal| (Ordinal(ordinal), Weight::ONE)).collect()
}

fn ring(count: u16, tokens: Tokens) -> Ring {
    let shard = |ordinal| Shard {
        name: format!("shop-{ordinal}"),
        ordinal: Ordinal(ordinal),
        state: ShardState::Active,
        hosts: (0..2)
            .map(|instance| format!("shop-{ordinal}-{instance}.shop-{ordinal}.default.svc:5432"))
            .collect(),
    };
    Ring::new(Epoch(1), (0..count).map(shard).collect(), tokens).expect("every owner is listed")
}

fn main() {
    for count in [3, 100, 999] {
        println!("{count} shards");
        let fresh = plan(None, &shards(count)).expect("a plan");
        measure("  plan a fresh ring", 10, || plan(None, &shards(count)));
        measure("  plan one shard more", 10, || plan(Some(&fresh), &shards(count + 1)));
        measure("  plan one shard less", 10, || plan(Some(&fresh), &shards(count - 1)));
        let ring = ring(count, fresh);
        let encoded = encode(&ring);
        measure("  encode", 10, || encode(&ring));
        measure("  decode", 10, || decode(&encoded));
        let mut position = 0u32;
        measure("  locate", 1_000_000, || {
            position = position.wrapping_add(0x9e37_79b9);
            ring.locate(Position::new(position)).ordinal
        });
    }
}
