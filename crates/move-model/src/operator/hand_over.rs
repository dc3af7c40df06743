//! Steps 1 to 9.

use super::{At, Next, Operator, Turn};
use crate::state::{Hold, Item};

impl Turn<'_> {
    pub(super) fn begin(&self, next: Next<'_>) {
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

    pub(super) fn copy(&self, next: Next<'_>) {
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

    pub(super) fn freeze(&self, next: Next<'_>) {
        let (source, _) = self.ends();
        let (move_id, bounds) = (self.me.move_id, self.model.bounds);
        let book = &self.state.nodes[source].master;
        if self.model.rules.freeze_in_session && !self.in_session(source) {
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
            ..self.session_with(source, At::FreezeDurable)
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

    pub(super) fn drain(&self, next: Next<'_>) {
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

    pub(super) fn compare(&self, next: Next<'_>) {
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

    pub(super) fn verify(&self, next: Next<'_>) {
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

    pub(super) fn commit(&self, next: Next<'_>) {
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

    pub(super) fn confirm(&self, next: Next<'_>) {
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

    pub(super) fn confirm_freeze(&self, next: Next<'_>) {
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

    pub(super) fn activate(&self, next: Next<'_>) {
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
}
