//! The protocol as it is built, and the protocol with rules left out.
//!
//! `RINGWRIGHT_MODEL=deep` looks further; that takes minutes, and gigabytes of memory.

use std::io::Write as _;
use std::time::Instant;

use move_model::{Bounds, Model, Outcome, Rules, search};

/// One hand-over with two operators: each shard may fail over, a client inserts a row and deletes it.
const HAND_OVER: Bounds = Bounds {
    operators: 2,
    moves: 1,
    attempts: 2,
    failovers: [1, 0],
    inserts_and_deletes: 2,
    second_client: false,
    aborts: false,
    locks: false,
};

fn is_deep() -> bool {
    std::env::var("RINGWRIGHT_MODEL").is_ok_and(|value| value == "deep")
}

/// Searches, and says so past the capture of the test harness: the number of states is worth seeing in a log.
fn look(name: &str, rules: Rules, bounds: Bounds) -> Outcome {
    let started = Instant::now();
    let outcome = search(&Model { rules, bounds });
    let said = match &outcome {
        Outcome::Holds { states, depth } => format!("{states} states, {depth} steps deep, all is well"),
        Outcome::Violated { what, story } => format!("{what}, in {} steps", story.len()),
    };
    let _ = writeln!(
        std::io::stderr(),
        "model: {name}: {said} ({:.1} s)",
        started.elapsed().as_secs_f64()
    );
    outcome
}

fn holds(name: &str, bounds: Bounds) {
    if let Outcome::Violated { what, story } = look(name, Rules::ALL, bounds) {
        panic!("{what}:\n{}", story.join("\n"));
    }
}

#[test]
fn probe() {
    holds("a hand-over", HAND_OVER);
}
