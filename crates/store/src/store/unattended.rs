//! What programs do about a move whose operator is gone: end its freeze when that is over, and finish it when it is
//! behind its commit point. So a dead operator pauses a few thousand rows for a moment, and nothing waits for the next.

use std::time::{Duration, Instant};

use ring::Ordinal;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::Inner;
use super::fault::{Freeze, Refusal};
use super::member::member_name;
use super::monitor::Shard;
use super::pause::a_moment;
use super::write::{Place, Setback, Work};
use crate::admin::{RangeState, parse_state};
use crate::token::{Lsn, Term};

const THAW: &str = "SELECT ringwright.thaw($1, $2, $3, $4)";
const MOVE_OF: &str = "SELECT state, move_id, lo, hi, attempt, generation FROM ringwright.move_of($1)";
const CONFIRM: &str = "SELECT ringwright.confirm()";
const FLUSHED_BY: &str = "SELECT ringwright.flushed_by($1)";
const ACTIVATE: &str = "SELECT ringwright.activate($1, $2, $3, $4, $5)";

/// How long the source's other members may take to have what its master said.
const FLUSH_LIMIT: Duration = Duration::from_millis(500);

struct Thaw(Freeze);

impl Work for Thaw {
    type Output = bool;
    const OPERATION: &'static str = "end a freeze that is over";

    async fn run(&self, conn: &mut PgConnection) -> Result<bool, Refusal> {
        let freeze = self.0;
        let thawed = sqlx::query_scalar(THAW)
            .bind(freeze.range.lo.cast_signed())
            .bind(freeze.range.hi.cast_signed())
            .bind(freeze.move_id)
            .bind(freeze.attempt);
        Ok(thawed.fetch_one(conn).await?)
    }
}

/// A range as its source gave it away.
#[derive(Debug, Clone, Copy)]
struct GivenAway {
    move_id: Uuid,
    lo: i64,
    hi: i64,
    attempt: i64,
    generation: i64,
}

/// Reads what the source says of a key's range, and then commits in the same session: a state that was only read may be
/// one that a failover forgets.
struct ReadConfirmed {
    key: Uuid,
}

impl Work for ReadConfirmed {
    type Output = Option<GivenAway>;
    const OPERATION: &'static str = "read how a range was given away";

    async fn run(&self, conn: &mut PgConnection) -> Result<Option<GivenAway>, Refusal> {
        let row = sqlx::query(MOVE_OF).bind(self.key).fetch_one(&mut *conn).await?;
        let state: Option<&str> = row.try_get("state")?;
        let move_id: Option<Uuid> = row.try_get("move_id")?;
        let (Some(RangeState::Moved | RangeState::Cleaned), Some(move_id)) = (state.and_then(parse_state), move_id)
        else {
            return Ok(None);
        };
        let given_away = GivenAway {
            move_id,
            lo: row.try_get("lo")?,
            hi: row.try_get("hi")?,
            attempt: row.try_get("attempt")?,
            generation: row.try_get("generation")?,
        };
        sqlx::query(CONFIRM).execute(conn).await?;
        Ok(Some(given_away))
    }
}

struct FlushedBy(Lsn);

impl Work for FlushedBy {
    type Output = Vec<String>;
    const OPERATION: &'static str = "ask which members have flushed";

    async fn run(&self, conn: &mut PgConnection) -> Result<Vec<String>, Refusal> {
        let flushed = sqlx::query_scalar(FLUSHED_BY).bind(self.0.0.cast_signed());
        Ok(flushed.fetch_one(conn).await?)
    }
}

struct Activate(GivenAway);

impl Work for Activate {
    type Output = bool;
    const OPERATION: &'static str = "activate a range that was given away";

    async fn run(&self, conn: &mut PgConnection) -> Result<bool, Refusal> {
        let range = self.0;
        let activated = sqlx::query_scalar(ACTIVATE)
            .bind(range.move_id)
            .bind(range.lo)
            .bind(range.hi)
            .bind(range.attempt)
            .bind(range.generation);
        Ok(activated.fetch_one(conn).await?)
    }
}

impl Inner {
    /// Ends a freeze whose deadline has passed, and says whether it is over: somebody else may have done it.
    pub(super) async fn thaw(&self, shard: Ordinal, freeze: Freeze, deadline: Instant) -> bool {
        let thawed = self.try_once(Place::Shard(shard), shard, &Thaw(freeze), deadline).await;
        if thawed.as_ref().is_ok_and(|thawed| thawed.value) {
            tracing::info!(%shard, range = %freeze.range, move_id = %freeze.move_id, attempt = freeze.attempt,
                "a freeze was over and has been ended");
        }
        thawed.is_ok()
    }

    /// Finishes a move of a key's range that is behind its commit point and that nobody finishes, and says whether it has.
    pub(super) async fn roll_forward(&self, key: Uuid, source: Ordinal, target: Ordinal, deadline: Instant) -> bool {
        let finished = self.try_roll_forward(key, source, target, deadline).await;
        match finished {
            Ok(true) => tracing::info!(%source, %target, "a range that was given away has been activated"),
            Ok(false) => {}
            Err(_) => tracing::debug!(%source, %target, "a range that was given away could not be activated now"),
        }
        matches!(finished, Ok(true))
    }

    async fn try_roll_forward(
        &self,
        key: Uuid,
        source: Ordinal,
        target: Ordinal,
        deadline: Instant,
    ) -> Result<bool, Setback> {
        let read = self
            .try_once(Place::Shard(source), source, &ReadConfirmed { key }, deadline)
            .await?;
        let Some(given_away) = read.value else { return Ok(false) };
        // Where commits do not wait for standbys, that this one came back proves nothing about a promotion.
        if !self
            .is_everywhere(source, read.token.term, read.token.lsn, deadline)
            .await?
        {
            return Ok(false);
        }
        let activated = self
            .try_once(Place::Shard(target), target, &Activate(given_away), deadline)
            .await?;
        Ok(activated.value)
    }

    /// Whether every other member of the shard has flushed this position of this term.
    async fn is_everywhere(&self, ordinal: Ordinal, term: Term, lsn: Lsn, deadline: Instant) -> Result<bool, Setback> {
        let shard = self.shard(ordinal).map_err(Setback::Final)?;
        let Some(others) = self.others(&shard) else {
            return Ok(false);
        };
        if others.is_empty() {
            return Ok(true);
        }
        let began = Instant::now();
        let limit = deadline.min(began + FLUSH_LIMIT);
        loop {
            let flushed = self
                .try_once(Place::Shard(ordinal), ordinal, &FlushedBy(lsn), deadline)
                .await?;
            // Of another term the position is another one.
            if flushed.token.term != term {
                return Ok(false);
            }
            if others.iter().all(|name| flushed.value.contains(name)) {
                return Ok(true);
            }
            if Instant::now() >= limit {
                return Ok(false);
            }
            a_moment(began.elapsed(), limit).await;
        }
    }

    /// The names under which all members but the master stream; `None` without a master, or if the ring does not tell who
    /// the members are.
    fn others(&self, shard: &Shard) -> Option<Vec<String>> {
        let master = shard.view.borrow().master()?.0.host.clone();
        let ring = self.places.ring();
        let hosts = &ring.shard(shard.ordinal)?.hosts;
        let others = hosts.iter().filter(|host| **host != master);
        Some(others.map(|host| member_name(host).to_owned()).collect())
    }
}
