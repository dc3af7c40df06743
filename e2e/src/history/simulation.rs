//! A store that keeps its word, in a few hundred lines, and clients that use it at random: histories that the judge has
//! to find clean, with concurrency, lost answers, repeats, lagging replicas, failovers and moves.
//!
//! Time is a counter of ticks. Each request takes effect at one moment between its start and its answer, so what comes out is
//! linearisable by construction, and session reads are those of a replica that has replayed the caller's token, and all
//! that the log had when a read may have been the oldest.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use uuid::Uuid;

use super::contents::{Contents, position};
use super::ownership::{BookRow, RangeState, Sample};
use super::reads::OLDEST;
use super::record::*;

mod end;

/// Nanoseconds: a run then takes some times as long as a read may be behind.
const TICK: u64 = 10_000_000;
const SHARDS: u16 = 3;
const RANGES: u64 = 6;
const CLIENTS: usize = 8;

/// What a run gave the judge.
#[derive(Clone)]
pub(super) struct Evidence {
    pub(super) history: History,
    pub(super) samples: Vec<Sample>,
    pub(super) contents: Contents,
}

/// A version of a row: what it held, and where in which log it was committed.
#[derive(Clone)]
struct Version {
    content: Content,
    at: Token,
}

/// A row with all its versions, the first at index 0.
struct Row {
    order_of: Option<Uuid>,
    created_by: OperationId,
    versions: Vec<Version>,
}

/// What a client waits for.
struct Flight {
    start: Moment,
    asked: Asked,
    answer: Option<Answered>,
}

enum Asked {
    Write(OperationId),
    Read(Uuid, Consistency),
}

enum Answered {
    Write(Outcome),
    Read(Sight),
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Begin(usize),
    Effect(usize),
    Answer(usize),
    Look(u16),
    Move,
    Failover,
}

struct Simulation {
    random: StdRng,
    now: u64,
    queue: BinaryHeap<Reverse<(u64, u64, Step)>>,
    steps: u64,
    requests_left: usize,
    logs: Vec<Token>,
    /// Where each log's present term began: whoever streams in it has received all before.
    terms: Vec<u64>,
    /// How far each log had come, and when, in ticks.
    heights: Vec<Vec<(u64, u64)>>,
    /// (owner, generation, where in the owner's log it began) of each range.
    owners: Vec<(u16, i64, u64)>,
    books: BTreeMap<u16, Vec<BookRow>>,
    rows: BTreeMap<Uuid, Row>,
    done: HashMap<OperationId, (Uuid, i64)>,
    /// Attempts that may have left claims behind.
    lost: Vec<OperationId>,
    flights: Vec<Option<Flight>>,
    /// What clients know: the row, its version as last heard, and the tokens of the answers.
    known: Vec<(Uuid, i64, Vec<Token>)>,
    history: History,
    samples: Vec<Sample>,
}

/// Runs about `requests` requests.
pub(super) fn run(seed: u64, requests: usize) -> Evidence {
    let mut simulation = Simulation::new(seed, requests);
    while let Some(Reverse((at, _, step))) = simulation.queue.pop() {
        simulation.now = at;
        simulation.step(step);
    }
    simulation.end()
}

