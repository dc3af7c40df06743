//! What to do next, from what all databases say.

use std::collections::{BTreeMap, BTreeSet};

use ring::{Ordinal, Range, Tokens, Weight};

use crate::leftovers::{self, Leftovers};
use crate::pair::{Pair, Part};
use crate::truth::overlap;
use crate::{
    Blocked, CopyState, Gap, ImportRange, MAX_MOVES_OF_A_SHARD, RangeRow, ShardView, Step, Steps, Why, Wish, plan,
    truth,
};

/// The next things to do to come from what the databases of ALL shards say to what is wished.
///
/// It has an answer for every state they can be in, whoever left it behind and at whatever point; whoever does what it
/// says and asks again, for as long as it says anything, ends with the ring that is wished and nothing left over. The
/// views need not be of one moment: at worst a step finds nothing to do.
///
/// What is begun is finished, but for moves whose target shall not own keys any more, whose copy is void, or when an abort
/// is asked for. A new plan is made when nothing of the last one is left.
pub fn next_steps(world: &BTreeMap<Ordinal, ShardView>, wish: &Wish) -> Steps {
    let (pairs, missing) = Pair::all(world);
    let truth = truth(world);
    let mut steps = Steps::default();
    let silent = wish.shards.iter().filter(|ordinal| !world.contains_key(ordinal));
    let not_observed: BTreeSet<Ordinal> = silent.copied().chain(missing).collect();
    let is_whole = not_observed.is_empty();
    steps
        .blocked
        .extend(not_observed.into_iter().map(|needed| Blocked::NotObserved { needed }));
    if let Err(gap) = &truth {
        steps.blocked.push((*gap).into());
    }

    let leftovers = leftovers::find(world, &pairs, truth.as_ref().ok(), is_whole);
    let begin = match is_whole {
        true => begin(world, wish, &pairs, &truth, &leftovers, &mut steps.blocked),
        false => Vec::new(),
    };
    let copying = if begin.is_empty() {
        copying(&pairs, wish, is_whole)
    } else {
        BTreeSet::new()
    };
    for (index, pair) in pairs.iter().enumerate() {
        steps.steps.extend(go_on(
            pair,
            why_void(pair, &pairs, wish),
            copying.contains(&index),
            wish,
        ));
    }
    let all_is_quiet = pairs.is_empty() && leftovers.steps.is_empty() && begin.is_empty() && steps.blocked.is_empty();
    steps.steps.extend(begin);
    steps.steps.extend(leftovers.steps);
    steps.blocked.extend(leftovers.blocked);
    if all_is_quiet {
        steps.steps.extend(leftovers::merges(world));
    }
    steps
}

