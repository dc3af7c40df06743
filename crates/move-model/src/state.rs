//! The state of two shards, the stream between them, and everybody who works on them.

use std::fmt;

use crate::clients::Client;
use crate::operator::Operator;

/// One of the two shards. The first owns the range to begin with.
pub(crate) type Shard = usize;

/// The longest stretch of a stream that has not been applied.
const LONGEST_LOG: usize = 8;
/// The most moves of a search.
const MOST_MOVES: usize = 4;

/// What a shard's book says of the range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hold {
    /// No row: it never had it.
    #[default]
    Never,
    /// Written and read here.
    Owned,
    /// Read here.
    Frozen,
    /// Given away, or not imported after all; rows may be left.
    Moved,
    /// The same, and no row is left.
    Cleaned,
    /// Being copied to here.
    Importing,
}

/// One state of a shard's database: what a commit changes and a failover may lose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Book {
    /// The state of the range.
    pub hold: Hold,
    /// The move it takes part in, or took part in last; 0 is none.
    pub move_id: u8,
    /// How often it changed hands.
    pub generation: u8,
    /// How often it was frozen.
    pub attempt: u8,
    /// The attempt that was verified; 0 is none.
    pub verified: u8,
    /// The rows, as a set of keys.
    pub rows: u8,
    /// Whether the initial copy is complete.
    pub copied: bool,
    /// The attempt of the newest marker that was applied.
    pub marker: u8,
    /// How much of the stream has been applied.
    pub applied: u8,
}

impl Book {
    /// Whether this shard is the range's owner.
    pub fn is_here(&self) -> bool {
        matches!(self.hold, Hold::Owned | Hold::Frozen)
    }

    /// Whether it gave the range away by this move, or left its import.
    pub fn is_given(&self, move_id: u8) -> bool {
        matches!(self.hold, Hold::Moved | Hold::Cleaned) && self.move_id == move_id
    }

    /// Whether it imports the range by this move.
    pub fn imports(&self, move_id: u8) -> bool {
        self.hold == Hold::Importing && self.move_id == move_id
    }

    pub(crate) fn thaw(&mut self) -> bool {
        let frozen = self.hold == Hold::Frozen;
        if frozen {
            self.hold = Hold::Owned;
        }
        frozen
    }
}

/// A shard: its master, and the standby that is promoted if the master dies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// What the master shows: also commits that nobody was told of.
    pub master: Book,
    /// What has been flushed at the standby.
    pub standby: Book,
    /// How often it failed over: the term. Sessions of an earlier one are gone.
    pub failovers: u8,
}

impl Node {
    pub(crate) fn flush(&mut self) {
        self.standby = self.master;
    }

    /// Whether all that the master shows would survive it.
    pub fn is_durable(&self) -> bool {
        self.master == self.standby
    }
}

/// A change in the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Item {
    /// Behind the end.
    #[default]
    Nothing,
    /// A row was inserted.
    Insert(u8),
    /// A row was deleted.
    Delete(u8),
    /// A freeze, with its attempt.
    Marker(u8),
    /// The deletion of all rows by a cleanup.
    Wipe,
}

/// The replication of a move: publication, slot and subscription as one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stream {
    /// The move; 0 while there is none.
    pub move_id: u8,
    /// The source's term when the slot was made.
    pub term: u8,
    /// Whether the slot is there. It is no failover slot: a failover of the source takes it away.
    pub has_slot: bool,
    /// Whether what has been sent still arrives. Without the slot, only until the connection breaks.
    pub delivers: bool,
    /// What has been sent.
    log: [Item; LONGEST_LOG],
}

impl Stream {
    fn len(&self) -> u8 {
        self.log.iter().take_while(|item| **item != Item::Nothing).count() as u8
    }

    /// Whether the copy can be trusted to be complete in the end.
    pub fn is_sound(&self, source_term: u8, old_term_is_void: bool) -> bool {
        self.has_slot && self.delivers && (self.term == source_term || !old_term_is_void)
    }
}

/// All of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct State {
    /// The shards.
    pub nodes: [Node; 2],
    /// The stream of the move.
    pub stream: Stream,
    /// How many moves have been begun; the last of them may be under way.
    pub moves: u8,
    /// Whose keys each move takes.
    sources: [u8; MOST_MOVES],
    /// Whether the range is a row of its own yet.
    pub is_split: bool,
    pub(crate) operators: [Operator; 2],
    pub(crate) clients: [Client; 2],
}