impl Simulation {
    fn new(seed: u64, requests: usize) -> Self {
        let row = |range: u64| BookRow {
            lo: range * (1 << 32) / RANGES,
            hi: (range + 1) * (1 << 32) / RANGES,
            generation: 1,
            state: RangeState::Owned,
            peer: None,
        };
        let owner = |range: u64| (range % u64::from(SHARDS)) as u16;
        let books = (0..SHARDS).map(|shard| {
            let rows = (0..RANGES).filter(|range| owner(*range) == shard).map(row);
            (shard, rows.collect())
        });
        let log = |shard| Token {
            shard,
            term: 1,
            lsn: 100,
        };
        let mut simulation = Self {
            random: StdRng::seed_from_u64(seed),
            now: 0,
            queue: BinaryHeap::new(),
            steps: 0,
            requests_left: requests,
            logs: (0..SHARDS).map(log).collect(),
            terms: vec![0; usize::from(SHARDS)],
            heights: vec![Vec::new(); usize::from(SHARDS)],
            owners: (0..RANGES).map(|range| (owner(range), 1, 0)).collect(),
            books: books.collect(),
            rows: BTreeMap::new(),
            done: HashMap::new(),
            lost: Vec::new(),
            flights: (0..CLIENTS).map(|_| None).collect(),
            known: Vec::new(),
            history: History::default(),
            samples: Vec::new(),
        };
        (0..CLIENTS).for_each(|client| simulation.after(10, Step::Begin(client)));
        (0..SHARDS).for_each(|shard| simulation.after(10, Step::Look(shard)));
        simulation.after(400, Step::Move);
        simulation.after(700, Step::Failover);
        simulation
    }

    /// Does something within so many ticks.
    fn after(&mut self, ticks: u64, step: Step) {
        let at = self.now + 1 + self.random.random_range(0..ticks);
        self.steps += 1;
        self.queue.push(Reverse((at, self.steps, step)));
    }

    fn moment(&self) -> Moment {
        Moment(self.now * TICK)
    }

    fn step(&mut self, step: Step) {
        let running = self.requests_left > 0;
        match step {
            Step::Begin(client) if running => self.begin(client),
            Step::Begin(_) => {}
            Step::Effect(client) => self.effect(client),
            Step::Answer(client) => self.answer(client),
            Step::Look(shard) => {
                let rows = self.books[&shard].clone().into();
                let now = self.moment();
                let span = Span { start: now, end: now };
                self.samples.push(Sample { shard, span, rows });
                if running {
                    self.after(60, Step::Look(shard));
                }
            }
            Step::Move => {
                self.hand_over();
                if running {
                    self.after(300, Step::Move);
                }
            }
            Step::Failover => {
                let shard = self.random.random_range(0..SHARDS) as usize;
                self.logs[shard].term += 1;
                self.terms[shard] = self.logs[shard].lsn;
                if running {
                    self.after(900, Step::Failover);
                }
            }
        }
    }

    fn begin(&mut self, client: usize) {
        self.requests_left -= 1;
        let asked = self.choose();
        self.flights[client] = Some(Flight {
            start: self.moment(),
            asked,
            answer: None,
        });
        self.after(20, Step::Effect(client));
    }

    fn choose(&mut self) -> Asked {
        if self.known.is_empty() || self.random.random_bool(0.1) {
            return self.wish(Intent::CreateUser);
        }
        let (key, version, tokens) = self.known[self.random.random_range(0..self.known.len())].clone();
        let is_order = self.rows[&key].order_of.is_some();
        match self.random.random_range(0..10) {
            0..3 => Asked::Read(key, Consistency::Strong),
            3..6 => Asked::Read(key, Consistency::Session(tokens.into())),
            6 => Asked::Read(key, Consistency::Session([].into())),
            7 if !is_order => self.wish(Intent::CreateOrder { user: key }),
            8 if is_order => self.wish(Intent::Cancel { order: key }),
            _ if is_order => self.wish(Intent::Process { order: key }),
            _ => self.wish(Intent::UpdateUser {
                user: key,
                base: version,
            }),
        }
    }

    fn wish(&mut self, intent: Intent) -> Asked {
        self.history.operations.push(intent);
        Asked::Write(OperationId(self.history.operations.len() as u32 - 1))
    }

    fn effect(&mut self, client: usize) {
        let Some(mut flight) = self.flights[client].take() else {
            return;
        };
        let lost_before = self.random.random_bool(0.03);
        let unknown = || Outcome::Unknown("no answer".into());
        flight.answer = Some(match &flight.asked {
            Asked::Write(operation) if lost_before => {
                self.lost.push(*operation);
                Answered::Write(unknown())
            }
            Asked::Write(operation) => {
                let outcome = self.write(*operation);
                let lost_after = self.random.random_bool(0.05);
                Answered::Write(if lost_after { unknown() } else { outcome })
            }
            Asked::Read(..) if lost_before => Answered::Read(Sight::Nothing),
            Asked::Read(key, consistency) => Answered::Read(self.read(*key, consistency, flight.start)),
        });
        self.flights[client] = Some(flight);
        self.after(20, Step::Answer(client));
    }

