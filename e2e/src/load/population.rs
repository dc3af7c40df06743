//! The users and orders that the load knows, and what it last heard of them.

use std::collections::VecDeque;

use rand::RngExt;
use rand::rngs::StdRng;
use store::ReadTokens;
use uuid::Uuid;

use super::request::{Mode, Repeatable, Request};
use crate::history::record::Status;

/// Users and orders that get many of the requests, so that requests meet.
const HOT_USERS: usize = 100;
/// Orders last placed or changed, which are read again at once: where staleness would show.
const RECENT_ORDERS: usize = 200;
/// Answered requests kept to be repeated; the oldest are kept as long as the youngest.
const REPEATABLE: usize = 4_000;
/// Most orders processed in a run: each sends an email and a text, and the gateway keeps the last 10,000.
const MOST_PROCESSED: usize = 8_000;

#[derive(Debug)]
pub(super) struct User {
    pub(super) id: Uuid,
    pub(super) version: i64,
    /// What the user's client would send back.
    pub(super) tokens: ReadTokens,
    /// Numbers of the user's orders.
    pub(super) orders: Vec<usize>,
}

#[derive(Debug)]
pub(super) struct Order {
    pub(super) id: Uuid,
    pub(super) user: usize,
    pub(super) status: Status,
}

/// Everybody and everything.
#[derive(Debug, Default)]
pub(super) struct Population {
    pub(super) users: Vec<User>,
    pub(super) orders: Vec<Order>,
    recent: VecDeque<usize>,
    repeatable: Vec<Repeatable>,
    offered: u64,
    processed: usize,
}

/// Draws one request of a kind.
type Draw = fn(&mut Population, &mut StdRng) -> Request;

/// What is asked for, in parts of 100: four reads to a write, as a shop's backend asks after its orders. A write is several
/// transactions with what follows from it (event, emails, texts).
const MIX: [(u32, Draw); 15] = [
    (14, |all, random| Request::GetOrder(all.order(random), Mode::Strong)),
    (24, |all, random| Request::GetOrder(all.order(random), Mode::Session)),
    (12, |all, random| Request::GetOrder(all.order(random), Mode::Loose)),
    (3, |all, random| Request::ListOrders(all.user(random), Mode::Session)),
    (1, |all, random| Request::ListOrders(all.user(random), Mode::Strong)),
    (6, |all, random| Request::GetUser(all.user(random), Mode::Strong)),
    (10, |all, random| Request::GetUser(all.user(random), Mode::Session)),
    (5, |all, random| Request::GetUser(all.user(random), Mode::Loose)),
    (5, |all, random| all.look_up(random)),
    (1, |_, _| Request::CreateUser),
    (7, |all, random| Request::CreateOrder(all.user(random))),
    (1, |all, random| {
        Request::CreateOrders((0..10).map(|_| all.user(random)).collect())
    }),
    (6, |all, random| Request::UpdateUser(all.user(random))),
    (3, |all, random| all.finish(random)),
    (2, |all, random| all.repeat(random)),
];

impl Population {
    /// Draws the next request; there have to be users and orders.
    pub(super) fn draw(&mut self, random: &mut StdRng) -> Request {
        let total: u32 = MIX.iter().map(|part| part.0).sum();
        let mut left = random.random_range(0..total);
        for (part, request) in MIX {
            if left < part {
                return request(self, random);
            }
            left -= part;
        }
        Request::CreateUser
    }

    fn user(&self, random: &mut StdRng) -> usize {
        let among = if random.random_bool(0.3) {
            self.users.len().min(HOT_USERS)
        } else {
            self.users.len()
        };
        random.random_range(0..among)
    }

    fn order(&self, random: &mut StdRng) -> usize {
        if !self.recent.is_empty() && random.random_bool(0.5) {
            self.recent[random.random_range(0..self.recent.len())]
        } else {
            random.random_range(0..self.orders.len())
        }
    }

    fn look_up(&mut self, random: &mut StdRng) -> Request {
        let orders = (0..10).map(|_| self.order(random)).collect();
        let mode = if random.random_bool(0.5) {
            Mode::Strong
        } else {
            Mode::Session
        };
        Request::GetOrders(orders, mode)
    }

    /// Processes or cancels an order that is not finished yet, as far as is known. Sometimes one that is: two clients
    /// may want the same.
    fn finish(&mut self, random: &mut StdRng) -> Request {
        let mut order = self.order(random);
        for _ in 0..5 {
            if self.orders[order].status == Status::Created {
                break;
            }
            order = random.random_range(0..self.orders.len());
        }
        if self.processed < MOST_PROCESSED && random.random_bool(0.5) {
            self.processed += 1;
            Request::Process(order)
        } else {
            Request::Cancel(order)
        }
    }

    fn repeat(&mut self, random: &mut StdRng) -> Request {
        if self.repeatable.is_empty() {
            return Request::CreateUser;
        }
        let which = random.random_range(0..self.repeatable.len());
        Request::Repeat(Box::new(self.repeatable[which].clone()))
    }

    /// A write was acknowledged; it may be asked for again. A sample is kept in which each has the same chance.
    pub(super) fn offer(&mut self, repeatable: Repeatable, random: u64) {
        self.offered += 1;
        if self.repeatable.len() < REPEATABLE {
            self.repeatable.push(repeatable);
        } else if let Ok(slot) = usize::try_from(random % self.offered)
            && slot < REPEATABLE
        {
            self.repeatable[slot] = repeatable;
        }
    }

    /// All that are kept to be repeated.
    pub(super) fn repeatable(&self) -> Vec<Repeatable> {
        self.repeatable.clone()
    }

    pub(super) fn add_user(&mut self, id: Uuid, tokens: &ReadTokens) {
        self.users.push(User {
            id,
            version: 1,
            tokens: tokens.clone(),
            orders: Vec::new(),
        });
    }

    pub(super) fn add_order(&mut self, id: Uuid, user: usize, tokens: &ReadTokens) {
        self.orders.push(Order {
            id,
            user,
            status: Status::Created,
        });
        self.users[user].orders.push(self.orders.len() - 1);
        self.touch(self.orders.len() - 1);
        self.hear(user, tokens);
    }

    /// The order will be read again soon.
    pub(super) fn touch(&mut self, order: usize) {
        if self.recent.len() == RECENT_ORDERS {
            self.recent.pop_front();
        }
        self.recent.push_back(order);
    }

    pub(super) fn order_is(&mut self, order: usize, status: Status) {
        if status != Status::Created {
            self.orders[order].status = status;
        }
    }

    pub(super) fn user_is(&mut self, user: usize, version: i64) {
        let known = &mut self.users[user].version;
        *known = (*known).max(version);
    }

    /// An answer about this user's rows carried these tokens.
    pub(super) fn hear(&mut self, user: usize, tokens: &ReadTokens) {
        for token in tokens.as_slice() {
            self.users[user].tokens.add(*token);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn every_part_of_the_mix_is_drawn_as_often_as_it_says() {
        let mut all = Population::default();
        let none = ReadTokens::default();
        all.add_user(Uuid::from_u128(1), &none);
        (0..50).for_each(|number| all.add_order(Uuid::from_u128(number), 0, &none));
        assert_eq!(MIX.iter().map(|part| part.0).sum::<u32>(), 100);
        let mut random = StdRng::seed_from_u64(1);
        let drawn = (0..10_000).map(|_| all.draw(&mut random));
        let reads = drawn.filter(|request| request.kind().is_read()).count();
        assert!((7_700..8_300).contains(&reads), "{reads} of 10,000 are reads");
    }
}
