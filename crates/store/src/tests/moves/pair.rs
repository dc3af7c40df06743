//! Two shards, a session with the master of each, and an operator's way through a move.

use std::time::Duration;

use ring::{Ordinal, Range, Tokens};
use row_id::Position;
use sqlx::postgres::PgSslMode;
use uuid::Uuid;

use crate::admin::Role;
use crate::moves::{
    self, Batch, CopyState, HandOver, HandOverLimits, ImportRange, MoveError, MoveId, Publisher, RangeRow, RangeState,
    ShardSession,
};
use crate::tests::fence::insert;
use crate::tests::shards::{Shards, run, server, superuser};

/// Everything a move may wait for, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) struct Pair {
    pub(super) shards: Shards,
    pub(super) sessions: [ShardSession; 2],
    /// Whether its moves have failover slots.
    pub(super) failover: bool,
}

/// Long enough for a busy machine; that a pause is short is measured elsewhere.
pub(super) fn patient() -> HandOverLimits {
    HandOverLimits {
        pause: Duration::from_secs(20),
        gate: Duration::from_secs(30),
        apply_lag_bytes: i64::MAX,
        standby_lag: Duration::from_secs(10),
        long_holder: Duration::from_secs(10),
    }
}

pub(super) fn new_move() -> MoveId {
    MoveId(Uuid::from_u128(rand::random()))
}

pub(super) fn batch(move_id: MoveId, lo: u64, hi: u64) -> Batch {
    Batch {
        move_id,
        range: Range { lo, hi },
    }
}

/// A claim is the row with the fewest columns; this one lies at the position.
pub(super) fn claim_at(position: u32) -> String {
    insert(row_id::EventId::generate(Position::new(position)).uuid())
}

impl Pair {
    /// Shard 0 owns everything, shard 1 nothing yet.
    pub(super) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(super) async fn with(configure: impl FnOnce(&mut crate::StoreConfig)) -> Self {
        let shards = Shards::with(2, configure).await;
        shards.publish(Tokens::from_ranges([(Range::ALL, Ordinal(0))]).unwrap());
        for (shard, book) in [(0, "(0, 4294967296, 1, 'owned')"), (1, "")] {
            shards
                .execute(Ordinal(shard), "DELETE FROM ringwright.range_owners")
                .await;
            if !book.is_empty() {
                let sql = format!("INSERT INTO ringwright.range_owners (lo, hi, generation, state) VALUES {book}");
                shards.execute(Ordinal(shard), sql).await;
            }
        }
        let sessions = [session(&shards, 0).await, session(&shards, 1).await];
        Self {
            shards,
            sessions,
            failover: false,
        }
    }

    /// Another operator's sessions with both.
    pub(super) async fn other_sessions(&self) -> [ShardSession; 2] {
        [session(&self.shards, 0).await, session(&self.shards, 1).await]
    }

    /// Source and target of a move away from shard `from`.
    pub(super) fn ends(&mut self, from: usize) -> (&mut ShardSession, &mut ShardSession) {
        let [zero, one] = &mut self.sessions;
        if from == 0 { (zero, one) } else { (one, zero) }
    }

    pub(super) fn publisher(&self, shard: usize) -> Publisher {
        let options = server();
        Publisher {
            hosts: vec![format!("{}:{}", options.get_host(), options.get_port())],
            database: self.shards.database(u16::try_from(shard).unwrap()).to_owned(),
            user: Role::Mover.name().to_owned(),
            password: format!("test-{}", Role::Mover.name()).into(),
            ssl_mode: PgSslMode::Disable,
            ca_file: None,
        }
    }

