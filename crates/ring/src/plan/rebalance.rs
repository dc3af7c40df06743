//! From the ring there is to the ring that is wanted.

use std::cmp::{Ordering, Reverse};

use super::TOKENS_PER_SHARD;
use super::circle::{ArcId, Circle, Holder};
use crate::{Ordinal, Range, Tokens};

/// Nobody is left with less than this part of the fair share, in thousandths.
const LOW: u64 = 980;
/// Nobody is left with more than this, in thousandths; at most 1.02, as a shard that leaves has all it holds to move.
const HIGH: u64 = 1_015;

/// Moves ranges until each of the `shares` holds its part within the band, and nobody else holds anything.
pub(super) fn rebalance(previous: &Tokens, shares: &[(Ordinal, u64)]) -> Vec<(Range, Ordinal)> {
    let ranges = previous.ranges();
    let mut holder_of = vec![None; usize::from(u16::MAX) + 1];
    let mut holders = 0;
    for ordinal in shares
        .iter()
        .map(|(ordinal, _)| ordinal)
        .chain(ranges.iter().map(|(_, ordinal)| ordinal))
    {
        holder_of[usize::from(ordinal.get())].get_or_insert_with(|| {
            holders += 1;
            holders - 1
        });
    }
    let held = ranges
        .iter()
        .filter_map(|&(range, ordinal)| Some((range, holder_of[usize::from(ordinal.get())]?)));
    let circle = Circle::new(held.collect(), holders);
    let mut planner = Planner::new(circle, shares.iter().map(|(_, share)| *share));
    planner.hand_out_what_the_leaving_hold(holders);
    planner.level();
    planner
        .circle
        .ranges()
        .map(|(range, shard)| (range, shares[shard].0))
        .collect()
}

/// A shard that shall hold keys.
struct Target {
    fair: u64,
    /// The band around the fair share.
    low: u64,
    high: u64,
    /// What it is filled up to: its fair share if it is new, else the lower edge of the band.
    goal: u64,
    /// Held nothing when planning began.
    new: bool,
    /// Held less than the band allows when planning began: its fair share grew.
    grown: bool,
    /// The size in which it gives and takes.
    piece: u64,
}

/// Holders are the targets; those from there on are leaving.
struct Planner {
    circle: Circle,
    targets: Vec<Target>,
}

impl Planner {
    fn new(circle: Circle, shares: impl Iterator<Item = u64>) -> Self {
        let target = |(holder, fair): (Holder, u64)| {
            let (low, high) = (fair * LOW / 1_000, fair * HIGH / 1_000);
            let held = circle.held(holder);
            let new = held == 0;
            let goal = if new { fair } else { low };
            Target {
                fair,
                low,
                high,
                goal,
                new,
                grown: held < low,
                piece: (fair / TOKENS_PER_SHARD).max(1),
            }
        };
        let targets = shares.enumerate().map(target).collect();
        Self { circle, targets }
    }

    /// Hands the arcs of leaving shards to the others, without leaving anybody below the band.
    fn hand_out_what_the_leaving_hold(&mut self, holders: usize) {
        let leaving = self.targets.len()..holders;
        let mut arcs: Vec<ArcId> = leaving
            .clone()
            .flat_map(|holder| self.circle.arcs_of(holder))
            .copied()
            .collect();
        // Large ones first: the small ones then even the shares out.
        arcs.sort_by_key(|&arc| (Reverse(self.circle.len(arc)), arc));
        let pool: u64 = leaving.map(|holder| self.circle.held(holder)).sum();
        let owed: u64 = self.shards().map(|shard| self.missing(shard)).sum();
        let mut spare = pool.saturating_sub(owed);
        for arc in arcs {
            self.hand_out(arc, &mut spare);
        }
    }

