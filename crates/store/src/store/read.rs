//! Reads of rows: where they are asked for, and what is made of the answers.

use std::sync::Arc;
use std::time::Instant;

use futures::future::join_all;
use ring::{Generation, Ordinal};
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::Inner;
use super::place::Way;
use super::query::{Query, RangeHere, Verdict};
use super::race::Silence;
use super::write::{Place, row_position};
use crate::error::StoreError;
use crate::reading::{Answer, ReadAt};

/// Turns the rows of an answer into a value.
pub(crate) type Decode<T> = fn(&[PgRow]) -> Result<T, String>;

impl Inner {
    /// Reads what belongs to one key.
    pub(crate) async fn read_one<T>(
        &self,
        key: Uuid,
        at: &ReadAt,
        query: Query,
        decode: Decode<T>,
    ) -> Result<Answer<T>, StoreError> {
        let began = Instant::now();
        let deadline = began + self.config.read_deadline;
        let query = Arc::new(query);
        let mut way = Way::default();
        let mut only_master = at.consistency.is_strong();
        loop {
            let ordinal = way
                .under(self.places.ring().epoch())
                .unwrap_or_else(|| self.places.locate(row_position(key)));
            let shard = self.shard(ordinal)?;
            let tried = Instant::now();
            let patience = self.patience(ordinal, deadline);
            let why = match self.contest(&shard, &query, at, only_master, patience).await {
                Ok(seen) => {
                    let bad = |why| StoreError::BadRow {
                        operation: query.operation,
                        shard: ordinal,
                        why,
                    };
                    let head = seen
                        .rows
                        .first()
                        .ok_or_else(|| bad("the statement gave no row".to_owned()))?;
                    let range = RangeHere::read(head).map_err(|error| bad(error.to_string()))?;
                    match range.judge(seen.from_master, other_generation(at, ordinal)) {
                        Verdict::Serve(generation) => {
                            let value = decode(&seen.rows).map_err(bad)?;
                            return Ok(Answer {
                                value,
                                token: seen.token(ordinal, generation),
                            });
                        }
                        Verdict::AskMaster => only_master = true,
                        Verdict::Elsewhere(redirect) => {
                            self.follow(Place::Key(key), &mut way, &redirect, ordinal, deadline)
                                .await;
                        }
                    }
                    "the position is not served there".to_owned()
                }
                Err(Silence::Retry(why)) => {
                    self.await_better(ordinal, tried, &mut way, deadline).await;
                    why
                }
                Err(silence) => return Err(self.unanswered(silence, query.operation, ordinal, began.elapsed())),
            };
            if Instant::now() >= deadline {
                return Err(self.unavailable(query.operation, ordinal, &why, began.elapsed()));
            }
        }
    }

    /// Reads rows of many keys, one statement a shard; what a shard does not serve is asked for singly. `many` binds
    /// the ids of one shard, `one` a single id.
    pub(crate) async fn read_many<T>(
        &self,
        ids: &[Uuid],
        at: &ReadAt,
        many: fn(Vec<Uuid>) -> Query,
        one: fn(Uuid) -> Query,
        decode: Decode<T>,
    ) -> Vec<Result<Answer<T>, StoreError>> {
        let mut groups: Vec<(Ordinal, Vec<usize>)> = Vec::new();
        for (index, id) in ids.iter().enumerate() {
            let ordinal = self.places.locate(row_position(*id));
            match groups.iter_mut().find(|(shard, _)| *shard == ordinal) {
                Some((_, group)) => group.push(index),
                None => groups.push((ordinal, vec![index])),
            }
        }
        let groups = groups.into_iter().map(|(ordinal, indexes)| async move {
            let keys: Vec<Uuid> = indexes.iter().map(|index| ids[*index]).collect();
            let answers = self.read_group(ordinal, &keys, at, many(keys.clone()), decode).await;
            // Singly, so that one key's trouble is not another's.
            let complete = join_all(answers.into_iter().zip(keys).map(|(answer, key)| async move {
                match answer {
                    Some(answer) => answer,
                    None => self.read_one(key, at, one(key), decode).await,
                }
            }));
            indexes.into_iter().zip(complete.await).collect::<Vec<_>>()
        });
        let mut all: Vec<_> = join_all(groups).await.into_iter().flatten().collect();
        all.sort_by_key(|(index, _)| *index);
        all.into_iter().map(|(_, answer)| answer).collect()
    }

    /// One statement for the keys of one shard; `None` for a key that has to be asked for singly.
    async fn read_group<T>(
        &self,
        ordinal: Ordinal,
        keys: &[Uuid],
        at: &ReadAt,
        query: Query,
        decode: Decode<T>,
    ) -> Vec<Option<Result<Answer<T>, StoreError>>> {
        let began = Instant::now();
        let operation = query.operation;
        let only_master = at.consistency.is_strong();
        let shard = match self.shard(ordinal) {
            Ok(shard) => shard,
            Err(_) => return keys.iter().map(|_| None).collect(),
        };
        let seen = self
            .contest(
                &shard,
                &Arc::new(query),
                at,
                only_master,
                began + self.config.read_deadline,
            )
            .await;
        let seen = match seen {
            Ok(seen) => seen,
            Err(Silence::Final(_)) => return keys.iter().map(|_| None).collect(),
            // The time is not over: a connection had gone stale, or the master has just moved. Each key tries by itself.
            Err(Silence::Retry(_)) if began.elapsed() < self.config.read_deadline => {
                return keys.iter().map(|_| None).collect();
            }
            // Each key would wait as long again and learn the same.
            Err(Silence::Retry(why)) => {
                let unavailable = |_| Some(Err(self.unavailable(operation, ordinal, &why, began.elapsed())));
                return keys.iter().map(unavailable).collect();
            }
            // What one statement found no room for, as many as there are keys must not ask for.
            Err(Silence::Full) => {
                let full = |_| Some(Err(self.unanswered(Silence::Full, operation, ordinal, began.elapsed())));
                return keys.iter().map(full).collect();
            }
            Err(Silence::ForeignToken) => {
                let foreign = |_| Some(Err(StoreError::ForeignToken { shard: ordinal }));
                return keys.iter().map(foreign).collect();
            }
        };
        let answer = |key: &Uuid| {
            let row = seen
                .rows
                .iter()
                .find(|row| row.try_get::<Uuid, _>("key").is_ok_and(|found| found == *key))?;
            match RangeHere::read(row)
                .ok()?
                .judge(seen.from_master, other_generation(at, ordinal))
            {
                Verdict::Serve(generation) => {
                    let bad = |why| StoreError::BadRow {
                        operation,
                        shard: ordinal,
                        why,
                    };
                    let value = decode(std::slice::from_ref(row)).map_err(bad);
                    Some(value.map(|value| Answer {
                        value,
                        token: seen.token(ordinal, generation),
                    }))
                }
                Verdict::AskMaster | Verdict::Elsewhere(_) => None,
            }
        };
        keys.iter().map(answer).collect()
    }
}

/// The highest generation in tokens of other shards.
fn other_generation(at: &ReadAt, shard: Ordinal) -> Option<Generation> {
    let tokens = at.consistency.tokens().as_slice().iter();
    let others = tokens.filter(|token| token.shard != shard);
    others.map(|token| token.generation).max()
}
