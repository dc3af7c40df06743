//! What is done to the system while keys move, and when: drawn from a seed, so that a run can be repeated.

use std::fmt;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

/// A moment of a rebalance, as it is seen from outside.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Point {
    /// Its plan is in the databases.
    Begun,
    /// A shard receives rows by a copy that is not complete.
    Copying,
    /// A range is frozen.
    Frozen,
    /// This part of all that moves has its new owner, 0 to 1.
    HandedOver(f64),
    /// Half of what one pair of shards exchanges has its new owner.
    HalfOfAPair,
    /// Nothing is importing any more; rows left behind are deleted.
    Cleaning,
}

impl Point {
    /// Which comes first in a rebalance. A range freezes again and again between the first and the last hand-over.
    fn rank(self) -> u8 {
        match self {
            Self::Begun => 0,
            Self::Copying => 1,
            Self::Frozen => 2,
            Self::HandedOver(_) | Self::HalfOfAPair => 3,
            Self::Cleaning => 4,
        }
    }
}

/// What is done then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deed {
    /// The operator that leads dies by SIGKILL.
    KillOperator,
    /// The operator that leads is stopped by SIGSTOP until another leads, and then wakes beside it.
    PauseOperator,
    /// The master of a shard that gives keys away dies.
    KillSource,
    /// The master of a shard that receives keys dies.
    KillTarget,
    /// The standby of a shard that gives keys away dies: what waits for its flush waits until it is back, or let go.
    KillStandby,
}

/// A deed at its moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Appointment {
    /// When.
    pub point: Point,
    /// What.
    pub deed: Deed,
}

impl fmt::Display for Appointment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {:?}", self.deed, self.point)
    }
}

/// Draws the appointments of so many moves: in each the operator dies at some point, in one it is paused in the freeze
/// as well. With `members_die` the six deaths of masters (of a source and a target, in copy and freeze and half-way) and
/// two of standbys are spread over the moves besides.
pub fn draw(seed: u64, moves: usize, members_die: bool) -> Vec<Vec<Appointment>> {
    let mut random = StdRng::seed_from_u64(seed);
    let paused_in = random.random_range(0..moves.max(1));
    let mut drawn: Vec<Vec<Appointment>> = (0..moves)
        .map(|number| {
            let mut appointments = vec![Appointment {
                point: draw_point(&mut random),
                deed: Deed::KillOperator,
            }];
            if number == paused_in {
                appointments.push(Appointment {
                    point: Point::Frozen,
                    deed: Deed::PauseOperator,
                });
            }
            appointments
        })
        .collect();
    if members_die && moves > 0 {
        let mut deaths: Vec<Appointment> = [Point::Copying, Point::Frozen, Point::HalfOfAPair]
            .into_iter()
            .flat_map(|point| [Deed::KillSource, Deed::KillTarget].map(|deed| Appointment { point, deed }))
            .collect();
        deaths.extend([Point::Copying, Point::Frozen].map(|point| Appointment {
            point,
            deed: Deed::KillStandby,
        }));
        deaths.shuffle(&mut random);
        for (number, death) in deaths.into_iter().enumerate() {
            drawn[number % moves].push(death);
        }
    }
    // In the order in which their moments come: one that is waited for behind a later one is missed.
    for appointments in &mut drawn {
        appointments.sort_by_key(|one| (one.point.rank(), one.deed != Deed::PauseOperator));
    }
    drawn
}

fn draw_point(random: &mut StdRng) -> Point {
    match random.random_range(0..5) {
        0 => Point::Begun,
        1 => Point::Copying,
        2 => Point::Frozen,
        3 => Point::HandedOver(random.random_range(0.05..0.95)),
        _ => Point::Cleaning,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_and_every_move_has_its_death() {
        for seed in 0..50 {
            let drawn = draw(seed, 4, true);
            assert_eq!(drawn, draw(seed, 4, true));
            let all: Vec<_> = drawn.iter().flatten().collect();
            let count = |deed| all.iter().filter(|one| one.deed == deed).count();
            assert_eq!((count(Deed::KillOperator), count(Deed::PauseOperator)), (4, 1));
            assert_eq!((count(Deed::KillSource), count(Deed::KillTarget)), (3, 3));
            assert_eq!(count(Deed::KillStandby), 2);
            for of_move in &drawn {
                assert!(of_move.iter().any(|one| one.deed == Deed::KillOperator));
                assert!(of_move.is_sorted_by_key(|one| one.point.rank()), "{of_move:?}");
                let at = |deed| of_move.iter().position(|one| one.deed == deed);
                if let (Some(pause), Some(kill)) = (at(Deed::PauseOperator), at(Deed::KillOperator))
                    && kill < pause
                {
                    assert!(of_move[kill].point.rank() < Point::Frozen.rank(), "{of_move:?}");
                }
            }
        }
        assert_ne!(draw(1, 4, false), draw(2, 4, false));
    }
}
