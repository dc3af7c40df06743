//! An operator: it looks, decides, and does one commit after the other. Between any two of them it may be stopped for as
//! long as one likes, and then goes on with what it knew.
//!
//! A router that finishes a hand-over it has met does what [`At::Confirm`] and [`At::Activate`] do, so two operators stand
//! for an operator and a router as well.

use crate::protocol::Model;
use crate::state::{Action, Hold, Item, Shard, State};

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

    fn begin(&self, next: Next<'_>) {
        let (me, source, rules) = (self.me, usize::from(self.me.shard), &self.model.rules);
        let confirms = rules.confirm_owned;
        if confirms && !self.in_session(source) {
            return self.go(next, "has lost the session in which it read", self.to(At::Look), |_| {});
        }
        let book = &self.state.nodes[1 - source].master;
        let empty = matches!(book.hold, Hold::Never | Hold::Cleaned) && book.rows == 0;
        let may = self.state.moves < self.model.bounds.moves && (empty || !rules.import_into_empty);
        if !may {
            return self.go(next, "may not begin", self.to(At::Look), |_| {});
        }
        self.go(
            next,
            "1: confirms the source, and the target imports",
            self.to(At::Look),
            |after| {
                if confirms {
                    after.nodes[source].flush();
                }
                let move_id = after.begin(source);
                let book = &mut after.nodes[1 - source].master;
                book.hold = Hold::Importing;
                book.move_id = move_id;
                book.generation = me.seen;
                book.attempt = me.attempt;
                book.verified = 0;
                (book.copied, book.marker, book.applied) = (false, 0, 0);
            },
        );
    }

    fn copy(&self, next: Next<'_>) {
        let (source, target) = self.ends();
        let move_id = self.me.move_id;
        let book = &self.state.nodes[target].master;
        let may = self.in_session(source) && self.state.stream.move_id == 0 && book.imports(move_id) && !book.copied;
        let term = self.me.terms[source];
        self.go(next, "2: the copy begins", self.to(At::Look), |after| {
            if may {
                after.stream.move_id = move_id;
                after.stream.term = term;
                after.stream.has_slot = true;
                after.stream.delivers = true;
            }
        });
    }

    fn freeze(&self, next: Next<'_>) {
        let (source, _) = self.ends();
        let (move_id, bounds) = (self.me.move_id, self.model.bounds);
        let book = &self.state.nodes[source].master;
        if !self.in_session(source) {
            return self.go(
                next,
                "cannot freeze in a session that is gone",
                self.to(At::Look),
                |_| {},
            );
        }
        let free = book.hold == Hold::Owned || (book.hold == Hold::Frozen && book.move_id == move_id);
        if !free || book.attempt >= bounds.attempts {
            return self.go(next, "finds nothing to freeze", self.to(At::Look), |_| {});
        }
        if !self.lock_is_free() || !self.state.log_has_room() {
            return;
        }
        let attempt = book.attempt + 1;
        let me = Operator {
            attempt,
            ..self.to(At::FreezeDurable)
        };
        self.go(next, "5: freezes", me, |after| {
            let book = &mut after.nodes[source].master;
            book.hold = Hold::Frozen;
            book.move_id = move_id;
            book.attempt = attempt;
            after.log(source, Item::Marker(attempt));
        });
    }

    /// Whether no write is between its look at the range and its commit, as far as the range's lock tells.
    fn lock_is_free(&self) -> bool {
        let rules = &self.model.rules;
        !rules.fence_under_lock
            || self
                .state
                .clients
                .iter()
                .all(|client| !client.holds_lock_of(self.state.is_split))
    }

    fn drain(&self, next: Next<'_>) {
        let (_, target) = self.ends();
        let book = &self.state.nodes[target].master;
        let me = self.session_with(target, At::Compare);
        if !book.imports(self.me.move_id) {
            self.go(next, "finds that the target imports no more", self.to(At::Look), |_| {});
        } else if !self.model.rules.await_marker {
            self.go(next, "goes on without the marker", me, |_| {});
        } else if book.marker >= self.me.attempt {
            self.go(next, "6: sees the marker", me, |_| {});
        } else {
            self.go(next, "gives up waiting for the marker", self.to(At::Look), |_| {});
        }
    }

    fn compare(&self, next: Next<'_>) {
        let (source, target) = self.ends();
        let (given, taken) = (self.state.nodes[source].master, self.state.nodes[target].master);
        let (move_id, attempt) = (self.me.move_id, self.me.attempt);
        if self.model.rules.one_source_session && !self.in_session(source) {
            self.go(next, "has lost its session with the source", self.to(At::Look), |_| {});
        } else if self.model.rules.one_target_session && !self.in_session(target) {
            self.go(next, "has lost its session with the target", self.to(At::Drain), |_| {});
        } else if given.rows == taken.rows || !self.model.rules.verify {
            self.go(next, "7: finds both sides equal", self.to(At::Verify), |_| {});
        } else {
            self.go(next, "finds a difference, and thaws", self.to(At::Look), |after| {
                let book = &mut after.nodes[source].master;
                if book.move_id == move_id && book.attempt == attempt {
                    book.thaw();
                }
            });
        }
    }

    fn verify(&self, next: Next<'_>) {
        let (_, target) = self.ends();
        let attempt = self.me.attempt;
        let book = &self.state.nodes[target].master;
        if self.model.rules.one_target_session && !self.in_session(target) {
            self.go(next, "has lost its session with the target", self.to(At::Drain), |_| {});
        } else if !book.imports(self.me.move_id) || book.verified > attempt {
            self.go(next, "has nothing to verify any more", self.to(At::Look), |_| {});
        } else {
            // Written already, it has to be durable all the same.
            let me = self.session_with(target, At::VerifyDurable);
            self.go(next, "7: writes down that both are equal", me, |after| {
                after.nodes[target].master.verified = attempt;
            });
        }
    }

    fn commit(&self, next: Next<'_>) {
        let (source, _) = self.ends();
        let (rules, me) = (&self.model.rules, &self.me);
        let book = &self.state.nodes[source].master;
        let attempt_fits = book.attempt == me.attempt || !rules.commit_wants_attempt;
        let frozen = book.hold == Hold::Frozen && book.move_id == me.move_id;
        // A range that is thawed forgets its move: without the rule, that is not asked for either.
        let frozen = frozen || (book.hold == Hold::Owned && !rules.commit_wants_frozen);
        let done = book.is_given(me.move_id) && book.attempt == me.attempt;
        if rules.one_source_session && !self.in_session(source) {
            self.go(next, "has lost its session with the source", self.to(At::Look), |_| {});
        } else if done || (frozen && attempt_fits) {
            let (me, move_id) = (self.session_with(source, At::CommitDurable), me.move_id);
            self.go(next, "8: the source gives the range away", me, |after| {
                let book = &mut after.nodes[source].master;
                if !done {
                    (book.hold, book.move_id) = (Hold::Moved, move_id);
                }
            });
        } else {
            self.go(next, "may not commit", self.to(At::Look), |_| {});
        }
    }

    fn confirm(&self, next: Next<'_>) {
        let (source, target) = self.ends();
        let rule = self.model.rules.confirm_moved;
        if rule && !self.in_session(source) {
            return self.go(next, "has lost the session in which it read", self.to(At::Look), |_| {});
        }
        let verified = self.state.nodes[target].master.verified == self.me.attempt;
        // Of another attempt: drain and verify again.
        let me = self.to(if verified { At::Activate } else { At::Drain });
        self.go(next, "commits in the session in which it read", me, |after| {
            if rule {
                after.nodes[source].flush();
            }
        });
    }

    fn confirm_freeze(&self, next: Next<'_>) {
        let (source, _) = self.ends();
        let rule = self.model.rules.confirm_frozen;
        if rule && !self.in_session(source) {
            return self.go(next, "has lost the session in which it read", self.to(At::Look), |_| {});
        }
        self.go(
            next,
            "commits in the session in which it read",
            self.to(At::Drain),
            |after| {
                if rule {
                    after.nodes[source].flush();
                }
            },
        );
    }

    fn activate(&self, next: Next<'_>) {
        let (_, target) = self.ends();
        let book = &self.state.nodes[target].master;
        let verified = book.verified == self.me.attempt || !self.model.rules.activate_wants_verified;
        let (may, attempt) = (book.imports(self.me.move_id) && verified, self.me.attempt);
        let what = if may { "9: the target owns" } else { "may not activate" };
        self.go(next, what, self.to(At::Look), |after| {
            if may {
                let book = &mut after.nodes[target].master;
                book.hold = Hold::Owned;
                book.generation += 1;
                book.attempt = attempt;
                book.verified = 0;
            }
        });
    }

    fn abort_at_source(&self, next: Next<'_>) {
        let (source, _) = self.ends();
        let book = &self.state.nodes[source].master;
        let frozen = book.hold == Hold::Frozen && book.move_id == self.me.move_id;
        if !self.in_session(source) || !(frozen || book.hold == Hold::Owned) {
            return self.go(next, "may not abort", self.to(At::Look), |_| {});
        }
        let me = Operator {
            attempt: book.attempt,
            ..self.to(At::AbortDurable)
        };
        self.go(next, "abort: the source owns", me, |after| {
            after.nodes[source].master.thaw();
        });
    }

    fn abort_at_target(&self, next: Next<'_>) {
        let (_, target) = self.ends();
        let (me, book) = (&self.me, &self.state.nodes[target].master);
        let unchanged = (book.verified == me.seen && me.seen <= me.attempt) || !self.model.rules.abort_wants_unchanged;
        let may = book.imports(me.move_id) && unchanged;
        let what = if may {
            "abort: the target imports no more"
        } else {
            "finds the target changed"
        };
        self.go(next, what, self.to(At::Look), |after| {
            if may {
                let book = &mut after.nodes[target].master;
                book.hold = Hold::Moved;
                book.verified = 0;
            }
        });
    }

    fn drop_stream(&self, next: Next<'_>) {
        let move_id = self.me.move_id;
        self.go(next, "11: drops the stream", self.to(At::Look), |after| {
            if after.stream.move_id == move_id {
                after.stream = Default::default();
            }
        });
    }

    fn wipe(&self, next: Next<'_>) {
        let (shard, rules) = (usize::from(self.me.shard), &self.model.rules);
        let book = &self.state.nodes[shard].master;
        let guarded = if shard == self.ends().0 {
            rules.cleanup_is_guarded
        } else {
            rules.wipe_is_guarded
        };
        if guarded && !(book.hold == Hold::Moved && book.move_id == self.me.move_id) {
            return self.go(next, "may not delete", self.to(At::Look), |_| {});
        }
        if !self.state.log_has_room() {
            return;
        }
        let replicated = !rules.cleanup_is_not_replicated;
        self.go(next, "11: deletes what is left", self.to(At::MarkCleaned), |after| {
            after.nodes[shard].master.rows = 0;
            if replicated {
                after.log(shard, Item::Wipe);
            }
        });
    }

    fn mark_cleaned(&self, next: Next<'_>) {
        let shard = usize::from(self.me.shard);
        let book = &self.state.nodes[shard].master;
        let may = book.hold == Hold::Moved && book.move_id == self.me.move_id && book.rows == 0;
        self.go(next, "11: the range is clean", self.to(At::Look), |after| {
            if may {
                after.nodes[shard].master.hold = Hold::Cleaned;
            }
        });
    }
}
