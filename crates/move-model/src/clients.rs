//! Clients that insert and delete rows, and remember what they were told.

use crate::protocol::Model;
use crate::state::{Action, Hold, Item, Shard, State};

/// Where a client is with its operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Phase {
    /// Nothing is under way.
    #[default]
    Ready,
    /// The fence has let it pass; it has not committed. Only where locks are modelled.
    Passed {
        shard: u8,
        term: u8,
        /// Whether the range was a row of its own when it took the lock.
        split: bool,
    },
    /// Committed, and waits for the standby.
    Waiting { shard: u8, term: u8 },
}

/// A client: its row is inserted and deleted in turn; it repeats an operation until it is told that it is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Client {
    /// How many operations were acknowledged.
    acknowledged: u8,
    /// Whether the next one was committed somewhere, so that it may be there or not.
    tried: bool,
    phase: Phase,
}

impl Client {
    /// The row, as the operation under way leaves it.
    fn inserts(&self) -> bool {
        self.acknowledged.is_multiple_of(2)
    }

    /// Whether the rows are what this client was told.
    pub(crate) fn is_told_the_truth(&self, who: usize, rows: u8) -> bool {
        let there = rows & (1 << who) != 0;
        self.tried || there != self.inserts()
    }

    /// Whether it is between its look at the range and its commit.
    pub(crate) fn holds_lock(&self) -> bool {
        matches!(self.phase, Phase::Passed { .. })
    }

    /// The same, with the lock of the range as it is now, split or not.
    pub(crate) fn holds_lock_of(&self, is_split: bool) -> bool {
        matches!(self.phase, Phase::Passed { split, .. } if split == is_split)
    }
}

/// What the clients may do.
pub(crate) fn step(model: &Model, state: &State, next: &mut Vec<(Action, State)>) {
    let bounds = &model.bounds;
    let operations = [bounds.inserts_and_deletes, u8::from(bounds.second_client)];
    for (who, operations) in operations.into_iter().enumerate() {
        let client = state.clients[who];
        let mut push = |what, client: Client, change: &dyn Fn(&mut State)| {
            let mut after = *state;
            after.clients[who] = client;
            change(&mut after);
            next.push((Action::of_client(who, what), after));
        };
        match client.phase {
            Phase::Ready if client.acknowledged < operations => {
                for shard in 0..2 {
                    let node = &state.nodes[shard];
                    if node.master.hold != Hold::Owned {
                        continue;
                    }
                    let (at, term) = (shard as u8, node.failovers);
                    if bounds.locks {
                        let split = state.is_split;
                        let phase = Phase::Passed { shard: at, term, split };
                        push("passes the fence", Client { phase, ..client }, &|_| {});
                    } else if state.log_has_room() {
                        let client = committed(client, at, term);
                        push(what(client), client, &|after| write(after, shard, who, client));
                    }
                }
            }
            Phase::Ready => {}
            Phase::Passed { shard, term, .. } => {
                let node = &state.nodes[usize::from(shard)];
                if node.failovers != term {
                    let phase = Phase::Ready;
                    push("has lost its transaction", Client { phase, ..client }, &|_| {});
                } else if state.log_has_room() {
                    let client = committed(client, shard, term);
                    push(what(client), client, &|after| {
                        write(after, usize::from(shard), who, client)
                    });
                }
            }
            Phase::Waiting { shard, term } => {
                let node = &state.nodes[usize::from(shard)];
                let phase = Phase::Ready;
                if node.failovers != term {
                    push(
                        "does not know whether it is stored",
                        Client { phase, ..client },
                        &|_| {},
                    );
                } else if node.is_durable() {
                    let told = Client {
                        acknowledged: client.acknowledged + 1,
                        tried: false,
                        phase,
                    };
                    push("is told that it is stored", told, &|_| {});
                }
            }
        }
    }
}

fn what(client: Client) -> &'static str {
    if client.inserts() {
        "inserts its row"
    } else {
        "deletes its row"
    }
}

fn committed(client: Client, shard: u8, term: u8) -> Client {
    Client {
        tried: true,
        phase: Phase::Waiting { shard, term },
        ..client
    }
}

/// A commit that the fence has let pass: visible at once, and in the log.
fn write(state: &mut State, shard: Shard, who: usize, client: Client) {
    let (key, rows) = (who as u8, &mut state.nodes[shard].master.rows);
    if client.inserts() {
        *rows |= 1 << key;
        state.log(shard, Item::Insert(key));
    } else {
        *rows &= !(1 << key);
        state.log(shard, Item::Delete(key));
    }
}