    fn range(key: Uuid) -> usize {
        let position = position(key);
        (0..RANGES)
            .find(|range| position < (range + 1) * (1 << 32) / RANGES)
            .unwrap_or(0) as usize
    }

    fn commit(&mut self, key: Uuid) -> Token {
        let shard = self.owners[Self::range(key)].0 as usize;
        self.grow(shard)
    }

    fn grow(&mut self, shard: usize) -> Token {
        let log = &mut self.logs[shard];
        log.lsn += 10;
        self.heights[shard].push((self.now, log.lsn));
        *log
    }

    /// Where a shard's log stood at a moment.
    fn height(&self, shard: u16, at: Moment) -> u64 {
        let heights = &self.heights[shard as usize];
        let before = heights.partition_point(|(tick, _)| tick * TICK <= at.0);
        before.checked_sub(1).map_or(0, |last| heights[last].1)
    }

    fn write(&mut self, operation: OperationId) -> Outcome {
        if let Some((key, version)) = self.done.get(&operation).copied() {
            return self.acknowledge(operation, key, version);
        }
        let (key, content) = match self.history.operations[operation.0 as usize] {
            Intent::CreateUser => (self.new_row(operation, None), None),
            Intent::CreateOrder { user } => (self.new_row(operation, Some(user)), None),
            Intent::UpdateUser { user, base } => {
                if self.rows[&user].versions.len() as i64 != base {
                    return Outcome::Refused(Refusal::Stale);
                }
                let by = operation;
                (
                    user,
                    Some(Content {
                        by,
                        status: Status::Created,
                    }),
                )
            }
            Intent::Process { order } => (order, Some(self.changed(order, Status::Processed))),
            Intent::Cancel { order } => (order, Some(self.changed(order, Status::Cancelled))),
        };
        if let Some(content) = content {
            let row = &self.rows[&key];
            if row.order_of.is_some() && row.versions.len() > 1 {
                return Outcome::Refused(Refusal::Status);
            }
            let at = self.commit(key);
            self.rows.get_mut(&key).unwrap().versions.push(Version { content, at });
        }
        let version = self.rows[&key].versions.len() as i64;
        self.done.insert(operation, (key, version));
        self.acknowledge(operation, key, version)
    }

    fn changed(&self, order: Uuid, status: Status) -> Content {
        Content {
            by: self.rows[&order].created_by,
            status,
        }
    }

    fn new_row(&mut self, operation: OperationId, order_of: Option<Uuid>) -> Uuid {
        let mut bytes: [u8; 16] = self.random.random();
        if let Some(user) = order_of {
            bytes[..4].copy_from_slice(&user.as_bytes()[..4]);
        }
        let key = Uuid::from_bytes(bytes);
        let content = Content {
            by: operation,
            status: Status::Created,
        };
        let at = self.commit(key);
        let row = Row {
            order_of,
            created_by: operation,
            versions: vec![Version { content, at }],
        };
        self.rows.insert(key, row);
        key
    }

    /// An answer covers its write, and whatever else its shard has committed by then.
    fn acknowledge(&mut self, operation: OperationId, key: Uuid, version: i64) -> Outcome {
        let log = self.logs[self.owners[Self::range(key)].0 as usize];
        Outcome::Done(Done {
            key,
            version,
            covers: [log].into(),
            answer: u64::from(operation.0) << 8,
        })
    }

