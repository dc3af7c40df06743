//! An operator: it looks, decides, and does one commit after the other. Between any two of them it may be stopped for as
//! long as one likes, and then goes on with what it knew.
//!
//! A router that finishes a hand-over it has met does what [`At::Confirm`] and [`At::Activate`] do, so two operators stand
//! for an operator and a router as well.

mod ending;
mod hand_over;

use crate::protocol::Model;
use crate::state::{Action, Hold, Shard, State};

/// What an operator is about to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum At {
    /// To look at both shards.
    #[default]
    Look,
    /// Step 1: `begin_import` at the target.
    Begin,
    /// Step 2: publication, slot and subscription.
    Copy,
    /// Step 5.
    Freeze,
    /// Its commit has to be flushed.
    FreezeDurable,
    /// Step 6.
    Drain,
    /// Step 7: compare,
    Compare,
    /// and write so down.
    Verify,
    /// Its commit has to be flushed.
    VerifyDurable,
    /// Step 8.
    Commit,
    /// Its commit has to be flushed.
    CommitDurable,
    /// It has read `moved` that it did not write: a commit in the same session.
    Confirm,
    /// The same, of `frozen`: it goes on with the batch that is under way.
    ConfirmFreeze,
    /// Step 9.
    Activate,
    /// Abort: thaw at the source,
    AbortAtSource,
    /// which has to be flushed,
    AbortDurable,
    /// and leave `importing` at the target.
    AbortAtTarget,
    /// Step 11: drop the stream.
    Drop,
    /// Delete what is left of the rows,
    Wipe,
    /// and say so.
    MarkCleaned,
}

/// What it knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Operator {
    at: At,
    move_id: u8,
    /// The attempt it works on; of a move to begin, the attempt to inherit.
    attempt: u8,
    /// Aborting: the verified attempt it has seen. Beginning: the generation.
    seen: u8,
    /// The terms of its sessions.
    terms: [u8; 2],
    /// Where it wipes, or where a move begins.
    shard: u8,
}

type Next<'a> = &'a mut Vec<(Action, State)>;

/// Everything one operator may do now: mostly one thing.
pub(crate) fn step(model: &Model, state: &State, who: usize, next: Next<'_>) {
    let turn = Turn {
        model,
        state,
        who,
        me: state.operators[who],
    };
    turn.take(next);
}

struct Turn<'a> {
    model: &'a Model,
    state: &'a State,
    who: usize,
    me: Operator,
}

