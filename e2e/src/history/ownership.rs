//! Invariants 1 and 2: at most one shard owns a position at any observed time, and who comes to own it was given it.
//!
//! No two shards are looked at in the same instant, so the rules speak of what one look proves about a later one. Once
//! shard B was seen to own a position at generation g, nobody else may own it at g or less in any look that began
//! afterwards, and the shard that owned it at g - 1 must say that it gave it away: for a hand-over is durable at the
//! source before it begins at the target.

use std::sync::Arc;

use super::record::{Moment, Span};
use super::verdict::{Kind, Violation};

/// One past the highest position.
const POSITIONS: u64 = 1 << 32;

/// The state of a range in a shard's book.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RangeState {
    /// May be written.
    Owned,
    /// Owned, and held still for a hand-over.
    Frozen,
    /// Given away.
    Moved,
    /// Given away, and its rows deleted.
    Cleaned,
    /// About to be received.
    Importing,
}

impl RangeState {
    /// As the database calls it.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "owned" => Self::Owned,
            "frozen" => Self::Frozen,
            "moved" => Self::Moved,
            "cleaned" => Self::Cleaned,
            "importing" => Self::Importing,
            _ => return None,
        })
    }

    /// Whether the shard is the owner, frozen or not.
    pub fn may_write(self) -> bool {
        matches!(self, Self::Owned | Self::Frozen)
    }
}

/// One row of a shard's book, `ringwright.range_owners`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BookRow {
    /// First position.
    pub lo: u64,
    /// One past the last.
    pub hi: u64,
    /// How often it had changed hands.
    pub generation: i64,
    /// Its state.
    pub state: RangeState,
    /// The shard it goes or went to; of an importing one, where it comes from.
    pub peer: Option<u16>,
}

/// One look at a shard's whole book, on its master.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Whose book.
    pub shard: u16,
    /// When it was looked at.
    pub span: Span,
    /// The rows in the order of their positions. Shared by looks that saw the same.
    pub rows: Arc<[BookRow]>,
}

/// After this many violations nothing more is learnt by going on: one cause shows in every look that follows.
const ENOUGH: usize = 1_000;

/// Who was last proven to own a stretch of positions.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Proven {
    shard: u16,
    generation: i64,
    span: Span,
    /// Who had it one generation before, when that was seen.
    source: Option<(u16, i64)>,
}

/// Stretches in order; together they are the whole ring.
struct Map(Vec<(u64, u64, Option<Proven>)>);

/// Checks all looks at all books.
pub fn check(samples: &[Sample]) -> Vec<Violation> {
    // A look is judged by what was proven before it began, and proves something once it has ended.
    let mut steps: Vec<(Moment, bool, &Sample)> = Vec::with_capacity(samples.len() * 2);
    for sample in samples {
        steps.push((sample.span.start, false, sample));
        steps.push((sample.span.end, true, sample));
    }
    steps.sort_by_key(|(at, ends, _)| (*at, *ends));
    let mut map = Map(vec![(0, POSITIONS, None)]);
    let mut found = Vec::new();
    for (_, ends, sample) in steps {
        if found.len() > ENOUGH {
            break;
        }
        if ends {
            map.learn(sample, &mut found);
        } else {
            map.judge(sample, &mut found);
        }
    }
    found
}

/// Checks that every position has exactly one owner, as it must be when all is done. `books` are (shard, its rows).
pub fn check_whole<'a>(books: impl IntoIterator<Item = (u16, &'a [BookRow])>) -> Vec<Violation> {
    let mut owned: Vec<(u64, u64, u16)> = Vec::new();
    for (shard, rows) in books {
        let rows = rows.iter().filter(|row| row.state.may_write());
        owned.extend(rows.map(|row| (row.lo, row.hi, shard)));
    }
    owned.sort_unstable();
    let mut found = Vec::new();
    let mut covered = 0;
    for (lo, hi, shard) in owned {
        if lo > covered {
            let what = format!("at the end nobody owns {covered}..{lo}");
            found.push(Violation::new(Kind::NotHandedOver, what, Vec::new()));
        }
        if lo < covered {
            let what = format!(
                "at the end shard {shard} and another both own {lo}..{}",
                covered.min(hi)
            );
            found.push(Violation::new(Kind::TwoOwners, what, Vec::new()));
        }
        covered = covered.max(hi);
    }
    if covered < POSITIONS {
        let what = format!("at the end nobody owns {covered}..{POSITIONS}");
        found.push(Violation::new(Kind::NotHandedOver, what, Vec::new()));
    }
    found
}

impl Map {
    /// What a look shows against what was proven before it began.
    fn judge(&self, sample: &Sample, found: &mut Vec<Violation>) {
        for &(lo, hi, proven) in &self.0 {
            let Some(proven) = proven else { continue };
            let concerned =
                proven.shard == sample.shard || proven.source.is_some_and(|(shard, _)| shard == sample.shard);
            let mut covered = lo;
            for row in overlapping(&sample.rows, lo, hi) {
                if concerned && row.lo > covered {
                    found.push(forgotten(sample, &proven, covered, row.lo));
                }
                covered = covered.max(row.hi);
                if let Some((kind, why)) = fault(sample.shard, row, &proven) {
                    found.push(violation(kind, why, sample, row, &proven));
                }
            }
            if concerned && covered < hi {
                found.push(forgotten(sample, &proven, covered, hi));
            }
        }
    }

