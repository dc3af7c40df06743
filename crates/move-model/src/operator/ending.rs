//! The abort, and step 11.

use super::{At, Next, Operator, Turn};
use crate::state::{Hold, Item};

impl Turn<'_> {
    pub(super) fn abort_at_source(&self, next: Next<'_>) {
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

    pub(super) fn abort_at_target(&self, next: Next<'_>) {
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

    pub(super) fn drop_stream(&self, next: Next<'_>) {
        let move_id = self.me.move_id;
        self.go(next, "11: drops the stream", self.to(At::Look), |after| {
            if after.stream.move_id == move_id {
                after.stream = Default::default();
            }
        });
    }

    pub(super) fn wipe(&self, next: Next<'_>) {
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

    pub(super) fn mark_cleaned(&self, next: Next<'_>) {
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