    /// To the neighbours if they have room, because then a token vanishes; else to whoever is emptiest. `spare` is what
    /// may be handed out beyond what others need to reach their goals.
    fn hand_out(&mut self, mut arc: ArcId, spare: &mut u64) {
        loop {
            let len = self.circle.len(arc);
            let [before, after] = self.circle.neighbours(arc);
            let room_before = self.room_beside(before, *spare);
            let room_after = self.room_beside(after, spare.saturating_sub(room_before));
            if room_before >= len {
                return self.hand(arc, before, spare);
            }
            if room_after >= len {
                return self.hand(arc, after, spare);
            }
            if before != after && room_before + room_after >= len {
                let rest = self.circle.split(arc, room_before);
                self.hand(arc, before, spare);
                return self.hand(rest, after, spare);
            }
            let Some(emptiest) = self.emptiest(|shard| self.room(shard, *spare) > 0) else {
                // Only rounding can leave an arc for which nobody has room; it is a matter of positions.
                let emptiest = self.emptiest(|_| true).expect("there is at least one shard");
                return self.hand(arc, emptiest, spare);
            };
            let most = self.room(emptiest, *spare);
            if len <= most {
                return self.hand(arc, emptiest, spare);
            }
            let Target { fair, piece, .. } = self.targets[emptiest];
            // Filling up to exactly the fair share is best, unless that would be a splinter.
            let to_fair =
                if self.is_thrifty() { fair + piece / 2 } else { fair }.saturating_sub(self.circle.held(emptiest));
            let part = if to_fair >= piece / 2 { to_fair.min(most) } else { most };
            let rest = self.circle.split(arc, part);
            self.hand(arc, emptiest, spare);
            arc = rest;
        }
    }

    fn hand(&mut self, arc: ArcId, to: Holder, spare: &mut u64) {
        *spare = spare.saturating_sub(self.circle.len(arc).saturating_sub(self.missing(to)));
        self.circle.give(arc, to);
    }

    /// How much a shard may be handed.
    fn room(&self, shard: Holder, spare: u64) -> u64 {
        let room = self.targets[shard].high.saturating_sub(self.circle.held(shard));
        room.min(self.missing(shard) + spare)
    }

    /// How much a neighbour of an arc may take of it.
    fn room_beside(&self, shard: Holder, spare: u64) -> u64 {
        let Some(target) = self.targets.get(shard) else {
            return 0;
        };
        let up_to = if self.is_thrifty() { target.high } else { target.fair };
        up_to
            .saturating_sub(self.circle.held(shard))
            .min(self.missing(shard) + spare)
    }

    /// Moves ranges between those that stay until everybody is within the band and what is new has its fair share.
    fn level(&mut self) {
        loop {
            let wanted: u64 = self.shards().map(|shard| self.to_goal(shard)).sum();
            let excess: u64 = self.shards().map(|shard| self.excess(shard)).sum();
            let needy = self.emptiest(|shard| self.to_goal(shard) > 0);
            let moved = match needy {
                // More than the excess may only be taken while less is in excess than is wanted: both ends are served
                // by the same transfers then, and together they move no more than the larger of the two needs.
                Some(needy) => self.fill(needy, wanted.saturating_sub(excess)),
                None => self.relieve(),
            };
            if !moved {
                return;
            }
        }
    }

    /// Takes a piece for `needy` from the fullest: its excess, and `beyond` more.
    fn fill(&mut self, needy: Holder, beyond: u64) -> bool {
        let spare = |shard: Holder| self.circle.held(shard).saturating_sub(self.targets[shard].low);
        let Some(fullest) = self.fullest(|shard| shard != needy && spare(shard) > 0) else {
            return false;
        };
        let missing = self.targets[needy].goal - self.circle.held(needy);
        // At least one position, so that rounding cannot bring planning to a standstill.
        let limit = missing.min(spare(fullest)).min(self.excess(fullest) + beyond).max(1);
        self.transfer(fullest, needy, limit);
        true
    }

