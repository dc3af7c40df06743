//! Which shard has a position, by the ring and by what redirects taught since.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use ring::{Epoch, Generation, Ordinal, Range, Ring};
use row_id::Position;
use tokio::sync::watch;

use super::fault::Redirect;
use super::pause::Obstacle;

/// What is remembered of redirects; a newer ring makes all of it obsolete.
const REMEMBERED: usize = 256;

/// From commit point to activation it takes a few milliseconds. After this long, whoever moves the range is gone.
const UNATTENDED: Duration = Duration::from_millis(200);

/// The ring in use, and redirects learned under it.
pub(crate) struct Places {
    ring: watch::Receiver<Arc<Ring>>,
    learned: ArcSwap<Learned>,
}

#[derive(Default, Clone)]
struct Learned {
    epoch: Option<Epoch>,
    moves: Vec<(Range, Generation, Ordinal)>,
}

impl Places {
    pub(crate) fn new(ring: watch::Receiver<Arc<Ring>>) -> Self {
        Self {
            ring,
            learned: ArcSwap::default(),
        }
    }

    pub(crate) fn ring(&self) -> Arc<Ring> {
        Arc::clone(&self.ring.borrow())
    }

    /// A receiver that sees each ring to come.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Ring>> {
        self.ring.clone()
    }

    /// The shard to ask about a position.
    pub(crate) fn locate(&self, position: Position) -> Ordinal {
        let ring = self.ring.borrow();
        let learned = self.learned.load();
        if learned.epoch == Some(ring.epoch())
            && let Some((.., target)) = learned.moves.iter().find(|(range, ..)| range.contains(position))
        {
            return *target;
        }
        ring.locate(position).ordinal
    }

    /// Remembers a redirect until the next ring; of two for one range, the higher generation.
    pub(crate) fn learn(&self, redirect: &Redirect) {
        let (Some((range, generation)), Some(target)) = (redirect.range, redirect.target) else {
            return;
        };
        let epoch = self.ring.borrow().epoch();
        self.learned.rcu(|learned| {
            let mut next = if learned.epoch == Some(epoch) {
                Learned::clone(learned)
            } else {
                Learned::default()
            };
            next.epoch = Some(epoch);
            let overlaps = |known: &Range| known.lo < range.hi && range.lo < known.hi;
            if next
                .moves
                .iter()
                .any(|(known, newer, _)| overlaps(known) && *newer > generation)
            {
                return next;
            }
            next.moves.retain(|(known, ..)| !overlaps(known));
            next.moves.push((range, generation, target));
            if next.moves.len() > REMEMBERED {
                next.moves.remove(0);
            }
            next
        });
    }

    /// Forgets what was learned about a position: a redirect led to a shard that knows nothing of it.
    pub(crate) fn forget(&self, position: Position) {
        self.learned.rcu(|learned| {
            let mut next = Learned::clone(learned);
            next.moves.retain(|(range, ..)| !range.contains(position));
            next
        });
    }
}

/// One caller's way to a position: where it stands and how far redirects took it.
#[derive(Default)]
pub(crate) struct Way {
    /// What stands in the way, and since when.
    obstacle: Option<(Obstacle, Instant)>,
    /// The ring under which it went there.
    epoch: Option<Epoch>,
    /// The highest generation followed, and where to.
    followed: Option<(Generation, Ordinal)>,
    /// Since when source and target of a move name each other.
    between: Option<Instant>,
}

/// What to do about a redirect.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Go there at once.
    Go(Ordinal),
    /// Go there after some milliseconds.
    GoSoon(Ordinal),
    /// Stay and try again after some milliseconds.
    Stay,
    /// Nobody knows: look at the ring again, after a short while.
    AskTheRing,
}

impl Way {
    /// For how long this has stood in the way, and nothing else.
    pub(super) fn waited(&mut self, obstacle: Obstacle) -> Duration {
        match self.obstacle {
            Some((same, since)) if same == obstacle => since.elapsed(),
            _ => {
                self.obstacle = Some((obstacle, Instant::now()));
                Duration::ZERO
            }
        }
    }

    /// What stood in the way is gone, as far as anybody knows.
    pub(super) fn clear(&mut self) {
        self.obstacle = None;
    }

    /// Whether it went by the ring of this epoch.
    pub(super) fn is_under(&self, epoch: Epoch) -> bool {
        self.epoch == Some(epoch)
    }

    /// Where redirects led under this ring, if they did. Under a newer one the way begins anew: they may have come from old
    /// books, and led to a shard that has left since.
    pub(crate) fn under(&mut self, epoch: Epoch) -> Option<Ordinal> {
        if self.epoch != Some(epoch) {
            *self = Self {
                epoch: Some(epoch),
                ..Self::default()
            };
        }
        self.followed.map(|(_, shard)| shard)
    }

