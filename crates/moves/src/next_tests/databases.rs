//! What the shards' databases hold and do, as far as moves go: each function is one commit, and checks what the SQL
//! function of its name checks.

use std::collections::BTreeMap;

use ring::{Generation, Ordinal, POSITIONS, Range, Tokens};
use uuid::Uuid;

use crate::truth::overlap;
use crate::{
    Attempt, CopyRow, CopyState, ImportRange, MoveId, RangeRow, RangeState, ShardView, SlotRow, SubscriptionRow,
    TableCopy, Timeline, WalStatus,
};

/// Keys stand on every 2^24th position, so that each range of the tests has a few.
const SPACING: u64 = 1 << 24;

#[derive(Clone, Debug)]
pub(crate) struct Databases {
    pub(crate) shards: BTreeMap<Ordinal, ShardView>,
    /// Which keys, and in which version, each shard holds rows of.
    pub(crate) data: BTreeMap<Ordinal, BTreeMap<u64, u32>>,
    /// What clients were told is stored.
    pub(crate) acknowledged: BTreeMap<u64, u32>,
    next_range_id: i64,
    next_move: u128,
}

impl Databases {
    /// Shards that own what `tokens` say, with a row on every key.
    pub(crate) fn owning(tokens: &Tokens, ordinals: impl IntoIterator<Item = Ordinal>) -> Self {
        let mut databases = Self {
            shards: BTreeMap::new(),
            data: BTreeMap::new(),
            acknowledged: (0..POSITIONS / SPACING).map(|key| (key * SPACING, 1)).collect(),
            next_range_id: 0,
            next_move: 0,
        };
        ordinals.into_iter().for_each(|ordinal| databases.join(ordinal));
        for (range, ordinal) in tokens.ranges() {
            databases.join(ordinal);
            let mut row = databases.row(range, RangeState::Owned);
            row.generation = Generation(1);
            databases.view(ordinal).rows.push(row);
            let keys: Vec<u64> = databases
                .acknowledged
                .keys()
                .copied()
                .filter(|key| holds(range, *key))
                .collect();
            let data = databases.data.entry(ordinal).or_default();
            data.extend(keys.into_iter().map(|key| (key, 1)));
        }
        databases
    }

    /// A shard that holds nothing yet.
    pub(crate) fn join(&mut self, ordinal: Ordinal) {
        self.data.entry(ordinal).or_default();
        self.shards.entry(ordinal).or_insert_with(|| ShardView {
            ordinal,
            term: Timeline(1),
            rows: Vec::new(),
            copies: Vec::new(),
            slots: Vec::new(),
            subscriptions: Vec::new(),
            publications: Vec::new(),
        });
    }

    fn row(&mut self, range: Range, state: RangeState) -> RangeRow {
        self.next_range_id += 1;
        RangeRow {
            range_id: self.next_range_id,
            range,
            generation: Generation(0),
            state,
            move_id: None,
            attempt: Attempt(0),
            verified_attempt: None,
            target: None,
            expired: false,
        }
    }

    pub(crate) fn view(&mut self, ordinal: Ordinal) -> &mut ShardView {
        self.shards.get_mut(&ordinal).unwrap()
    }

    fn find(&mut self, shard: Ordinal, range: Range) -> Option<&mut RangeRow> {
        self.view(shard).rows.iter_mut().find(|row| row.range == range)
    }

    fn copy(&mut self, target: Ordinal, move_id: MoveId) -> Option<&mut CopyRow> {
        self.view(target).copies.iter_mut().find(|copy| copy.move_id == move_id)
    }

    /// Cuts an `owned` row. Cut past its commit point, it could not be taken over by the row that was verified.
    pub(crate) fn split_range(&mut self, shard: Ordinal, at: u64) {
        let owned = |row: &RangeRow| row.state == RangeState::Owned && row.range.lo < at && at < row.range.hi;
        if self.shards[&shard].rows.iter().any(owned) {
            self.cut(shard, at);
        }
    }

    /// Cuts the row that holds a position as an inner one.
    fn cut(&mut self, shard: Ordinal, at: u64) {
        let inner = |row: &RangeRow| row.range.lo < at && at < row.range.hi;
        let Some(index) = self.shards[&shard].rows.iter().position(inner) else {
            return;
        };
        let mut upper = self.shards[&shard].rows[index].clone();
        self.next_range_id += 2;
        upper.range_id = self.next_range_id;
        upper.range.lo = at;
        let id = self.next_range_id - 1;
        let rows = &mut self.view(shard).rows;
        rows[index].range.hi = at;
        rows[index].range_id = id;
        rows.insert(index + 1, upper);
    }