    fn read(&mut self, key: Uuid, consistency: &Consistency, start: Moment) -> Sight {
        let (shard, _, since) = self.owners[Self::range(key)];
        let log = self.logs[shard as usize];
        let position = match consistency {
            Consistency::Strong => log.lsn,
            // A token of another shard sends the read to the master.
            Consistency::Session(tokens) if tokens.iter().any(|token| token.shard != shard) => log.lsn,
            Consistency::Session(tokens) => {
                let floor = tokens.iter().map(|token| token.lsn).max().unwrap_or(0);
                let oldest = self.height(shard, Moment(start.0.saturating_sub(OLDEST)));
                let floor = floor.max(since).max(self.terms[shard as usize]).max(oldest);
                self.random.random_range(floor..=log.lsn)
            }
        };
        let row = &self.rows[&key];
        let visible = |version: &&Version| version.at.shard != shard || version.at.lsn <= position;
        let count = row.versions.iter().take_while(visible).count();
        match row.versions[..count].last() {
            None => Sight::Absent,
            Some(seen) => {
                // The replica may have received more than it shows, never less.
                let term = log.term;
                Sight::Found {
                    version: count as i64,
                    content: seen.content,
                    covers: [Token {
                        shard,
                        term,
                        lsn: position,
                    }]
                    .into(),
                }
            }
        }
    }

    fn answer(&mut self, client: usize) {
        let Some(flight) = self.flights[client].take() else {
            return;
        };
        let span = Span {
            start: flight.start,
            end: self.moment(),
        };
        match (flight.asked, flight.answer) {
            (Asked::Write(operation), Some(Answered::Write(outcome))) => {
                if let Outcome::Done(done) = &outcome {
                    self.hear(done.key, done.version, &done.covers);
                }
                let again = matches!(outcome, Outcome::Unknown(_)) && self.random.random_bool(0.7)
                    || self.random.random_bool(0.05);
                self.history.attempts.push(Attempt {
                    operation,
                    span,
                    outcome,
                });
                if again && self.requests_left > 0 {
                    self.flights[client] = Some(Flight {
                        start: self.moment(),
                        asked: Asked::Write(operation),
                        answer: None,
                    });
                    return self.after(20, Step::Effect(client));
                }
            }
            (Asked::Read(key, consistency), Some(Answered::Read(seen))) => {
                if let Sight::Found { version, covers, .. } = &seen {
                    self.hear(key, *version, covers);
                }
                self.history.reads.push(Read {
                    key,
                    span,
                    consistency,
                    seen,
                });
            }
            _ => unreachable!("it is answered as it was asked"),
        }
        self.after(5, Step::Begin(client));
    }

    fn hear(&mut self, key: Uuid, version: i64, covers: &[Token]) {
        let known = match self.known.iter_mut().find(|known| known.0 == key) {
            Some(known) => known,
            None => {
                self.known.push((key, 0, Vec::new()));
                self.known.last_mut().unwrap()
            }
        };
        known.1 = known.1.max(version);
        for token in covers {
            match known.2.iter_mut().find(|held| held.shard == token.shard) {
                Some(held) => *held = (*held).max(*token),
                None => known.2.push(*token),
            }
        }
    }

    /// A range changes hands in one instant; the looks of before and after show all that the rules speak of.
    fn hand_over(&mut self) {
        let range = self.random.random_range(0..RANGES) as usize;
        let (source, generation, _) = self.owners[range];
        let target = (source + self.random.random_range(1..SHARDS)) % SHARDS;
        let lo = range as u64 * (1 << 32) / RANGES;
        let began = self.grow(target as usize).lsn;
        self.owners[range] = (target, generation + 1, began);
        let given = self.books.get_mut(&source).unwrap();
        let row = given.iter_mut().find(|row| row.lo == lo).unwrap();
        row.state = RangeState::Cleaned;
        row.peer = Some(target);
        let taken = BookRow {
            generation: generation + 1,
            state: RangeState::Owned,
            peer: None,
            ..row.clone()
        };
        let book = self.books.get_mut(&target).unwrap();
        book.retain(|row| row.lo != lo);
        book.push(taken);
        book.sort_by_key(|row| row.lo);
    }
}
