//! From the ring there is to the ring that is wanted.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;

use super::TOKENS_PER_SHARD;
use super::circle::{ArcId, Circle, Holder};
use crate::{Ordinal, Range, Tokens};

/// Nobody is left with less than this part of the fair share, in thousandths.
const LOW: u64 = 980;
/// Nobody keeps more than this, in thousandths; at most 1.02 so that a shard which leaves has no more than that to move.
const HIGH: u64 = 1_015;
/// Above this, in thousandths, a shard is relieved even if those that grew have no room left.
const OVERFULL: u64 = 1_035;

/// Moves ranges until each of the `shares` holds its part within the band, and nobody else holds anything.
pub(super) fn rebalance(previous: &Tokens, shares: &[(Ordinal, u64)]) -> Vec<(Range, Ordinal)> {
    let mut holder_of: BTreeMap<Ordinal, Holder> = shares
        .iter()
        .zip(0..)
        .map(|(share, holder)| (share.0, holder))
        .collect();
    let ranges = previous.ranges();
    for (_, ordinal) in &ranges {
        let next = holder_of.len();
        holder_of.entry(*ordinal).or_insert(next);
    }
    let circle = Circle::new(
        ranges.iter().map(|(range, ordinal)| (*range, holder_of[ordinal])),
        holder_of.len(),
    );
    let fair: Vec<u64> = shares.iter().map(|(_, share)| *share).collect();
    let grown = (0..fair.len())
        .map(|shard| circle.held(shard) < thousandths(fair[shard], LOW))
        .collect();
    let new = (0..fair.len()).map(|shard| circle.held(shard) == 0).collect();
    let mut planner = Planner {
        circle,
        fair,
        grown,
        new,
    };
    planner.hand_out_what_the_leaving_hold(holder_of.len());
    planner.fill_the_needy();
    planner.relieve_the_overfull();
    let Planner { circle, .. } = planner;
    circle.ranges().map(|(range, shard)| (range, shares[shard].0)).collect()
}

fn thousandths(share: u64, part: u64) -> u64 {
    share * part / 1_000
}

/// Holders below `fair.len()` are the wanted shards; those from there on are leaving.
struct Planner {
    circle: Circle,
    fair: Vec<u64>,
    /// Held less than the band allows when planning began: their fair share grew.
    grown: Vec<bool>,
    /// Held nothing.
    new: Vec<bool>,
}

impl Planner {
    fn hand_out_what_the_leaving_hold(&mut self, holders: usize) {
        let mut arcs: Vec<ArcId> = (self.fair.len()..holders)
            .flat_map(|leaving| self.circle.arcs_of(leaving))
            .copied()
            .collect();
        // Large ones first: the small ones then even the shares out.
        arcs.sort_by_key(|&arc| (Reverse(self.circle.len(arc)), arc));
        for arc in arcs {
            self.hand_out(arc);
        }
    }

    /// To a neighbour if it has room, because then a token vanishes; else to whoever is emptiest.
    fn hand_out(&mut self, mut arc: ArcId) {
        loop {
            let len = self.circle.len(arc);
            if let Some(neighbour) = self.neighbour_with_room(arc, len) {
                return self.circle.give(arc, neighbour);
            }
            let emptiest = self.emptiest(|_| true).expect("there is at least one shard");
            let held = self.circle.held(emptiest);
            if held + len <= self.high(emptiest) {
                return self.circle.give(arc, emptiest);
            }
            let fair = self.fair[emptiest];
            let to_fair = fair.saturating_sub(held);
            // Filling up to exactly the fair share is best, unless that would be a splinter.
            let part = if to_fair >= self.piece(fair) / 2 {
                to_fair
            } else {
                self.high(emptiest).saturating_sub(held)
            };
            let rest = self.circle.split(arc, part.clamp(1, len - 1));
            self.circle.give(arc, emptiest);
            arc = rest;
        }
    }

    fn neighbour_with_room(&self, arc: ArcId, len: u64) -> Option<Holder> {
        let needy = (0..self.fair.len()).any(|shard| self.is_needy(shard));
        let has_room = |&shard: &Holder| {
            shard < self.fair.len()
                && self.circle.held(shard) + len <= self.fair[shard]
                && (!needy || self.is_needy(shard))
        };
        self.circle
            .neighbours(arc)
            .into_iter()
            .filter(has_room)
            .min_by(|&a, &b| self.by_fill(a, b))
    }