    pub(crate) fn merge_ranges(&mut self, shard: Ordinal) {
        let mut merged: Vec<RangeRow> = Vec::new();
        for row in self.shards[&shard].rows.clone() {
            match merged.last_mut() {
                Some(last)
                    if last.range.hi == row.range.lo
                        && last.state == row.state
                        && last.generation == row.generation
                        && (row.state == RangeState::Owned
                            || row.state == RangeState::Cleaned && last.target == row.target) =>
                {
                    last.range.hi = row.range.hi;
                    last.attempt = last.attempt.max(row.attempt);
                }
                _ => merged.push(row),
            }
        }
        self.view(shard).rows = merged;
    }

    pub(crate) fn begin_import(&mut self, source: Ordinal, target: Ordinal, ranges: &[ImportRange]) {
        self.next_move += 1;
        // Scattered, as random ids are.
        let move_id = MoveId(Uuid::from_u128(
            self.next_move.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
        ));
        let rows = &self.shards[&target].rows;
        let taken = |import: &ImportRange| {
            let in_the_way =
                |row: &RangeRow| row.state != RangeState::Cleaned && overlap(row.range, import.range).is_some();
            rows.iter().any(in_the_way) || self.data[&target].keys().any(|key| holds(import.range, *key))
        };
        if ranges.iter().any(taken) {
            return;
        }
        for import in ranges {
            self.cut(target, import.range.lo);
            self.cut(target, import.range.hi);
            self.view(target)
                .rows
                .retain(|row| overlap(row.range, import.range).is_none());
            let mut row = self.row(import.range, RangeState::Importing);
            row.generation = import.generation;
            row.attempt = import.attempt;
            row.move_id = Some(move_id);
            row.target = Some(source);
            self.view(target).rows.push(row);
            self.view(target).rows.sort_by_key(|row| row.range);
        }
        self.view(target).copies.push(CopyRow {
            move_id,
            source,
            source_term: None,
            state: CopyState::Waiting,
            expired_freezes: 0,
            resumes: 0,
            last_error: None,
        });
    }

    pub(crate) fn ensure_publication(&mut self, source: Ordinal, move_id: MoveId) {
        let publications = &mut self.view(source).publications;
        if !publications.contains(&move_id) {
            publications.push(move_id);
        }
    }

    /// Whether the move waits, and its slot may be made in this term.
    pub(crate) fn set_source_term(&mut self, target: Ordinal, move_id: MoveId, term: Timeline) -> bool {
        self.copy(target, move_id)
            .is_some_and(|copy| copy.state == CopyState::Waiting && *copy.source_term.get_or_insert(term) == term)
    }

    pub(crate) fn ensure_slot(&mut self, source: Ordinal, move_id: MoveId, term: Timeline, failover: bool) {
        let view = self.view(source);
        if view.term == term && view.slots.iter().all(|slot| slot.move_id != move_id) {
            view.slots.push(SlotRow {
                move_id,
                active: false,
                wal_status: WalStatus::Reserved,
                invalidated: false,
                failover,
            });
        }
    }

    pub(crate) fn ensure_subscription(&mut self, target: Ordinal, move_id: MoveId) {
        let view = self.view(target);
        if view.subscriptions.iter().all(|one| one.move_id != move_id) {
            view.subscriptions.push(SubscriptionRow {
                move_id,
                enabled: true,
                tables: vec![TableCopy {
                    table: "shop.users".into(),
                    ready: false,
                }],
                errors: 0,
            });
        }
    }

    pub(crate) fn set_copy_state(&mut self, target: Ordinal, move_id: MoveId, state: CopyState) {
        if let Some(copy) = self.copy(target, move_id)
            && copy.state < state
        {
            copy.state = state;
        }
    }

    /// The initial copy runs to its end, if there is everything that it needs.
    pub(crate) fn finish_copy(&mut self, source: Ordinal, target: Ordinal, move_id: MoveId) {
        if !self.replicates(source, target, move_id) {
            return;
        }
        self.catch_up(source, target, move_id);
        let mut subscriptions = self.view(target).subscriptions.iter_mut();
        if let Some(one) = subscriptions.find(|one| one.move_id == move_id) {
            one.tables.iter_mut().for_each(|table| table.ready = true);
        }
    }