    /// Begins a move of these ranges: they are `importing` at the target, and nothing is replicated yet.
    pub(super) async fn begin(&mut self, from: usize, ranges: &[Range]) -> MoveId {
        let move_id = new_move();
        let hosts = vec![self.shards.host(u16::try_from(from).unwrap())];
        let (source, target) = self.ends(from);
        for range in ranges {
            carve(source, *range).await;
        }
        let imports: Vec<ImportRange> = book(source)
            .await
            .into_iter()
            .filter(|row| {
                ranges
                    .iter()
                    .any(|range| range.lo <= row.range.lo && row.range.hi <= range.hi)
            })
            .map(|row| ImportRange {
                range: row.range,
                generation: row.generation,
                attempt: row.attempt,
            })
            .collect();
        moves::begin_import(target, move_id, source.shard, &hosts, &imports)
            .await
            .unwrap();
        move_id
    }

    /// Begins a move and copies it: every table follows the source when this returns.
    pub(super) async fn copy(&mut self, from: usize, ranges: &[Range]) -> MoveId {
        let move_id = self.begin(from, ranges).await;
        self.replicate(from, move_id, ranges).await;
        move_id
    }

    /// Sets up the replication of a move that has begun, and waits until it has copied.
    pub(super) async fn replicate(&mut self, from: usize, move_id: MoveId, ranges: &[Range]) {
        self.subscribe(from, move_id, ranges).await;
        let (_, target) = self.ends(from);
        let began = std::time::Instant::now();
        loop {
            let progress = moves::copy_progress(target, move_id).await.unwrap();
            if progress.tables > 0 && progress.tables_ready == progress.tables {
                break;
            }
            assert!(progress.enabled, "the subscription met an error; see the server's log");
            assert!(began.elapsed() < PATIENCE, "{progress:?}: it does not get ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sets up the replication of a move that has begun.
    pub(super) async fn subscribe(&mut self, from: usize, move_id: MoveId, ranges: &[Range]) {
        let (publisher, failover) = (self.publisher(from), self.failover);
        let (source, target) = self.ends(from);
        moves::ensure_publication(source, move_id, ranges).await.unwrap();
        let term = moves::term(source).await.unwrap();
        moves::set_source_term(target, move_id, term).await.unwrap();
        assert!(moves::ensure_slot(source, move_id, term, failover).await.unwrap());
        moves::ensure_subscription(target, move_id, &publisher, failover)
            .await
            .unwrap();
        moves::set_copy_state(target, move_id, CopyState::Copying, None)
            .await
            .unwrap();
    }

    /// Hands everything over that a move imports, in batches of at most `max_rows`; their pauses.
    pub(super) async fn hand_all_over(&mut self, from: usize, move_id: MoveId, max_rows: u32) -> Vec<Duration> {
        let mut pauses = Vec::new();
        while let Some(batch) = self.next_batch(from, move_id, max_rows).await {
            pauses.push(self.hand_over(from, &batch).await);
        }
        pauses
    }

    /// The first batch that is still to be handed over, as a row of the source's book.
    pub(super) async fn next_batch(&mut self, from: usize, move_id: MoveId, max_rows: u32) -> Option<Batch> {
        let (source, target) = self.ends(from);
        let importing = book(target)
            .await
            .into_iter()
            .find(|row| row.state == RangeState::Importing && row.move_id == Some(move_id))?;
        let row = book(source)
            .await
            .into_iter()
            .find(|row| row.range.lo <= importing.range.lo && importing.range.lo < row.range.hi)?;
        let range = Range {
            lo: importing.range.lo,
            hi: importing.range.hi.min(row.range.hi),
        };
        let cut = moves::next_cut(source, range, max_rows).await.unwrap();
        Some(Batch {
            move_id,
            range: Range {
                lo: range.lo,
                hi: cut.unwrap_or(range.hi),
            },
        })
    }

    /// Until it is done; how long the last, successful pause was.
    pub(super) async fn hand_over(&mut self, from: usize, batch: &Batch) -> Duration {
        let (source, target) = self.ends(from);
        until_done(source, target, batch).await
    }

    /// Drops the replication, cleans both sides and merges what can be merged.
    pub(super) async fn finish(&mut self, from: usize, move_id: MoveId) {
        let (source, target) = self.ends(from);
        drop_replication(source, target, move_id).await;
        for session in [source, target] {
            for row in book(session).await {
                if row.state == RangeState::Moved && row.move_id == Some(move_id) {
                    clean(session, &batch(move_id, row.range.lo, row.range.hi)).await;
                }
            }
            let began = std::time::Instant::now();
            loop {
                match moves::merge_ranges(session).await {
                    Ok(0) => break,
                    Ok(_) => {}
                    // Somebody writes, and it waits for 30 ms only.
                    Err(MoveError::Busy { .. }) if began.elapsed() < PATIENCE => {}
                    Err(error) => panic!("{}", error.in_full()),
                }
            }
        }
    }

    /// Nothing of any move is left, and every position has exactly one owner.
    pub(super) async fn assert_settled(&mut self) {
        let mut owned: Vec<(Range, u16)> = Vec::new();
        for session in &mut self.sessions {
            let left = moves::remnants(session).await.unwrap();
            // Origins belong to the whole server: other tests' are none of ours.
            let left: Vec<_> = left.into_iter().filter(|left| left.kind != "origin").collect();
            assert_eq!(left, [], "shard {}", session.shard);
            owned.extend(
                book(session)
                    .await
                    .into_iter()
                    .filter(|row| row.state.is_here())
                    .map(|row| (row.range, session.shard.0)),
            );
        }
        assert_eq!(doubly_owned_or_lost(owned), None);
    }

    pub(super) async fn end(self) {
        drop(self.sessions);
        self.shards.end().await;
    }
}

/// The first position that has no owner or two.
pub(super) fn doubly_owned_or_lost(mut owned: Vec<(Range, u16)>) -> Option<u64> {
    owned.sort();
    let mut reached = 0;
    for (range, _) in owned {
        if range.lo != reached {
            return Some(range.lo.min(reached));
        }
        reached = range.hi;
    }
    (reached != Range::ALL.hi).then_some(reached)
}

pub(super) async fn session(shards: &Shards, shard: u16) -> ShardSession {
    let conn = superuser(shards.database(shard)).await;
    ShardSession::open(conn, Ordinal(shard), vec![shards.host(shard)], Vec::new())
        .await
        .unwrap()
}

pub(super) async fn book(session: &mut ShardSession) -> Vec<RangeRow> {
    moves::observe(session).await.unwrap().rows
}

/// The row that holds a position.
pub(super) async fn row_at(session: &mut ShardSession, position: u64) -> RangeRow {
    let rows = book(session).await;
    rows.into_iter()
        .find(|row| row.range.lo <= position && position < row.range.hi)
        .unwrap()
}

/// Makes the edges of a range edges of the book.
pub(super) async fn carve(session: &mut ShardSession, range: Range) {
    for cut in [range.lo, range.hi] {
        for row in book(session).await {
            if row.range.lo < cut && cut < row.range.hi {
                while !matches!(moves::split_range(session, row.range, cut).await, Ok(true)) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        }
    }
}

pub(super) async fn until_done(source: &mut ShardSession, target: &mut ShardSession, batch: &Batch) -> Duration {
    let began = std::time::Instant::now();
    loop {
        match moves::hand_over(source, target, batch, &patient()).await.unwrap() {
            HandOver::Done { pause, .. } => return pause,
            other => assert!(began.elapsed() < PATIENCE, "{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(super) async fn drop_replication(source: &mut ShardSession, target: &mut ShardSession, move_id: MoveId) {
    assert!(moves::drop_replication(source, target, move_id).await.unwrap());
}

pub(super) async fn clean(session: &mut ShardSession, batch: &Batch) {
    while moves::clean_rows(session, batch, 500).await.unwrap() > 0 {}
    assert!(moves::mark_cleaned(session, batch).await.unwrap());
}

/// Writes a claim at each of these positions.
pub(super) async fn write_claims(session: &mut ShardSession, positions: impl IntoIterator<Item = u32>) {
    for position in positions {
        run(&mut session.conn, claim_at(position)).await;
    }
}

pub(super) async fn count_claims(session: &mut ShardSession) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM ringwright.contact_claims")
        .fetch_one(&mut session.conn)
        .await
        .unwrap()
}