    /// Takes from the fullest for everyone below the band, the emptiest first.
    fn fill_the_needy(&mut self) {
        let mut needy: Vec<Holder> = (0..self.fair.len()).filter(|&shard| self.is_needy(shard)).collect();
        needy.sort_by(|&a, &b| self.by_fill(a, b));
        for shard in needy {
            let piece = self.piece(self.fair[shard]);
            let (goal, enough) = if self.new[shard] {
                (self.fair[shard], piece / 2)
            } else {
                (self.low(shard), 0)
            };
            while self.circle.held(shard) + enough < goal {
                let missing = goal - self.circle.held(shard);
                let Some(fullest) = self.fullest(|other| other != shard && self.circle.held(other) > self.low(other))
                else {
                    break;
                };
                let piece = piece.min(self.piece(self.fair[fullest]));
                let spare = self.circle.held(fullest) - self.low(fullest);
                let limit = missing.min(spare).min(piece * 5 / 4 + 1);
                self.transfer(fullest, shard, piece.min(limit), limit);
            }
        }
    }

    /// Gives what exceeds the band to those that grew, as long as they have room.
    fn relieve_the_overfull(&mut self) {
        while let Some((fullest, emptiest)) = self.next_relief() {
            let excess = self.circle.held(fullest) - self.high(fullest);
            let room = self.high(emptiest) - self.circle.held(emptiest);
            let piece = self.piece(self.fair[fullest].min(self.fair[emptiest]));
            // All that a new shard takes is within the ideal; between the others only the excess may move.
            let limit = if self.new[emptiest] {
                room.min(piece * 5 / 4 + 1)
            } else {
                room.min(excess).min(piece * 5 / 4 + 1)
            };
            self.transfer(fullest, emptiest, piece.min(limit), limit);
        }
    }

    fn next_relief(&self) -> Option<(Holder, Holder)> {
        let fullest = self.fullest(|shard| self.circle.held(shard) > self.high(shard))?;
        let has_room = |shard: Holder| shard != fullest && self.circle.held(shard) < self.high(shard);
        let anybody_grew = self.grown.contains(&true);
        let receiver = self
            .emptiest(|shard| self.grown[shard] && has_room(shard))
            .or_else(|| {
                let urgent = self.circle.held(fullest) > thousandths(self.fair[fullest], OVERFULL);
                if urgent || !anybody_grew {
                    self.emptiest(has_room)
                } else {
                    None
                }
            })?;
        Some((fullest, receiver))
    }

    /// Moves about `wanted` positions and at most `limit`: a whole arc if one fits well, else a part of a large one.
    fn transfer(&mut self, from: Holder, to: Holder, wanted: u64, limit: u64) {
        let thrifty = self.circle.tokens() as u64 >= TOKENS_PER_SHARD * self.fair.len() as u64;
        let smallest = if thrifty { wanted / 8 } else { wanted / 2 };
        let touches = |arc: ArcId| {
            self.circle
                .neighbours(arc)
                .into_iter()
                .filter(|&holder| holder == to)
                .count()
        };
        let best = |arcs: &mut dyn Iterator<Item = ArcId>| {
            arcs.max_by_key(|&arc| (touches(arc), self.circle.len(arc), Reverse(arc)))
        };
        let arcs = || self.circle.arcs_of(from).iter().copied();
        let whole = best(&mut arcs().filter(|&arc| (smallest..=limit).contains(&self.circle.len(arc))));
        let large = || best(&mut arcs().filter(|&arc| self.circle.len(arc) > limit));
        let small = || best(&mut arcs());
        match whole {
            Some(arc) => self.circle.give(arc, to),
            None => match large() {
                Some(arc) => {
                    // A large arc is cut open in the middle, so that a ring of few tokens gets more of them.
                    let middle = !thrifty && self.circle.len(arc) >= 4 * wanted;
                    self.circle.give_part(arc, wanted, to, middle);
                }
                None => {
                    if let Some(arc) = small() {
                        self.circle.give(arc, to);
                    }
                }
            },
        }
    }

    /// The size in which a shard of this fair share gives and takes.
    fn piece(&self, fair: u64) -> u64 {
        (fair / TOKENS_PER_SHARD).max(1)
    }

    fn low(&self, shard: Holder) -> u64 {
        thousandths(self.fair[shard], LOW)
    }

    fn high(&self, shard: Holder) -> u64 {
        thousandths(self.fair[shard], HIGH)
    }

    fn is_needy(&self, shard: Holder) -> bool {
        self.circle.held(shard) < self.low(shard)
    }

    fn fullest(&self, is_meant: impl Fn(Holder) -> bool) -> Option<Holder> {
        (0..self.fair.len())
            .filter(|&shard| is_meant(shard))
            .max_by(|&a, &b| self.by_fill(a, b))
    }

    fn emptiest(&self, is_meant: impl Fn(Holder) -> bool) -> Option<Holder> {
        (0..self.fair.len())
            .filter(|&shard| is_meant(shard))
            .min_by(|&a, &b| self.by_fill(a, b))
    }

    /// Compares how much of the fair share is held, exactly.
    fn by_fill(&self, a: Holder, b: Holder) -> Ordering {
        let cross = |held: Holder, fair: Holder| u128::from(self.circle.held(held)) * u128::from(self.fair[fair]);
        cross(a, b).cmp(&cross(b, a)).then(b.cmp(&a))
    }
}
