//! The protocol as it is built, and the protocol with rules left out.
//!
//! `RINGWRIGHT_MODEL=deep` looks further; that takes minutes, and gigabytes of memory.

mod mutations;
mod protocol;

use std::io::Write as _;
use std::time::Instant;

use move_model::{Bounds, Model, Outcome, Rules, search};

/// The least there is to look at: one move, one operator, nobody dies.
const LEAST: Bounds = Bounds {
    operators: 1,
    moves: 1,
    attempts: 1,
    failovers: [0, 0],
    inserts_and_deletes: 1,
    second_client: false,
    aborts: false,
    locks: false,
};

fn is_deep() -> bool {
    std::env::var("RINGWRIGHT_MODEL").is_ok_and(|value| value == "deep")
}

/// Searches, and says so past the capture of the test harness: how many states there were is worth seeing in a log.
fn look(name: &str, rules: Rules, bounds: Bounds) -> Outcome {
    let started = Instant::now();
    let outcome = search(&Model { rules, bounds });
    let said = match &outcome {
        Outcome::Holds { states, depth } => format!("{states} states, {depth} steps deep, all is well"),
        Outcome::Violated { what, story, .. } => format!("{what}, in {} steps", story.len()),
    };
    let seconds = started.elapsed().as_secs_f64();
    let _ = writeln!(std::io::stderr(), "model: {name}: {said} ({seconds:.1} s)");
    outcome
}

fn holds(name: &str, rules: Rules, bounds: Bounds) {
    if let Outcome::Violated { what, story, .. } = look(name, rules, bounds) {
        panic!("{name}: {what}:\n{}", story.join("\n"));
    }
}
