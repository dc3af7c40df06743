//! What is still there that should not be.

use std::collections::BTreeSet;

use ring::{Ordinal, Tokens};

use super::databases::Databases;
use crate::{RangeRow, RangeState};

impl Databases {
    /// What moves left behind, in words.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let mut found = Vec::new();
        for view in self.shards.values() {
            let shard = view.ordinal;
            let settled = |row: &&RangeRow| matches!(row.state, RangeState::Owned | RangeState::Cleaned);
            found.extend(
                view.rows
                    .iter()
                    .filter(|row| !settled(row))
                    .map(|row| format!("{shard}: {row:?}")),
            );
            found.extend(view.copies.iter().map(|copy| format!("{shard}: {copy:?}")));
            found.extend(view.slots.iter().map(|slot| format!("{shard}: {slot:?}")));
            found.extend(view.subscriptions.iter().map(|one| format!("{shard}: {one:?}")));
            found.extend(
                view.publications
                    .iter()
                    .map(|one| format!("{shard}: publication of {one}")),
            );
        }
        found
    }

    /// Keys that are on a shard that does not own them.
    pub(crate) fn strays(&self, truth: &Tokens) -> BTreeSet<(Ordinal, u64)> {
        let ranges = truth.ranges();
        let owner = |key: u64| ranges[ranges.partition_point(|(range, _)| range.hi <= key)].1;
        let all = self
            .data
            .iter()
            .flat_map(|(shard, data)| data.keys().map(|key| (*shard, *key)));
        all.filter(|(shard, key)| owner(*key) != *shard).collect()
    }
}