/// The moves of the plan that have not been written down. A plan is made only while nothing of an earlier one is left; and
/// as long as no move has been touched, whoever plans comes to the same plan, so a beginning that was cut off is completed.
fn begin(
    world: &BTreeMap<Ordinal, ShardView>,
    wish: &Wish,
    pairs: &[Pair<'_>],
    truth: &Result<Tokens, Gap>,
    leftovers: &Leftovers,
    blocked: &mut Vec<Blocked>,
) -> Vec<Step> {
    let Ok(now) = truth else { return Vec::new() };
    if wish.paused || wish.abort || !leftovers.is_empty() || !pairs.iter().all(Pair::is_untouched) {
        return Vec::new();
    }
    if let Some(needed) = wish.may_own.keys().find(|ordinal| !world.contains_key(ordinal)) {
        blocked.push(Blocked::NotObserved { needed: *needed });
        return Vec::new();
    }
    let owners: Vec<(Ordinal, Weight)> = wish
        .may_own
        .iter()
        .map(|(ordinal, weight)| (*ordinal, *weight))
        .collect();
    let plan = match plan(now, &owners) {
        Ok(plan) => plan,
        Err(error) => {
            blocked.push(error.into());
            return Vec::new();
        }
    };
    let begun: BTreeMap<(Ordinal, Ordinal), Vec<Range>> = pairs
        .iter()
        .map(|pair| ((pair.source.ordinal, pair.target.ordinal), joined(&pair.ranges())))
        .collect();
    let of_this_plan = |(ends, ranges): (&(Ordinal, Ordinal), &Vec<Range>)| {
        let same = |one: &crate::PairMove| (one.source, one.target) == *ends && one.ranges == *ranges;
        plan.moves.iter().any(same)
    };
    // The specification has changed since: what is begun is finished first.
    if !begun.iter().all(of_this_plan) {
        return Vec::new();
    }
    let missing = plan
        .moves
        .iter()
        .filter(|one| !begun.contains_key(&(one.source, one.target)));
    missing
        .map(|one| Step::Begin {
            source: one.source,
            target: one.target,
            ranges: cut_to_rows(&world[&one.source].rows, &one.ranges),
        })
        .collect()
}

/// The ranges, cut so that each lies within one row of the source's book.
fn cut_to_rows(rows: &[RangeRow], ranges: &[Range]) -> Vec<ImportRange> {
    let within = |range: &Range| {
        let range = *range;
        rows.iter().filter(|row| row.state.is_here()).filter_map(move |row| {
            Some(ImportRange {
                range: overlap(row.range, range)?,
                generation: row.generation,
                attempt: row.attempt,
            })
        })
    };
    ranges.iter().flat_map(within).collect()
}

/// Neighbours made one; the ranges come in the order of positions.
fn joined(ranges: &[Range]) -> Vec<Range> {
    let mut joined: Vec<Range> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match joined.last_mut() {
            Some(last) if last.hi == range.lo => last.hi = range.hi,
            _ => joined.push(*range),
        }
    }
    joined
}

/// Which of the moves may copy now, by their index: those whose replication somebody has begun to set up, and then those
/// that wait, as many as there may be, when `all` shards were looked at. Shards with little to do come first.
fn copying(pairs: &[Pair<'_>], wish: &Wish, all: bool) -> BTreeSet<usize> {
    let sound = |pair: &Pair<'_>| !pair.importing.is_empty() && why_void(pair, pairs, wish).is_none();
    let (mut chosen, mut waiting) = (BTreeSet::new(), Vec::new());
    for (index, pair) in pairs.iter().enumerate().filter(|(_, pair)| sound(pair)) {
        if pair.is_untouched() {
            waiting.push(index);
        } else {
            chosen.insert(index);
        }
    }
    if wish.paused || !all {
        return chosen;
    }
    let ends = |index: usize| [pairs[index].source.ordinal, pairs[index].target.ordinal];
    let mut busy: BTreeMap<Ordinal, usize> = BTreeMap::new();
    let take = |busy: &mut BTreeMap<Ordinal, usize>, index| {
        ends(index)
            .into_iter()
            .for_each(|end| *busy.entry(end).or_default() += 1);
    };
    chosen.iter().for_each(|index| take(&mut busy, *index));
    while chosen.len() < wish.max_parallel.max(1) {
        let moves_of = |index: usize| ends(index).map(|end| busy.get(&end).copied().unwrap_or(0));
        let free = waiting
            .iter()
            .copied()
            .filter(|index| moves_of(*index).iter().all(|moves| *moves < MAX_MOVES_OF_A_SHARD));
        let Some(next) = free.min_by_key(|index| (moves_of(*index).iter().sum::<usize>(), *index)) else {
            break;
        };
        waiting.retain(|index| *index != next);
        take(&mut busy, next);
        chosen.insert(next);
    }
    chosen
}

/// Why a move has to be undone, if it has to.
fn why_void(pair: &Pair<'_>, pairs: &[Pair<'_>], wish: &Wish) -> Option<Why> {
    pair.why_void(wish).or_else(|| {
        // Of two moves of the same keys, everybody lets the same one live.
        let rival = pairs.iter().find(|other| {
            other.move_id < pair.move_id && other.source.ordinal == pair.source.ordinal && other.competes_with(pair)
        });
        rival.map(|rival| Why::Conflict { with: rival.move_id })
    })
}

