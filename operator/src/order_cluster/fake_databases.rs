//! The shards' databases in memory, as far as ranges and moves are concerned. A step does what it promises, at once, or
//! nothing; that the real ones keep the promise is tested with real databases, in `crates/store`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use moves::{
    Attempt, CopyRow, CopyState, ImportRange, MAX_EXPIRED_FREEZES, MoveId, RangeRow, RangeState, ShardView, SlotRow,
    Step, SubscriptionRow, TableCopy, Timeline, WalStatus,
};
use ring::{Generation, Ordinal, Range};
use row_id::Uuid;
use store::admin::AdminError;

use super::{
    books::{BookError, Books},
    masters::Keeper,
    rebalance::{Batch, Done, Fault, HandedOver, Hands, Job, Survey},
};

/// All databases of one cluster; clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct FakeDatabases(Arc<Mutex<State>>);

#[derive(Debug, Default)]
pub(super) struct State {
    /// By the shard's name.
    pub(super) shards: BTreeMap<String, ShardView>,
    /// Shards that do not answer.
    pub(super) silent: BTreeSet<String>,
    /// What each shard says before a move.
    pub(super) surveys: BTreeMap<String, Survey>,
    /// How many more steps succeed; the rest are answered with an error.
    pub(super) steps_left: Option<usize>,
    /// Steps that were carried out.
    pub(super) steps: usize,
    /// Moves begun so far.
    pub(super) moves: u128,
    /// What the next reader of this shard's book has read before something changed.
    pub(super) read_before: Option<(String, ShardView)>,
    /// Whether every copy fails that is begun now.
    pub(super) fail_copies: bool,
}

impl FakeDatabases {
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock().unwrap())
    }

    /// Whether nothing of a move is left anywhere.
    pub(super) fn is_clean(&self) -> bool {
        let settled = |row: &RangeRow| matches!(row.state, RangeState::Owned | RangeState::Cleaned);
        self.with(|state| {
            state.shards.values().all(|view| {
                view.rows.iter().all(settled)
                    && view.copies.is_empty()
                    && view.slots.is_empty()
                    && view.subscriptions.is_empty()
                    && view.publications.is_empty()
            })
        })
    }

    fn ask<T>(&self, keeper: &Keeper, answer: impl FnOnce(&mut State) -> T) -> Result<T, Fault> {
        self.with(|state| {
            if state.silent.contains(&keeper.shard) {
                return Err(silent(&keeper.shard));
            }
            Ok(answer(state))
        })
    }
}

fn silent(shard: &str) -> Fault {
    Fault::Silent {
        shard: shard.to_owned(),
        after: Duration::from_secs(10),
    }
}

#[async_trait]
impl Books for FakeDatabases {
    async fn read(&self, keeper: &Keeper) -> Result<ShardView, Fault> {
        let before = self.with(|state| state.read_before.take_if(|(shard, _)| *shard == keeper.shard));
        match before {
            Some((_, view)) => Ok(view),
            None => self.observe(keeper).await,
        }
    }

    async fn claim(&self, keeper: &Keeper, ranges: &[Range]) -> Result<(), BookError> {
        self.with(|state| {
            let view = state.shard(&keeper.shard, keeper.ordinal);
            let have: BTreeSet<Range> = view.rows.iter().map(|row| row.range).collect();
            let wanted: BTreeSet<Range> = ranges.iter().copied().collect();
            if !have.is_empty() && have != wanted {
                let source = Box::new(AdminError::AlreadyOwns {
                    existing: have.len(),
                    wanted: wanted.len(),
                });
                let shard = keeper.shard.clone();
                return Err(BookError::Database { shard, source });
            }
            view.rows = wanted.into_iter().map(|range| row(range, RangeState::Owned)).collect();
            Ok(())
        })
    }
}

#[async_trait]
impl Hands for FakeDatabases {
    async fn observe(&self, keeper: &Keeper) -> Result<ShardView, Fault> {
        self.ask(keeper, |state| state.shard(&keeper.shard, keeper.ordinal).clone())
    }

    async fn survey(&self, keeper: &Keeper) -> Result<Survey, Fault> {
        self.ask(keeper, |state| {
            state.surveys.get(&keeper.shard).cloned().unwrap_or_default()
        })
    }

