//! Every state there is, breadth first; then backwards, from which of them things end well.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};

use crate::protocol::Model;
use crate::state::{Action, State};

/// What a search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every state was seen, and all is well.
    Holds {
        /// How many states there are.
        states: usize,
        /// How many steps the farthest of them is away.
        depth: usize,
    },
    /// What must not be has happened.
    Violated {
        /// What.
        what: &'static str,
        /// The shortest story that leads there, one line a step.
        story: Vec<String>,
    },
}

impl Outcome {
    /// What went wrong, if anything did.
    pub fn violation(&self) -> Option<&'static str> {
        match self {
            Self::Holds { .. } => None,
            Self::Violated { what, .. } => Some(what),
        }
    }
}

/// Every state that was seen, and how it was reached first.
#[derive(Default)]
struct Seen {
    states: Vec<State>,
    parents: Vec<u32>,
    /// By hash; of two states with one hash, the later is under another.
    index: HashMap<u64, u32, BuildHasherDefault<Mix>>,
    /// Where the successors of each state begin in `edges`.
    offsets: Vec<usize>,
    edges: Vec<u32>,
}

/// Looks at every state that can be reached from the beginning, within the model's bounds.
///
/// # Panics
/// With more than 2^32 states, for which no memory would be large enough.
pub fn search(model: &Model) -> Outcome {
    let mut seen = Seen::default();
    seen.add(State::default(), 0);
    let (mut next, mut at, mut depth, mut end_of_depth) = (Vec::new(), 0, 0, 1);
    while at < seen.states.len() {
        let state = seen.states[at];
        if let Some(what) = state.violation() {
            let story = seen.story(model, at);
            return Outcome::Violated { what, story };
        }
        model.next(&state, &mut next);
        seen.offsets.push(seen.edges.len());
        for (_, after) in next.drain(..) {
            let index = seen.add(after, at);
            seen.edges.push(index);
        }
        at += 1;
        if at == end_of_depth && at < seen.states.len() {
            depth += 1;
            end_of_depth = seen.states.len();
        }
    }
    seen.offsets.push(seen.edges.len());
    let stuck = "from here on nobody can ever write to the range";
    let endless = "from here on the move cannot come to an end";
    let predecessors = Predecessors::of(&seen);
    for (what, found) in [
        (stuck, predecessors.cannot_reach(&seen.states, State::is_writable)),
        (endless, predecessors.cannot_reach(&seen.states, State::is_settled)),
    ] {
        if let Some(found) = found {
            let story = seen.story(model, found);
            return Outcome::Violated { what, story };
        }
    }
    Outcome::Holds {
        states: seen.states.len(),
        depth,
    }
}

impl Seen {
    fn add(&mut self, state: State, parent: usize) -> u32 {
        let mut hash = BuildHasherDefault::<Mix>::default().hash_one(state);
        loop {
            match self.index.entry(hash) {
                Entry::Occupied(found) if self.states[*found.get() as usize] == state => return *found.get(),
                Entry::Occupied(_) => hash = hash.wrapping_add(1),
                Entry::Vacant(free) => {
                    let index = u32::try_from(self.states.len()).expect("fewer than 2^32 states fit into memory");
                    self.states.push(state);
                    self.parents.push(parent as u32);
                    return *free.insert(index);
                }
            }
        }
    }

    /// How a state was reached, told from the beginning.
    fn story(&self, model: &Model, end: usize) -> Vec<String> {
        let mut path = vec![end];
        while let Some(&at) = path.last().filter(|at| **at != 0) {
            path.push(self.parents[at] as usize);
        }
        path.reverse();
        let mut story = Vec::with_capacity(path.len());
        let mut next = Vec::new();
        for step in path.windows(2) {
            next.clear();
            model.next(&self.states[step[0]], &mut next);
            let after = &self.states[step[1]];
            let action = next.iter().find(|(_, state)| state == after).map(|(action, _)| *action);
            story.push(tell(action, after));
        }
        story
    }
}

/// The edges turned round.
struct Predecessors {
    /// Where those of each state begin.
    begins: Vec<usize>,
    states: Vec<u32>,
}

impl Predecessors {
    fn of(seen: &Seen) -> Self {
        let mut begins = vec![0; seen.states.len() + 1];
        for &to in &seen.edges {
            begins[to as usize + 1] += 1;
        }
        for index in 1..begins.len() {
            begins[index] += begins[index - 1];
        }
        let (mut fill, mut states) = (begins.clone(), vec![0; seen.edges.len()]);
        for from in 0..seen.states.len() {
            for &to in &seen.edges[seen.offsets[from]..seen.offsets[from + 1]] {
                states[fill[to as usize]] = from as u32;
                fill[to as usize] += 1;
            }
        }
        Self { begins, states }
    }

    /// The first of the states from which no good one can be reached.
    fn cannot_reach(&self, all: &[State], is_good: fn(&State) -> bool) -> Option<usize> {
        let mut well: Vec<bool> = all.iter().map(is_good).collect();
        let mut work: Vec<usize> = (0..well.len()).filter(|index| well[*index]).collect();
        while let Some(to) = work.pop() {
            for &from in &self.states[self.begins[to]..self.begins[to + 1]] {
                if !std::mem::replace(&mut well[from as usize], true) {
                    work.push(from as usize);
                }
            }
        }
        well.iter().position(|well| !well)
    }
}

fn tell(action: Option<Action>, after: &State) -> String {
    let books = after.nodes.map(|node| {
        let book = |book: crate::Book| {
            let verified = if book.verified > 0 {
                format!(" verified {}", book.verified)
            } else {
                String::new()
            };
            format!(
                "{:?} attempt {}{verified} rows {:02b}",
                book.hold, book.attempt, book.rows
            )
        };
        let standby = if node.is_durable() {
            String::new()
        } else {
            format!(" (standby: {})", book(node.standby))
        };
        format!("{}{standby}", book(node.master))
    });
    let action = action.map_or_else(|| "?".to_owned(), |action| action.to_string());
    format!("{action:<60} | {} | {}", books[0], books[1])
}

/// A quick hash for small keys without an adversary (rotate and multiply, as the Rust compiler's own), well mixed at the
/// end, because the table takes its low and its high bits.
#[derive(Default)]
struct Mix(u64);

impl Mix {
    fn add(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.add(u64::from(*byte)));
    }

    fn write_u8(&mut self, byte: u8) {
        self.add(u64::from(byte));
    }

    fn write_u64(&mut self, number: u64) {
        self.add(number);
    }

    fn write_usize(&mut self, number: usize) {
        self.add(number as u64);
    }

    fn write_isize(&mut self, number: isize) {
        self.add(number.cast_unsigned() as u64);
    }

    fn finish(&self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ (mixed >> 29)
    }
}
