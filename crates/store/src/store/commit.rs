//! Commits whose outcome is known.
//!
//! A cancelled wait for the standby answers success with a WARNING and shows the row: such a commit is not known to
//! survive a failover. sqlx 0.9 hands notices to nobody; it only writes them to the log, as events of the target
//! `sqlx::postgres::notice`, at the level of their severity and from inside the future that reads them. So each commit
//! is polled under a subscriber of our own that takes events of that target at WARN, and remembers them for the task
//! that commits. A test with a trigger that warns at commit time shows that this works with the sqlx in use.

use std::cell::RefCell;
use std::fmt::Debug;
use std::sync::LazyLock;

use sqlx::{AssertSqlSafe, PgConnection, Row};
use tracing::field::{Field, Visit};
use tracing::instrument::WithSubscriber;
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Event, Level, Metadata, Subscriber};
use uuid::Uuid;

use crate::token::{Lsn, Term};

const NOTICES: &str = "sqlx::postgres::notice";
/// Where the log stands, behind whatever the session has committed.
const POSITION: &str = "SELECT in_recovery, term, lsn, 0::bigint AS generation FROM ringwright.here()";

/// Where a commit stands in the log, and of which generation its range was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) term: Term,
    pub(crate) lsn: Lsn,
    /// Zero when no key was given.
    pub(crate) generation: i64,
}

/// Commits, and asks in the same round trip where the log stands behind it. Every error means: outcome unknown.
///
/// The caller must not drop this future: that would close a session in COMMIT.
pub(crate) async fn commit(conn: &mut PgConnection, key: Option<Uuid>) -> Result<Position, String> {
    // A uuid's text holds hexadecimal digits and hyphens only.
    let sql = match key {
        Some(key) => format!(
            "COMMIT; SELECT h.in_recovery, h.term, h.lsn, coalesce(r.generation, 0) AS generation \
             FROM ringwright.here() h, ringwright.range_of('{key}') r"
        ),
        None => format!("COMMIT; {POSITION}"),
    };
    let (answer, warning) = listening(sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(conn)).await;
    if let Some(warning) = warning {
        return Err(format!("the commit was answered with a warning: {warning}"));
    }
    let rows = answer.map_err(|error| format!("the commit was not answered: {error}"))?;
    read_position(&rows).map_err(|why| format!("after the commit: {why}"))
}

/// What was answered to [`POSITION`] or a statement like it, or why that says nothing.
pub(crate) fn read_position(rows: &[sqlx::postgres::PgRow]) -> Result<Position, String> {
    let row = rows.last().ok_or("the log's position was not answered")?;
    let broken = |error: sqlx::Error| error.to_string();
    let term: Option<i64> = row.try_get("term").map_err(broken)?;
    let lsn: Option<i64> = row.try_get("lsn").map_err(broken)?;
    if row.try_get("in_recovery").map_err(broken)? {
        return Err("the member is no master any more".to_owned());
    }
    let term = term
        .and_then(|term| u32::try_from(term).ok())
        .ok_or("the member has no term")?;
    let lsn = lsn.ok_or("the member has no position")?;
    Ok(Position {
        term: Term(term),
        lsn: Lsn(lsn.cast_unsigned()),
        generation: row.try_get("generation").map_err(broken)?,
    })
}

tokio::task_local! {
    static HEARD: RefCell<Option<String>>;
}

/// Two of them, of which the first is used: as long as a process has only one subscriber, `tracing` asks the current
/// one alone whether an event is wanted, and remembers the answer. A warning outside of any commit would then switch
/// these events off for good.
static LISTENERS: LazyLock<[Dispatch; 2]> = LazyLock::new(|| [Dispatch::new(Listener), Dispatch::new(Listener)]);

/// Runs a future and tells which warning the database sent meanwhile, if any.
pub(crate) async fn listening<F: Future>(exchange: F) -> (F::Output, Option<String>) {
    HEARD
        .scope(RefCell::new(None), async {
            let output = exchange.with_subscriber(LISTENERS[0].clone()).await;
            (output, HEARD.with(|heard| heard.borrow_mut().take()))
        })
        .await
}

/// Hears nothing but the database's warnings and errors.
struct Listener;

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == NOTICES && *metadata.level() <= Level::WARN
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::WARN)
    }

    fn event(&self, event: &Event<'_>) {
        if event.metadata().target() == NOTICES {
            let mut text = Message("a warning without text".to_owned());
            event.record(&mut text);
            let _ = HEARD.try_with(|heard| heard.replace(Some(text.0)));
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}
