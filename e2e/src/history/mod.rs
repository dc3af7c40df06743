//! The judge: from what the clients were told, what the shards' books said meanwhile and what all shards hold at the
//! end, it decides whether the system kept its word. Pure: it asks nobody anything.
//!
//! The invariants, as `docs/moving-keys.md` numbers them, and where they are checked:
//!
//! 1. at most one shard owns a position at any observed time: [`ownership`],
//! 2. a range owned at generation g + 1 was given away at g: [`ownership`],
//! 3. an acknowledged write survives, once: `writes`, `claims`, `sightings`,
//! 4. a strong read sees the newest write acknowledged before it began, a session read is never older than its token,
//!    and a refusal that tells of a state is a read too: `reads`, `writes`,
//! 5. every event is published at least once, and its customer told once: `events`,
//! 6. no key moves that need not: [`placement`].
//!
//! Concurrent things may happen in any order, and what has an unknown outcome may have happened, once: the judge accuses
//! only where no order of events explains what was seen.

mod claims;
pub mod contents;
mod events;
pub mod ownership;
pub mod placement;
mod reads;
pub mod record;
mod sightings;
mod story;
mod terms;
mod verdict;
mod writes;

#[cfg(test)]
mod corruption_tests;
#[cfg(test)]
mod corruptions_of_answers;
#[cfg(test)]
mod example_tests;
#[cfg(test)]
mod ownership_tests;
#[cfg(test)]
mod simulation;

pub use contents::Contents;
pub use ownership::Sample;
pub use record::History;
pub use verdict::{Kind, Violation, report};

use self::story::Stories;

/// Checks invariants 1 to 5. Number 6 compares two moments, of which only the caller knows: see [`placement::check`].
pub fn check(history: &History, samples: &[Sample], contents: &Contents) -> Vec<Violation> {
    let books = contents.books.iter().map(|(shard, rows)| (*shard, rows.as_slice()));
    let stories = Stories::new(history);
    let mut found = ownership::check(samples);
    found.extend(ownership::check_whole(books));
    found.extend(writes::check_answers(&stories));
    found.extend(writes::check_contents(&stories, contents));
    found.extend(claims::check(contents));
    found.extend(sightings::check(&stories, contents));
    found.extend(reads::check(&stories));
    found.extend(events::check(&stories, contents));
    found
}