    /// Switches the subscription on again; the slot has kept what was written meanwhile.
    pub(crate) fn resume_copy(&mut self, source: Ordinal, target: Ordinal, move_id: MoveId) {
        let stopped = |one: &SubscriptionRow| one.move_id == move_id && !one.enabled;
        if !self.shards[&target].subscriptions.iter().any(stopped) {
            return;
        }
        match self.copy(target, move_id) {
            Some(copy) if copy.state == CopyState::Copying => copy.resumes += 1,
            _ => return,
        }
        let mut subscriptions = self.view(target).subscriptions.iter_mut();
        let one = subscriptions.find(|one| one.move_id == move_id).unwrap();
        one.enabled = true;
        if one.is_ready() && self.replicates(source, target, move_id) {
            self.catch_up(source, target, move_id);
        }
    }

    fn catch_up(&mut self, source: Ordinal, target: Ordinal, move_id: MoveId) {
        for range in self.importing(target, move_id) {
            let rows: Vec<(u64, u32)> = self.data[&source]
                .iter()
                .map(|(key, version)| (*key, *version))
                .collect();
            let copied = rows.into_iter().filter(|(key, _)| holds(range, *key));
            self.data.get_mut(&target).unwrap().extend(copied);
        }
    }

    fn importing(&self, target: Ordinal, move_id: MoveId) -> Vec<Range> {
        let mine = |row: &&RangeRow| row.state == RangeState::Importing && row.move_id == Some(move_id);
        self.shards[&target]
            .rows
            .iter()
            .filter(mine)
            .map(|row| row.range)
            .collect()
    }

    fn replicates(&self, source: Ordinal, target: Ordinal, move_id: MoveId) -> bool {
        let (source, target) = (&self.shards[&source], &self.shards[&target]);
        source
            .slots
            .iter()
            .any(|slot| slot.move_id == move_id && !slot.invalidated)
            && source.publications.contains(&move_id)
            && target
                .subscriptions
                .iter()
                .any(|one| one.move_id == move_id && one.enabled)
    }

    /// A client writes: to the owner, unless the range is frozen; whoever imports it gets the row by replication.
    pub(crate) fn write(&mut self, key: u64) {
        let key = key % (POSITIONS / SPACING) * SPACING;
        let owns = |view: &&ShardView| {
            let here = |row: &RangeRow| row.state == RangeState::Owned && holds(row.range, key);
            view.rows.iter().any(here)
        };
        let Some(owner) = self.shards.values().find(owns).map(|view| view.ordinal) else {
            return;
        };
        let version = self.acknowledged[&key] + 1;
        self.acknowledged.insert(key, version);
        self.data.get_mut(&owner).unwrap().insert(key, version);
        let importers: Vec<(Ordinal, MoveId)> = self
            .shards
            .values()
            .flat_map(|view| view.rows.iter().map(move |row| (view.ordinal, row)))
            .filter(|(_, row)| row.state == RangeState::Importing && row.target == Some(owner) && holds(row.range, key))
            .filter_map(|(target, row)| Some((target, row.move_id?)))
            .collect();
        for (target, move_id) in importers {
            let copied = |view: &ShardView| {
                view.subscriptions
                    .iter()
                    .any(|one| one.move_id == move_id && one.is_ready())
            };
            if self.replicates(owner, target, move_id) && copied(&self.shards[&target]) {
                self.data.get_mut(&target).unwrap().insert(key, version);
            }
        }
    }

    /// The attempt, unless the range is not the shard's or is frozen for another move.
    pub(crate) fn freeze(
        &mut self,
        source: Ordinal,
        target: Ordinal,
        move_id: MoveId,
        range: Range,
    ) -> Option<Attempt> {
        let row = self.find(source, range)?;
        match row.state {
            RangeState::Owned => {}
            RangeState::Frozen if row.move_id == Some(move_id) => {}
            _ => return None,
        }
        row.state = RangeState::Frozen;
        row.move_id = Some(move_id);
        row.target = Some(target);
        row.attempt = row.attempt.next();
        Some(row.attempt)
    }

    pub(crate) fn thaw(&mut self, shard: Ordinal, move_id: MoveId, range: Range, attempt: Attempt) {
        if let Some(row) = self.find(shard, range)
            && row.state == RangeState::Frozen
            && (row.move_id, row.attempt) == (Some(move_id), attempt)
        {
            row.state = RangeState::Owned;
        }
    }