    async fn holdings(&self, keeper: &Keeper) -> Result<Option<String>, Fault> {
        self.ask(keeper, |state| {
            let view = state.shard(&keeper.shard, keeper.ordinal);
            let cleaned = view.rows.iter().all(|row| row.state == RangeState::Cleaned);
            (!cleaned).then(|| "it owns keys".to_owned())
        })
    }

    async fn carry_out(&self, job: &Job) -> Result<Done, Fault> {
        // As the real one would: others get their turn.
        tokio::task::yield_now().await;
        self.with(|state| {
            for keeper in [&job.source, &job.target] {
                if state.silent.contains(&keeper.shard) {
                    return Err(silent(&keeper.shard));
                }
            }
            if let Some(left) = &mut state.steps_left {
                match left.checked_sub(1) {
                    Some(rest) => *left = rest,
                    None => return Err(silent("which died with its operator")),
                }
            }
            state.steps += 1;
            Ok(state.carry_out(job))
        })
    }
}

pub(super) fn row(range: Range, state: RangeState) -> RangeRow {
    RangeRow {
        range_id: 0,
        range,
        generation: Generation(1),
        state,
        move_id: None,
        attempt: Attempt(0),
        verified_attempt: None,
        target: None,
        expired: false,
    }
}

impl State {
    pub(super) fn shard(&mut self, name: &str, ordinal: Ordinal) -> &mut ShardView {
        self.shards.entry(name.to_owned()).or_insert_with(|| ShardView {
            ordinal,
            term: Timeline(1),
            rows: Vec::new(),
            copies: Vec::new(),
            slots: Vec::new(),
            subscriptions: Vec::new(),
            publications: Vec::new(),
        })
    }

    fn carry_out(&mut self, job: &Job) -> Done {
        let (source, target) = (&job.source, &job.target);
        match &job.step {
            Step::Begin { ranges, .. } => return Done::Begun(self.begin(source, target, ranges)),
            Step::Copy {
                move_id,
                source_term,
                failover,
                ..
            } => {
                self.copy(source, target, *move_id, *source_term, *failover);
                return Done::Copying;
            }
            Step::HandOver { move_id, range, .. } | Step::RollForward { move_id, range, .. } => {
                return self.hand_over(source, target, *move_id, *range);
            }
            Step::Abort { move_id, ranges, .. } => return self.abort(source, target, *move_id, ranges),
            Step::DropReplication { move_id, .. } => {
                for end in [source, target] {
                    let view = self.shard(&end.shard, end.ordinal);
                    view.publications.retain(|id| id != move_id);
                    view.slots.retain(|slot| slot.move_id != *move_id);
                    view.subscriptions.retain(|one| one.move_id != *move_id);
                    view.copies.retain(|copy| copy.move_id != *move_id);
                }
            }
            Step::Clean { range, .. } => {
                let view = self.shard(&source.shard, source.ordinal);
                let row = view.rows.iter_mut().find(|row| row.range == *range).unwrap();
                assert_eq!(row.state, RangeState::Moved);
                row.state = RangeState::Cleaned;
                return Done::Cleaned { rows: 1 };
            }
            Step::Split { range, cuts, .. } => {
                let rows = &mut self.shard(&source.shard, source.ordinal).rows;
                for cut in cuts {
                    cut_at(rows, *cut);
                }
                assert!(rows.iter().any(|row| row.range.lo == range.lo));
            }
            Step::Merge { .. } => merge(&mut self.shard(&source.shard, source.ordinal).rows),
            Step::AwaitCopy { .. } => return Done::Awaiting,
            Step::Resume { .. } | Step::Thaw { .. } | Step::Sweep { .. } => {
                panic!("nothing here ever asks for {:?}", job.step)
            }
        }
        Done::Nothing
    }