/// The next step of one move, and what stands in its way.
fn go_on(pair: &Pair<'_>, why_void: Option<Why>, may_copy: bool, wish: &Wish) -> Vec<Step> {
    let (move_id, source, target) = (pair.move_id, pair.source.ordinal, pair.target.ordinal);
    if pair.importing.is_empty() {
        return vec![Step::DropReplication {
            move_id,
            source,
            target,
        }];
    }
    let mut steps = Vec::new();
    let mut pending = Vec::new();
    for row in &pair.importing {
        let parts = pair.parts(row);
        let given = parts.iter().filter_map(|part| match part {
            Part::Given(range) => Some(*range),
            _ => None,
        });
        let before = steps.len();
        steps.extend(given.map(|range| Step::RollForward {
            move_id,
            source,
            target,
            range,
        }));
        // Past the commit point there is no way back for any part of it.
        if steps.len() == before {
            pending.push((row.range, parts));
        }
    }
    if why_void.is_none() {
        steps.extend(resume(pair));
    }
    if pending.is_empty() {
        return steps;
    }
    if let Some(why) = why_void {
        steps.push(Step::Abort {
            move_id,
            source,
            target,
            ranges: pending.iter().map(|(range, _)| *range).collect(),
            why,
        });
        return steps;
    }
    match pair.state() {
        CopyState::Waiting if may_copy => steps.push(Step::Copy {
            move_id,
            source,
            target,
            source_term: pair.source.term,
            failover: wish.strict.contains(&source),
            ranges: pair.ranges(),
        }),
        CopyState::Copying => steps.extend(hand_over(pair, &pending)),
        // Aborting is a reason to be void.
        CopyState::Waiting | CopyState::Aborting => {}
    }
    steps
}

/// Switches on what an error has switched off.
fn resume(pair: &Pair<'_>) -> Option<Step> {
    pair.is_stopped().then_some(Step::Resume {
        move_id: pair.move_id,
        source: pair.source.ordinal,
        target: pair.target.ordinal,
        // With another one the copy is void.
        source_term: pair.source.term,
    })
}

/// The next batch; before it, whatever makes the source's rows such that a batch can be cut from them.
fn hand_over(pair: &Pair<'_>, pending: &[(Range, Vec<Part>)]) -> Vec<Step> {
    let (move_id, source, target) = (pair.move_id, pair.source.ordinal, pair.target.ordinal);
    let batch = |range, frozen| Step::HandOver {
        move_id,
        source,
        target,
        range,
        frozen,
    };
    let parts = || {
        pending
            .iter()
            .flat_map(|(range, parts)| parts.iter().map(move |part| (*range, *part)))
    };
    let frozen = parts().find_map(|(_, part)| match part {
        Part::Frozen(range) => Some(batch(range, true)),
        _ => None,
    });
    if let Some(under_way) = frozen {
        return vec![under_way];
    }
    // What is frozen goes on, or is thawed at its deadline; nothing more is frozen for a target that gets nothing.
    if pair.is_stopped() {
        return Vec::new();
    }
    if !pair.is_copied() {
        return vec![Step::AwaitCopy {
            move_id,
            source,
            target,
        }];
    }
    let mut cuts: BTreeMap<Range, BTreeSet<u64>> = BTreeMap::new();
    let mut next = None;
    for (wanted, part) in parts() {
        let Part::Owned(row) = part else { continue };
        let edges: Vec<u64> = [wanted.lo, wanted.hi]
            .into_iter()
            .filter(|edge| row.lo < *edge && *edge < row.hi)
            .collect();
        if edges.is_empty() {
            next.get_or_insert_with(|| batch(row, false));
        } else {
            cuts.entry(row).or_default().extend(edges);
        }
    }
    let split = |(range, cuts): (Range, BTreeSet<u64>)| Step::Split {
        shard: source,
        range,
        cuts: cuts.into_iter().collect(),
    };
    cuts.into_iter().map(split).chain(next).collect()
}

#[cfg(test)]
#[path = "next_tests/mod.rs"]
mod tests;