    /// Compares the rows of both sides; equal, it writes so at the target.
    pub(crate) fn verify(&mut self, source: Ordinal, target: Ordinal, move_id: MoveId, range: Range, attempt: Attempt) {
        let rows = |shard: Ordinal| -> BTreeMap<u64, u32> {
            let all = self.data[&shard].iter().map(|(key, version)| (*key, *version));
            all.filter(|(key, _)| holds(range, *key)).collect()
        };
        if rows(source) != rows(target) {
            return;
        }
        let mine = |row: &RangeRow| {
            row.state == RangeState::Importing
                && row.move_id == Some(move_id)
                && overlap(row.range, range) == Some(range)
        };
        if !self.shards[&target].rows.iter().any(mine) {
            return;
        }
        self.cut(target, range.lo);
        self.cut(target, range.hi);
        let row = self.find(target, range).unwrap();
        if row.verified_attempt.is_none_or(|before| before < attempt) {
            row.verified_attempt = Some(attempt);
        }
    }

    pub(crate) fn commit_move(&mut self, source: Ordinal, move_id: MoveId, range: Range, attempt: Attempt) {
        if let Some(row) = self.find(source, range)
            && row.state == RangeState::Frozen
            && (row.move_id, row.attempt) == (Some(move_id), attempt)
        {
            row.state = RangeState::Moved;
        }
    }

    /// By what the source says, as routers do it too.
    pub(crate) fn activate(&mut self, source: Ordinal, target: Ordinal, move_id: MoveId, range: Range) {
        let Some(given) = self.find(source, range).cloned() else {
            return;
        };
        if given.move_id != Some(move_id) || !matches!(given.state, RangeState::Moved | RangeState::Cleaned) {
            return;
        }
        if let Some(row) = self.find(target, range)
            && row.state == RangeState::Importing
            && (row.move_id, row.verified_attempt) == (Some(move_id), Some(given.attempt))
        {
            row.state = RangeState::Owned;
            row.generation = given.generation.next();
            row.attempt = given.attempt;
            row.verified_attempt = None;
        }
    }

    /// Where all of the range is the source's, or out of reach of this move for good.
    pub(crate) fn leave_import(&mut self, source: Ordinal, target: Ordinal, move_id: MoveId, range: Range) {
        let at_source = self.shards[&source]
            .rows
            .iter()
            .filter(|row| overlap(row.range, range).is_some());
        let (mut attempt, mut generation) = (Attempt(0), Generation(1));
        for row in at_source {
            let mine = row.move_id == Some(move_id);
            if mine && row.state != RangeState::Owned && row.state != RangeState::Importing {
                return;
            }
            attempt = attempt.max(row.attempt);
            generation = generation.max(row.generation);
        }
        if let Some(row) = self.find(target, range)
            && row.state == RangeState::Importing
            && row.move_id == Some(move_id)
            && row.verified_attempt.is_none_or(|verified| verified <= attempt)
        {
            row.state = RangeState::Moved;
            row.generation = generation;
            row.verified_attempt = None;
        }
    }

    pub(crate) fn drop_subscription(&mut self, target: Ordinal, move_id: MoveId) {
        self.view(target).subscriptions.retain(|one| one.move_id != move_id);
    }

    pub(crate) fn drop_slot(&mut self, source: Ordinal, move_id: MoveId) {
        self.view(source).slots.retain(|slot| slot.move_id != move_id);
    }

    pub(crate) fn drop_publication(&mut self, source: Ordinal, move_id: MoveId) {
        self.view(source).publications.retain(|one| *one != move_id);
    }

    pub(crate) fn forget_copy(&mut self, target: Ordinal, move_id: MoveId) {
        if self.importing(target, move_id).is_empty() {
            self.view(target).copies.retain(|copy| copy.move_id != move_id);
        }
    }

    pub(crate) fn clean_rows(&mut self, shard: Ordinal, move_id: MoveId, range: Range) {
        if self
            .find(shard, range)
            .is_some_and(|row| row.state == RangeState::Moved && row.move_id == Some(move_id))
        {
            self.data.get_mut(&shard).unwrap().retain(|key, _| !holds(range, *key));
        }
    }

    pub(crate) fn mark_cleaned(&mut self, shard: Ordinal, move_id: MoveId, range: Range) {
        let empty = self.data[&shard].keys().all(|key| !holds(range, *key));
        if let Some(row) = self.find(shard, range)
            && row.state == RangeState::Moved
            && row.move_id == Some(move_id)
            && empty
        {
            row.state = RangeState::Cleaned;
        }
    }

    /// Another master: what is not replicated physically is gone.
    pub(crate) fn fail_over(&mut self, shard: Ordinal) {
        let view = self.view(shard);
        view.term = Timeline(view.term.0 + 1);
        view.slots.clear();
    }
}

pub(crate) fn holds(range: Range, key: u64) -> bool {
    range.lo <= key && key < range.hi
}