    /// Takes a piece of the excess of the fullest, for those that grew as long as they have room.
    fn relieve(&mut self) -> bool {
        let Some(fullest) = self.fullest(|shard| self.excess(shard) > 0) else {
            return false;
        };
        let has_room = |shard: Holder| self.circle.held(shard) < self.targets[shard].high;
        let emptiest = self.emptiest(|shard| self.targets[shard].grown && has_room(shard));
        let Some(emptiest) = emptiest.or_else(|| self.emptiest(has_room)) else {
            return false;
        };
        let room = self.targets[emptiest].high - self.circle.held(emptiest);
        self.transfer(fullest, emptiest, room.min(self.excess(fullest)));
        true
    }

    fn shards(&self) -> std::ops::Range<Holder> {
        0..self.targets.len()
    }

    /// What a shard lacks to its goal. It is this that shards which stay may not be given away: a new shard that was
    /// left at the edge of the band would take the rest from them, and more would move than must.
    fn missing(&self, shard: Holder) -> u64 {
        self.targets[shard].goal.saturating_sub(self.circle.held(shard))
    }

    /// What a shard shall still be given; half a piece is near enough for a new one, which may end anywhere in the band.
    fn to_goal(&self, shard: Holder) -> u64 {
        let Target { new, piece, .. } = self.targets[shard];
        let missing = self.missing(shard);
        if new && missing <= piece / 2 { 0 } else { missing }
    }

    /// What a shard holds above the band.
    fn excess(&self, shard: Holder) -> u64 {
        self.circle.held(shard).saturating_sub(self.targets[shard].high)
    }

    /// Whether the ring has the tokens it should have, so that it gets no more of them without need.
    fn is_thrifty(&self) -> bool {
        self.circle.tokens() as u64 >= TOKENS_PER_SHARD * self.targets.len() as u64
    }

    /// Moves about a piece, at most `limit`: a whole arc if one fits well, else a part of a large one.
    fn transfer(&mut self, from: Holder, to: Holder, limit: u64) {
        let piece = self.targets[from].piece.min(self.targets[to].piece);
        let thrifty = self.is_thrifty();
        let (usual, largest) = if thrifty {
            (piece * 3 / 2, piece * 2)
        } else {
            (piece, piece * 5 / 4)
        };
        let limit = limit.min(largest + 1);
        let wanted = usual.min(limit);
        let smallest = if thrifty { wanted / 8 } else { wanted / 2 };
        let touches = |arc: ArcId| {
            self.circle
                .neighbours(arc)
                .into_iter()
                .filter(|&holder| holder == to)
                .count()
        };
        // The best is one that becomes one token with what the receiver has; then the largest.
        let best = |is_meant: &dyn Fn(u64) -> bool| {
            let arcs = self
                .circle
                .arcs_of(from)
                .iter()
                .copied()
                .filter(|&arc| is_meant(self.circle.len(arc)));
            arcs.max_by_key(|&arc| (touches(arc), self.circle.len(arc), Reverse(arc)))
        };
        if let Some(arc) = best(&|len| (smallest..=limit).contains(&len)) {
            self.circle.give(arc, to);
        } else if let Some(arc) = best(&|len| len > limit) {
            // A large arc is cut open in the middle, so that a ring of few tokens gets more of them.
            let from_the_middle = !thrifty && self.circle.len(arc) >= 4 * wanted;
            self.circle.give_part(arc, wanted, to, from_the_middle);
        } else if let Some(arc) = best(&|_| true) {
            self.circle.give(arc, to);
        }
    }

    fn fullest(&self, is_meant: impl Fn(Holder) -> bool) -> Option<Holder> {
        self.shards()
            .filter(|&shard| is_meant(shard))
            .max_by(|&a, &b| self.by_fill(a, b))
    }

    fn emptiest(&self, is_meant: impl Fn(Holder) -> bool) -> Option<Holder> {
        self.shards()
            .filter(|&shard| is_meant(shard))
            .min_by(|&a, &b| self.by_fill(a, b))
    }

    /// Compares how much of the fair share is held, exactly.
    fn by_fill(&self, a: Holder, b: Holder) -> Ordering {
        let cross =
            |held: Holder, fair: Holder| u128::from(self.circle.held(held)) * u128::from(self.targets[fair].fair);
        cross(a, b).cmp(&cross(b, a)).then(b.cmp(&a))
    }
}