    /// Whether source and target have named each other for so long that the move looks unattended. Counts anew after it
    /// has said so.
    pub(crate) fn is_unattended(&mut self, now: Instant) -> bool {
        let unattended = self
            .between
            .is_some_and(|since| now.saturating_duration_since(since) >= UNATTENDED);
        if unattended {
            self.between = Some(now);
        }
        unattended
    }

    pub(crate) fn redirected(&mut self, redirect: &Redirect) -> Turn {
        let turn = self.turn(redirect);
        match turn {
            Turn::GoSoon(_) => _ = self.between.get_or_insert_with(Instant::now),
            Turn::Go(_) | Turn::Stay | Turn::AskTheRing => self.between = None,
        }
        turn
    }

    fn turn(&mut self, redirect: &Redirect) -> Turn {
        let (Some((_, generation)), Some(target)) = (redirect.range, redirect.target) else {
            self.followed = None;
            return Turn::AskTheRing;
        };
        match self.followed {
            // An older book than the one that led here.
            Some((followed, _)) if followed > generation => Turn::Stay,
            // Between a move's commit point and its activation, source and target name each other.
            Some((followed, _)) if followed == generation => {
                self.followed = Some((generation, target));
                Turn::GoSoon(target)
            }
            _ => {
                self.followed = Some((generation, target));
                Turn::Go(target)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redirect(generation: i64, target: u16) -> Redirect {
        Redirect {
            range: Some((Range { lo: 0, hi: 10 }, Generation(generation))),
            target: Some(Ordinal(target)),
            ..Redirect::default()
        }
    }

    #[test]
    fn the_higher_generation_wins_and_a_lower_one_never_leads_back() {
        let mut way = Way::default();
        assert_eq!(way.under(Epoch(7)), None);
        assert_eq!(way.redirected(&redirect(3, 1)), Turn::Go(Ordinal(1)));
        assert_eq!(way.redirected(&redirect(2, 5)), Turn::Stay);
        assert_eq!(way.under(Epoch(7)), Some(Ordinal(1)));
        assert_eq!(way.redirected(&redirect(4, 2)), Turn::Go(Ordinal(2)));
    }

    #[test]
    fn source_and_target_that_name_each_other_are_asked_in_turn() {
        let mut way = Way::default();
        way.redirected(&redirect(3, 0));
        assert_eq!(
            way.redirected(&redirect(3, 1)),
            Turn::GoSoon(Ordinal(1)),
            "the source's commit point is behind it"
        );
        assert_eq!(
            way.redirected(&redirect(3, 0)),
            Turn::GoSoon(Ordinal(0)),
            "the target is not activated yet"
        );
    }

    #[test]
    fn a_move_is_unattended_when_its_ends_named_each_other_for_long() {
        let mut way = Way::default();
        way.redirected(&redirect(3, 0));
        let later = || Instant::now() + 2 * UNATTENDED;
        assert!(!way.is_unattended(later()), "one answer proves nothing");
        way.redirected(&redirect(3, 1));
        assert!(!way.is_unattended(Instant::now()));
        assert!(way.is_unattended(later()));
        assert!(!way.is_unattended(later()), "counts anew");
        way.redirected(&redirect(4, 1));
        assert!(!way.is_unattended(later() + UNATTENDED), "it went on");
    }

    #[test]
    fn a_shard_that_knows_nothing_sends_back_to_the_ring() {
        let mut way = Way::default();
        assert_eq!(way.under(Epoch(7)), None);
        way.redirected(&redirect(3, 1));
        assert_eq!(way.redirected(&Redirect::default()), Turn::AskTheRing);
        assert_eq!(way.under(Epoch(7)), None);
    }

    #[test]
    fn each_obstacle_is_waited_for_by_itself() {
        let mut way = Way::default();
        assert_eq!(way.waited(Obstacle::Shard), Duration::ZERO);
        std::thread::sleep(Duration::from_millis(2));
        assert!(way.waited(Obstacle::Shard) >= Duration::from_millis(2));
        assert_eq!(way.waited(Obstacle::HandOver), Duration::ZERO);
        assert_eq!(way.waited(Obstacle::Shard), Duration::ZERO, "again, so anew");
        std::thread::sleep(Duration::from_millis(2));
        way.clear();
        assert_eq!(way.waited(Obstacle::Shard), Duration::ZERO);
    }

    #[test]
    fn a_newer_ring_begins_the_way_anew() {
        let mut way = Way::default();
        assert_eq!(way.under(Epoch(7)), None);
        way.redirected(&redirect(3, 1));
        assert_eq!(way.under(Epoch(7)), Some(Ordinal(1)));
        assert_eq!(way.under(Epoch(8)), None);
        assert_eq!(
            way.redirected(&redirect(2, 0)),
            Turn::Go(Ordinal(0)),
            "an older book counts again"
        );
    }
}