    /// Takes in what a look has proven.
    fn learn(&mut self, sample: &Sample, found: &mut Vec<Violation>) {
        for row in sample.rows.iter().filter(|row| row.state.may_write()) {
            let span = sample.span;
            self.update(row.lo, row.hi, |proven| {
                let before = proven.filter(|proven| proven.generation >= row.generation);
                if let Some(before) = before {
                    // Also of two looks at the same time: one generation has one owner.
                    if before.shard != sample.shard && before.generation == row.generation {
                        let why = "two shards own a position at one generation";
                        found.push(violation(Kind::TwoOwners, why, sample, row, &before));
                    }
                    return Some(before);
                }
                let source = match proven {
                    Some(proven) if proven.shard == sample.shard => proven.source,
                    Some(proven) if proven.generation + 1 == row.generation => Some((proven.shard, proven.generation)),
                    _ => None,
                };
                Some(Proven {
                    shard: sample.shard,
                    generation: row.generation,
                    span,
                    source,
                })
            });
        }
    }

    /// Replaces what is known of [lo, hi); stretches are cut at its ends, and equal neighbours become one again.
    fn update(&mut self, lo: u64, hi: u64, mut change: impl FnMut(Option<Proven>) -> Option<Proven>) {
        let unchanged = overlapping_stretches(&self.0, lo, hi).iter().all(|&(_, _, proven)| {
            // The usual case, a look that shows what was known: nothing is rebuilt.
            change(proven) == proven
        });
        if unchanged {
            return;
        }
        let mut next: Vec<(u64, u64, Option<Proven>)> = Vec::with_capacity(self.0.len() + 2);
        for &(from, to, proven) in &self.0 {
            let (inner_lo, inner_hi) = (from.max(lo), to.min(hi));
            if inner_lo >= inner_hi {
                push(&mut next, (from, to, proven));
                continue;
            }
            push(&mut next, (from, inner_lo, proven));
            push(&mut next, (inner_lo, inner_hi, change(proven)));
            push(&mut next, (inner_hi, to, proven));
        }
        self.0 = next;
    }
}

fn push(stretches: &mut Vec<(u64, u64, Option<Proven>)>, stretch: (u64, u64, Option<Proven>)) {
    let (lo, hi, proven) = stretch;
    if lo >= hi {
        return;
    }
    match stretches.last_mut() {
        Some(last) if last.1 == lo && last.2 == proven => last.1 = hi,
        _ => stretches.push(stretch),
    }
}

fn overlapping_stretches(stretches: &[(u64, u64, Option<Proven>)], lo: u64, hi: u64) -> &[(u64, u64, Option<Proven>)] {
    let first = stretches.partition_point(|stretch| stretch.1 <= lo);
    let end = stretches.partition_point(|stretch| stretch.0 < hi);
    stretches.get(first..end).unwrap_or_default()
}

fn overlapping(rows: &[BookRow], lo: u64, hi: u64) -> &[BookRow] {
    let first = rows.partition_point(|row| row.hi <= lo);
    let end = rows.partition_point(|row| row.lo < hi);
    rows.get(first..end).unwrap_or_default()
}

/// What is wrong with a row seen after `proven` was.
fn fault(shard: u16, row: &BookRow, proven: &Proven) -> Option<(Kind, &'static str)> {
    if shard == proven.shard {
        let went_back = row.generation < proven.generation && row.state != RangeState::Importing;
        return went_back.then_some((Kind::NotHandedOver, "the generation of an owner's range went back"));
    }
    if row.state.may_write() && row.generation <= proven.generation {
        return Some((
            Kind::TwoOwners,
            "a shard owns what another was seen to own at a higher generation",
        ));
    }
    match proven.source {
        Some((source, generation)) if source == shard => {
            let forgot = matches!(row.state, RangeState::Moved | RangeState::Cleaned) && row.generation < generation;
            forgot.then_some((
                Kind::NotHandedOver,
                "the source does not say that it gave the range away",
            ))
        }
        _ => None,
    }
}

impl Proven {
    fn line(&self, lo: u64, hi: u64) -> String {
        format!(
            "{} shard {} owns {lo}..{hi} at generation {}",
            self.span, self.shard, self.generation
        )
    }
}

/// What a shard owned or gave away stays in its book for good.
fn forgotten(sample: &Sample, proven: &Proven, lo: u64, hi: u64) -> Violation {
    let what = format!("shard {} has forgotten {lo}..{hi}, which it owned", sample.shard);
    let proof = vec![proven.line(lo, hi), format!("{} its book says nothing", sample.span)];
    Violation::new(Kind::NotHandedOver, what, proof)
}

fn violation(kind: Kind, why: &str, sample: &Sample, row: &BookRow, proven: &Proven) -> Violation {
    let what = format!("{why}: shards {} and {}", proven.shard, sample.shard);
    let seen = format!(
        "{} shard {} has {}..{} at generation {}, {:?}",
        sample.span, sample.shard, row.lo, row.hi, row.generation, row.state
    );
    Violation::new(kind, what, vec![proven.line(row.lo, row.hi), seen])
}