    fn begin(&mut self, source: &Keeper, target: &Keeper, ranges: &[ImportRange]) -> MoveId {
        self.moves += 1;
        let id = MoveId(Uuid::from_u128(self.moves));
        let expired_freezes = if self.fail_copies { MAX_EXPIRED_FREEZES } else { 0 };
        let view = self.shard(&target.shard, target.ordinal);
        for import in ranges {
            cut_at(&mut view.rows, import.range.lo);
            cut_at(&mut view.rows, import.range.hi);
            view.rows.retain(|row| {
                let overlaps = row.range.lo < import.range.hi && import.range.lo < row.range.hi;
                assert!(!overlaps || row.state == RangeState::Cleaned, "{row:?} is not empty");
                !overlaps
            });
            view.rows.push(RangeRow {
                generation: import.generation,
                attempt: import.attempt,
                move_id: Some(id),
                target: Some(source.ordinal),
                ..row(import.range, RangeState::Importing)
            });
        }
        view.rows.sort_by_key(|row| row.range);
        view.copies.push(CopyRow {
            move_id: id,
            source: source.ordinal,
            source_term: None,
            state: CopyState::Waiting,
            expired_freezes,
            resumes: 0,
            last_error: None,
        });
        id
    }

    fn copy(&mut self, source: &Keeper, target: &Keeper, move_id: MoveId, term: Timeline, failover: bool) {
        let from = self.shard(&source.shard, source.ordinal);
        from.publications.push(move_id);
        from.slots.push(SlotRow {
            move_id,
            active: true,
            wal_status: WalStatus::Reserved,
            invalidated: false,
            failover,
        });
        let to = self.shard(&target.shard, target.ordinal);
        to.subscriptions.push(SubscriptionRow {
            move_id,
            enabled: true,
            tables: vec![TableCopy {
                table: "shop.users".to_owned(),
                ready: true,
            }],
            errors: 0,
        });
        let copy = to.copies.iter_mut().find(|copy| copy.move_id == move_id).unwrap();
        copy.source_term = Some(term);
        copy.state = CopyState::Copying;
    }

    fn hand_over(&mut self, source: &Keeper, target: &Keeper, move_id: MoveId, range: Range) -> Done {
        let from = self.shard(&source.shard, source.ordinal);
        let given = from.rows.iter_mut().find(|row| row.range == range).unwrap();
        assert!(given.state == RangeState::Owned || given.move_id == Some(move_id));
        given.state = RangeState::Moved;
        given.move_id = Some(move_id);
        given.target = Some(target.ordinal);
        let generation = given.generation.next();
        let rows = &mut self.shard(&target.shard, target.ordinal).rows;
        cut_at(rows, range.lo);
        cut_at(rows, range.hi);
        let taken = rows.iter_mut().find(|row| row.range == range).unwrap();
        assert_eq!((taken.state, taken.move_id), (RangeState::Importing, Some(move_id)));
        *taken = RangeRow {
            generation,
            ..row(range, RangeState::Owned)
        };
        Done::HandedOver(HandedOver {
            batches: vec![Batch {
                rows: 10,
                pause: Duration::from_millis(5),
                compared: Duration::from_millis(1),
            }],
            ..HandedOver::default()
        })
    }

    fn abort(&mut self, source: &Keeper, target: &Keeper, move_id: MoveId, ranges: &[Range]) -> Done {
        let view = self.shard(&target.shard, target.ordinal);
        for copy in view.copies.iter_mut().filter(|copy| copy.move_id == move_id) {
            copy.state = CopyState::Aborting;
        }
        for row in view.rows.iter_mut().filter(|row| ranges.contains(&row.range)) {
            assert_eq!((row.state, row.move_id), (RangeState::Importing, Some(move_id)));
            row.state = RangeState::Moved;
            row.target = Some(source.ordinal);
        }
        Done::Aborted {
            undone: ranges.len() as u64,
            rolled_forward: 0,
        }
    }
}

fn cut_at(rows: &mut Vec<RangeRow>, cut: u64) {
    let Some(at) = rows.iter().position(|row| row.range.lo < cut && cut < row.range.hi) else {
        return;
    };
    let mut upper = rows[at].clone();
    rows[at].range.hi = cut;
    upper.range.lo = cut;
    rows.insert(at + 1, upper);
}

fn merge(rows: &mut Vec<RangeRow>) {
    rows.dedup_by(|next, row| {
        let same = row.range.hi == next.range.lo
            && row.state == next.state
            && row.generation == next.generation
            && row.target == next.target;
        if same {
            row.range.hi = next.range.hi;
        }
        same
    });
}