impl Turn<'_> {
    fn take(&self, next: Next<'_>) {
        match self.me.at {
            At::Look => self.look(next),
            At::Begin => self.begin(next),
            At::Copy => self.copy(next),
            At::Freeze => self.freeze(next),
            At::FreezeDurable => {
                let source = self.ends().0;
                self.durable(source, self.model.rules.durable_freeze, At::Drain, At::Look, next);
            }
            At::Drain => self.drain(next),
            At::Compare => self.compare(next),
            At::Verify => self.verify(next),
            At::VerifyDurable => {
                let target = self.ends().1;
                self.durable(target, self.model.rules.durable_verify, At::Commit, At::Drain, next);
            }
            At::Commit => self.commit(next),
            At::CommitDurable => {
                let source = self.ends().0;
                self.durable(source, self.model.rules.durable_commit, At::Activate, At::Look, next);
            }
            At::Confirm => self.confirm(next),
            At::ConfirmFreeze => self.confirm_freeze(next),
            At::Activate => self.activate(next),
            At::AbortAtSource => self.abort_at_source(next),
            At::AbortDurable => {
                let source = self.ends().0;
                self.durable(
                    source,
                    self.model.rules.durable_abort,
                    At::AbortAtTarget,
                    At::Look,
                    next,
                );
            }
            At::AbortAtTarget => self.abort_at_target(next),
            At::Drop => self.drop_stream(next),
            At::Wipe => self.wipe(next),
            At::MarkCleaned => self.mark_cleaned(next),
        }
    }

    fn ends(&self) -> (Shard, Shard) {
        self.state.ends(self.me.move_id)
    }

    /// Whether the session with a shard that was opened when it looked is still there.
    fn in_session(&self, shard: Shard) -> bool {
        self.me.terms[shard] == self.state.nodes[shard].failovers
    }

    /// It goes on as `me`, and `change` is what it commits.
    fn go(&self, next: Next<'_>, what: &'static str, me: Operator, change: impl FnOnce(&mut State)) {
        let mut after = *self.state;
        change(&mut after);
        after.operators[self.who] = me;
        next.push((Action::of_operator(what), after));
    }

    fn to(&self, at: At) -> Operator {
        match at {
            At::Look => Operator::default(),
            at => Operator { at, ..self.me },
        }
    }

    /// Waits until the standby has flushed what the master shows; if that master is gone, nobody knows, and it goes `back`.
    fn durable(&self, shard: Shard, rule: bool, on: At, back: At, next: Next<'_>) {
        if !rule {
            self.go(next, "goes on without waiting for the standby", self.to(on), |_| {});
        } else if !self.in_session(shard) {
            self.go(
                next,
                "has lost the session in which it waited",
                self.session_with(shard, back),
                |_| {},
            );
        } else if self.state.nodes[shard].is_durable() {
            self.go(next, "sees its commit flushed", self.to(on), |_| {});
        }
    }

    /// With a new session.
    fn session_with(&self, shard: Shard, at: At) -> Operator {
        let mut me = self.to(at);
        if at != At::Look {
            me.terms[shard] = self.state.nodes[shard].failovers;
        }
        me
    }

    /// Decides by what both shards show, as `moves::next_steps` does.
    fn look(&self, next: Next<'_>) {
        let state = self.state;
        let importing = |shard: &Shard| state.nodes[*shard].master.hold == Hold::Importing;
        for target in (0..2).filter(importing) {
            self.look_at_import(target, next);
        }
        let stream = state.stream.move_id;
        if stream != 0 && !state.nodes[state.ends(stream).1].master.imports(stream) {
            self.go(next, "wants to drop the stream", self.decided(At::Drop, stream), |_| {});
        }
        // Without the rule, it does not wait until the stream is gone.
        if stream == 0 || !self.model.rules.cleanup_is_not_replicated {
            self.look_at_what_is_left(next);
        }
    }

    /// What it has decided to do, in sessions that it has now.
    fn decided(&self, at: At, move_id: u8) -> Operator {
        Operator {
            at,
            move_id,
            terms: [0, 1].map(|shard| self.state.nodes[shard].failovers),
            ..Operator::default()
        }
    }

    fn look_at_import(&self, target: Shard, next: Next<'_>) {
        let (state, source) = (self.state, 1 - target);
        let (given, taken) = (&state.nodes[source].master, &state.nodes[target].master);
        let move_id = taken.move_id;
        if given.is_given(move_id) {
            if !self.model.rules.anybody_may_activate {
                return;
            }
            let attempt = given.attempt;
            let me = Operator {
                attempt,
                ..self.decided(At::Confirm, move_id)
            };
            return self.go(next, "finds a hand-over past its commit point", me, |_| {});
        }
        let has_stream = state.stream.move_id == move_id;
        let sound = state
            .stream
            .is_sound(state.nodes[source].failovers, self.model.rules.old_term_is_void);
        let exhausted = given.attempt >= self.model.bounds.attempts;
        let void = if has_stream { !sound } else { taken.copied };
        if !void && state.stream.move_id == 0 {
            self.go(next, "wants to copy", self.decided(At::Copy, move_id), |_| {});
        }
        if !void && has_stream && !exhausted {
            self.go(next, "wants to hand over", self.decided(At::Freeze, move_id), |_| {});
        }
        if !void && has_stream && given.hold == Hold::Frozen && given.move_id == move_id {
            let me = Operator {
                attempt: given.attempt,
                ..self.decided(At::ConfirmFreeze, move_id)
            };
            self.go(next, "finds a batch under way", me, |_| {});
        }
        if void || exhausted || self.model.bounds.aborts {
            let seen = taken.verified;
            let me = Operator {
                seen,
                ..self.decided(At::AbortAtSource, move_id)
            };
            self.go(next, "wants to abort", me, |_| {});
        }
    }

    fn look_at_what_is_left(&self, next: Next<'_>) {
        let state = self.state;
        for shard in 0..2 {
            let (book, other) = (&state.nodes[shard].master, &state.nodes[1 - shard].master);
            if book.hold == Hold::Moved && other.is_here() {
                let me = Operator {
                    shard: shard as u8,
                    ..self.decided(At::Wipe, book.move_id)
                };
                self.go(next, "wants to delete what is left", me, |_| {});
            }
            let split = state.is_split || !self.model.bounds.locks;
            let empty = matches!(other.hold, Hold::Never | Hold::Cleaned) && other.rows == 0;
            if book.hold == Hold::Owned && empty && split && state.moves < self.model.bounds.moves {
                let me = Operator {
                    shard: shard as u8,
                    attempt: book.attempt,
                    seen: book.generation,
                    ..self.decided(At::Begin, 0)
                };
                self.go(next, "plans a move", me, |_| {});
            }
        }
    }
}
