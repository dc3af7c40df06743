//! The rules of the protocol, each of which can be left out, and how far the search goes.

use crate::clients;
use crate::operator;
use crate::state::{Action, State};

/// The rules; the numbers are those of the steps in `docs/moving-keys.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// A write looks at the state of its range under the range's lock.
    pub fence_under_lock: bool,
    /// Whoever splits a range takes the lock of the whole.
    pub split_takes_parents_lock: bool,
    /// Step 5 counts when it is flushed at the standby.
    pub durable_freeze: bool,
    /// Step 6: what was written before the freeze has been applied.
    pub await_marker: bool,
    /// Step 7: the rows of both sides are compared.
    pub verify: bool,
    /// From step 6 to the end of step 7 it is one session with the target.
    pub one_target_session: bool,
    /// Step 5 is done in the session in which the copy was found sound.
    pub freeze_in_session: bool,
    /// From its freeze to step 8 it is one session with the source; who loses it looks again.
    pub one_source_session: bool,
    /// Step 7 counts when it is flushed at the standby.
    pub durable_verify: bool,
    /// Step 8 wants the range frozen.
    pub commit_wants_frozen: bool,
    /// Step 8 wants the attempt that was verified.
    pub commit_wants_attempt: bool,
    /// Step 8 counts when it is flushed at the standby.
    pub durable_commit: bool,
    /// Step 9 wants the attempt of the source to be the verified one.
    pub activate_wants_verified: bool,
    /// Who activates by a `moved` that it only read commits at the source first, in the session in which it read.
    pub confirm_moved: bool,
    /// So does who goes on with a batch that somebody else froze.
    pub confirm_frozen: bool,
    /// So does who writes a move down because the source says `owned`.
    pub confirm_owned: bool,
    /// Whoever meets a hand-over past its commit point may finish it.
    pub anybody_may_activate: bool,
    /// An abort wants the attempt that was verified to be unchanged since it looked.
    pub abort_wants_unchanged: bool,
    /// An abort makes `owned` durable at the source before the target leaves `importing`.
    pub durable_abort: bool,
    /// Wiping what an undone move left at its target looks at state and move first.
    pub wipe_is_guarded: bool,
    /// Deleting what is left at the source looks at state and move first.
    pub cleanup_is_guarded: bool,
    /// A range can be imported only where nothing of it is.
    pub import_into_empty: bool,
    /// A copy whose source has failed over since its slot was made is void.
    pub old_term_is_void: bool,
    /// The subscription's `synchronous_commit` is on.
    pub subscription_commits_synchronously: bool,
    /// Rows are applied only to a range that is being imported.
    pub apply_guard: bool,
    /// The stream is dropped before the source's rows are deleted, and those deletes are not replicated.
    pub cleanup_is_not_replicated: bool,
}

impl Rules {
    /// All of them.
    pub const ALL: Self = Self {
        fence_under_lock: true,
        split_takes_parents_lock: true,
        durable_freeze: true,
        await_marker: true,
        verify: true,
        one_target_session: true,
        freeze_in_session: true,
        one_source_session: true,
        durable_verify: true,
        commit_wants_frozen: true,
        commit_wants_attempt: true,
        durable_commit: true,
        activate_wants_verified: true,
        confirm_moved: true,
        confirm_frozen: true,
        confirm_owned: true,
        anybody_may_activate: true,
        abort_wants_unchanged: true,
        durable_abort: true,
        wipe_is_guarded: true,
        cleanup_is_guarded: true,
        import_into_empty: true,
        old_term_is_void: true,
        subscription_commits_synchronously: true,
        apply_guard: true,
        cleanup_is_not_replicated: true,
    };
}

/// How far the search goes. What has no bound here may happen as often as it likes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Operators: 1 or 2.
    pub operators: usize,
    /// How many moves are begun, one after the other: the second goes the same way after an abort, or back.
    pub moves: u8,
    /// Freezes over all moves.
    pub attempts: u8,
    /// Failovers of each shard.
    pub failovers: [u8; 2],
    /// How many operations the first client makes, in turn inserting a row and deleting it.
    pub inserts_and_deletes: u8,
    /// Whether a second client inserts another row.
    pub second_client: bool,
    /// Whether a move may be aborted without need.
    pub aborts: bool,
    /// Whether locks are modelled: a write that has looked and not yet committed, and the split of the range.
    pub locks: bool,
}

/// A protocol and its bounds.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// The rules that hold.
    pub rules: Rules,
    /// How far to look.
    pub bounds: Bounds,
}

impl Model {
    /// Everything that may happen next.
    pub fn next(&self, state: &State, next: &mut Vec<(Action, State)>) {
        for who in 0..self.bounds.operators {
            operator::step(self, state, who, next);
        }
        clients::step(self, state, next);
        self.databases(state, next);
        for (_, state) in next {
            state.normalise();
        }
    }

    /// What happens by itself: the standby catches up, a freeze expires, a shard fails over, the stream moves on.
    fn databases(&self, state: &State, next: &mut Vec<(Action, State)>) {
        for shard in 0..2 {
            let node = &state.nodes[shard];
            if node.master != node.standby {
                let mut after = *state;
                after.nodes[shard].flush();
                next.push((Action::on(shard, "the standby has flushed"), after));
            }
            if node.failovers < self.bounds.failovers[shard] {
                let mut after = *state;
                after.fail_over(shard, self.rules.subscription_commits_synchronously);
                next.push((Action::on(shard, "fails over"), after));
            }
            let mut after = *state;
            if after.nodes[shard].master.thaw() {
                next.push((Action::on(shard, "the freeze expires, and somebody thaws it"), after));
            }
        }
        let mut after = *state;
        if after.copy_or_apply(self.rules.apply_guard) {
            next.push((Action::on(state.target(), "copies, or applies a change"), after));
        }
        if !self.rules.old_term_is_void {
            let mut after = *state;
            if after.reconnect() {
                next.push((
                    Action::on(state.target(), "goes on with a slot of the new master"),
                    after,
                ));
            }
        }
        if self.bounds.locks && !state.is_split && (state.nobody_writes() || !self.rules.split_takes_parents_lock) {
            let mut after = *state;
            after.is_split = true;
            next.push((Action::on(0, "the range is split"), after));
        }
    }
}