/// Who did what; for the story of a violation.
#[derive(Clone, Copy, Debug)]
pub struct Action {
    who: &'static str,
    what: &'static str,
}

impl Action {
    pub(crate) fn on(shard: Shard, what: &'static str) -> Self {
        let who = ["shard 0", "shard 1"][shard];
        Self { who, what }
    }

    pub(crate) fn of_operator(what: &'static str) -> Self {
        Self {
            who: "an operator",
            what,
        }
    }

    pub(crate) fn of_client(who: usize, what: &'static str) -> Self {
        let who = ["the first client", "the second client"][who];
        Self { who, what }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.who, self.what)
    }
}

impl Default for State {
    /// The first shard owns the range, which holds nothing; no move has been begun.
    fn default() -> Self {
        let owner = Book {
            hold: Hold::Owned,
            generation: 1,
            ..Book::default()
        };
        let node = Node {
            master: owner,
            standby: owner,
            failovers: 0,
        };
        Self {
            nodes: [node, Node::default()],
            stream: Stream::default(),
            moves: 0,
            sources: [0; MOST_MOVES],
            is_split: false,
            operators: [Operator::default(); 2],
            clients: [Client::default(); 2],
        }
    }
}

impl State {
    /// Source and target of a move.
    pub(crate) fn ends(&self, move_id: u8) -> (Shard, Shard) {
        let source = usize::from(self.sources[usize::from(move_id) % MOST_MOVES]);
        (source, 1 - source)
    }

    /// The target of the stream.
    pub(crate) fn target(&self) -> Shard {
        self.ends(self.stream.move_id).1
    }

    /// Writes a new move down.
    pub(crate) fn begin(&mut self, source: Shard) -> u8 {
        self.moves += 1;
        self.sources[usize::from(self.moves)] = source as u8;
        self.moves
    }

    /// Writes into the log of a shard, from where the stream carries it on.
    pub(crate) fn log(&mut self, shard: Shard, item: Item) {
        if self.stream.has_slot && self.ends(self.stream.move_id).0 == shard {
            let end = usize::from(self.stream.len());
            self.stream.log[end] = item;
        }
    }

    /// Whether one more change fits into the model's log.
    pub(crate) fn log_has_room(&self) -> bool {
        usize::from(self.stream.len()) < LONGEST_LOG
    }

    /// The standby becomes the master, with what it has.
    pub(crate) fn fail_over(&mut self, shard: Shard, subscription_commits_synchronously: bool) {
        let lost = self.nodes[shard].master;
        let node = &mut self.nodes[shard];
        node.master = node.standby;
        node.failovers += 1;
        if self.stream.move_id == 0 {
            return;
        }
        let (source, target) = self.ends(self.stream.move_id);
        if source == shard {
            self.stream.has_slot = false;
        }
        if target == shard {
            // The worker starts anew: from the slot, or not at all.
            self.stream.delivers &= self.stream.has_slot;
            let master = &mut self.nodes[shard].master;
            let same_copy = master.copied && lost.copied && master.move_id == lost.move_id;
            if same_copy && !subscription_commits_synchronously {
                // What was confirmed to the source is not sent again.
                master.applied = lost.applied;
            }
        }
    }

    /// The stream's next move: the initial copy, or the oldest change that has not been applied.
    pub(crate) fn copy_or_apply(&mut self, apply_guard: bool) -> bool {
        let stream = self.stream;
        if stream.move_id == 0 || !stream.delivers {
            return false;
        }
        let (source, target) = self.ends(stream.move_id);
        let rows = self.nodes[source].master.rows;
        let book = &mut self.nodes[target].master;
        if !book.copied || book.move_id != stream.move_id {
            let can_copy = stream.has_slot && book.imports(stream.move_id);
            if can_copy {
                book.rows |= rows;
                book.copied = true;
                book.applied = stream.len();
            }
            return can_copy;
        }
        if book.applied >= stream.len() {
            return false;
        }
        let item = stream.log[usize::from(book.applied)];
        if !matches!(item, Item::Marker(_)) && apply_guard && book.hold != Hold::Importing {
            // The error stops the subscription.
            self.stream.delivers = false;
            return true;
        }
        match item {
            Item::Insert(key) => book.rows |= 1 << key,
            Item::Delete(key) => book.rows &= !(1 << key),
            Item::Marker(attempt) => book.marker = attempt,
            Item::Wipe => book.rows = 0,
            Item::Nothing => {}
        }
        book.applied += 1;
        true
    }

