//! The ring while it is being changed: arcs in a circle, each with a holder.

use row_id::POSITIONS;

use crate::Range;

/// Index of an arc.
pub(super) type ArcId = usize;
/// Index of whoever holds an arc.
pub(super) type Holder = usize;

#[derive(Clone, Copy)]
struct Arc {
    /// The first position within; an arc may go over zero.
    start: u64,
    len: u64,
    holder: Holder,
    before: ArcId,
    after: ArcId,
}

/// Arcs, doubly linked around the ring, and indexed by holder. Arcs are never merged here: that is done once, when the
/// tokens are built.
pub(super) struct Circle {
    arcs: Vec<Arc>,
    arcs_of: Vec<Vec<ArcId>>,
    held: Vec<u64>,
    /// How many arcs are followed by one of another holder, which is how many tokens there will be.
    tokens: usize,
}

impl Circle {
    /// A circle of the ranges of a ring, in their order.
    pub(super) fn new(ranges: Vec<(Range, Holder)>, holders: usize) -> Self {
        let count = ranges.len();
        let mut circle = Self {
            arcs: Vec::with_capacity(count),
            arcs_of: vec![Vec::new(); holders],
            held: vec![0; holders],
            tokens: 0,
        };
        for (id, (range, holder)) in ranges.into_iter().enumerate() {
            let (before, after) = ((id + count - 1) % count, (id + 1) % count);
            circle.arcs.push(Arc {
                start: range.lo,
                len: range.len(),
                holder,
                before,
                after,
            });
            circle.arcs_of[holder].push(id);
            circle.held[holder] += range.len();
        }
        circle.tokens = (0..count).filter(|&id| circle.ends_a_token(id)).count();
        circle
    }

    /// How many positions a holder has.
    pub(super) fn held(&self, holder: Holder) -> u64 {
        self.held[holder]
    }

    /// The arcs of a holder, in no order that means anything.
    pub(super) fn arcs_of(&self, holder: Holder) -> &[ArcId] {
        &self.arcs_of[holder]
    }

    pub(super) fn len(&self, arc: ArcId) -> u64 {
        self.arcs[arc].len
    }

    /// Who holds the arcs before and after this one.
    pub(super) fn neighbours(&self, arc: ArcId) -> [Holder; 2] {
        let Arc { before, after, .. } = self.arcs[arc];
        [self.arcs[before].holder, self.arcs[after].holder]
    }

    pub(super) fn tokens(&self) -> usize {
        self.tokens
    }

    /// Gives a whole arc to a holder.
    pub(super) fn give(&mut self, arc: ArcId, to: Holder) {
        let Arc {
            len,
            holder: from,
            before,
            ..
        } = self.arcs[arc];
        let boundaries = |circle: &Self| [before, arc].into_iter().filter(|&id| circle.ends_a_token(id)).count();
        let boundaries_before = boundaries(self);
        self.arcs[arc].holder = to;
        self.tokens = self.tokens + boundaries(self) - boundaries_before;
        self.arcs_of[from].retain(|&id| id != arc);
        self.arcs_of[to].push(arc);
        self.held[from] -= len;
        self.held[to] += len;
    }

    /// Gives `len` positions of a longer arc to a holder: next to what it holds there, else from the middle or the start.
    pub(super) fn give_part(&mut self, arc: ArcId, len: u64, to: Holder, from_the_middle: bool) {
        let [before, after] = self.neighbours(arc);
        let rest = self.arcs[arc].len - len;
        let piece = if after == to {
            self.split(arc, rest)
        } else if before != to && from_the_middle && rest >= 2 {
            self.split(arc, rest / 2)
        } else {
            arc
        };
        if self.arcs[piece].len > len {
            self.split(piece, len);
        }
        self.give(piece, to);
    }

    /// The ranges and their holders; what goes over zero is two.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (Range, Holder)> {
        self.arcs.iter().flat_map(|arc| {
            let hi = arc.start + arc.len;
            let whole = Range {
                lo: arc.start,
                hi: hi.min(POSITIONS),
            };
            let over_zero = (hi > POSITIONS).then(|| Range {
                lo: 0,
                hi: hi - POSITIONS,
            });
            [Some(whole), over_zero]
                .into_iter()
                .flatten()
                .map(|range| (range, arc.holder))
        })
    }

    /// Splits an arc after its first `len` positions; the arc keeps these, and the new arc behind it has the rest.
    pub(super) fn split(&mut self, arc: ArcId, len: u64) -> ArcId {
        let Arc {
            start,
            len: whole,
            holder,
            after,
            ..
        } = self.arcs[arc];
        let id = self.arcs.len();
        let start = (start + len) % POSITIONS;
        self.arcs.push(Arc {
            start,
            len: whole - len,
            holder,
            before: arc,
            after,
        });
        self.arcs[arc].len = len;
        self.arcs[arc].after = id;
        self.arcs[after].before = id;
        self.arcs_of[holder].push(id);
        id
    }

    fn ends_a_token(&self, arc: ArcId) -> bool {
        self.arcs[arc].holder != self.arcs[self.arcs[arc].after].holder
    }
}