    /// Only without the rule that this makes the copy void: the slot is found on the new master, and what the old one had
    /// not sent is missing.
    pub(crate) fn reconnect(&mut self) -> bool {
        let stream = &self.stream;
        if stream.move_id == 0 || stream.has_slot {
            return false;
        }
        let (_, target) = self.ends(stream.move_id);
        self.stream.log = [Item::Nothing; LONGEST_LOG];
        self.stream.has_slot = true;
        self.stream.delivers = true;
        let node = &mut self.nodes[target];
        node.master.applied = 0;
        node.standby.applied = 0;
        true
    }

    pub(crate) fn nobody_writes(&self) -> bool {
        self.clients.iter().all(|client| !client.holds_lock())
    }

    /// One form for states that differ only in what makes no difference: the order of the operators, and what everybody
    /// has applied.
    pub(crate) fn normalise(&mut self) {
        self.operators.sort_unstable_by(|one, other| other.cmp(one));
        let (_, target) = self.ends(self.stream.move_id);
        let (move_id, node) = (self.stream.move_id, &mut self.nodes[target]);
        if move_id == 0 {
            return;
        }
        let mut copies = [&mut node.master, &mut node.standby].map(|book| {
            let follows = book.copied && book.move_id == move_id;
            if !follows {
                book.applied = 0;
            }
            (follows, book)
        });
        let followed = copies
            .iter()
            .filter(|(follows, _)| *follows)
            .map(|(_, book)| book.applied);
        let Some(done) = followed.min() else { return };
        for (_, book) in copies.iter_mut().filter(|(follows, _)| *follows) {
            book.applied -= done;
        }
        self.stream.log.rotate_left(usize::from(done));
        let end = LONGEST_LOG - usize::from(done);
        self.stream.log[end..].fill(Item::Nothing);
    }

    /// Whether somebody can write to the range.
    pub fn is_writable(&self) -> bool {
        self.nodes.iter().any(|node| node.master.hold == Hold::Owned)
    }

    /// Whether every move has come to its end, and left nothing.
    pub fn is_settled(&self) -> bool {
        let ended = |node: &Node| matches!(node.master.hold, Hold::Owned | Hold::Never | Hold::Cleaned);
        self.is_writable() && self.nodes.iter().all(ended) && self.stream.move_id == 0
    }

    /// What must never be so, if it is so.
    pub fn violation(&self) -> Option<&'static str> {
        let [one, other] = &self.nodes;
        let owners = [self.owns(0), self.owns(1)];
        match owners {
            [true, true] => return Some("two shards own the range"),
            [false, false] => return Some("nobody owns the range"),
            _ => {}
        }
        for (here, there) in [(one, other), (other, one)] {
            let here_book = &here.master;
            let activated = here_book.hold == Hold::Owned && self.came_by_its_move(here_book, here);
            let given = there.master.is_given(here_book.move_id) && there.master.generation + 1 == here_book.generation;
            // A later move may have begun to bring it back.
            if activated && !given && there.master.move_id <= here_book.move_id {
                return Some("a target owns what its source has not given away");
            }
            if here_book.is_here()
                && !self
                    .clients
                    .iter()
                    .enumerate()
                    .all(|(who, one)| one.is_told_the_truth(who, here_book.rows))
            {
                return Some("an acknowledged write is lost");
            }
            if here_book.hold == Hold::Cleaned && here_book.rows != 0 {
                return Some("rows are left where nobody looks for them");
            }
        }
        None
    }

    /// Whether this is the target of the move its row names: then it was activated by it.
    fn came_by_its_move(&self, book: &Book, node: &Node) -> bool {
        let (_, target) = self.ends(book.move_id);
        book.move_id > 0 && std::ptr::eq(node, &self.nodes[target])
    }

    /// By the rule of `moves::truth`: `owned`, `frozen`, or given to it and not yet taken.
    fn owns(&self, shard: Shard) -> bool {
        let (book, other) = (&self.nodes[shard].master, &self.nodes[1 - shard].master);
        book.is_here() || (book.hold == Hold::Importing && other.is_given(book.move_id))
    }
}
