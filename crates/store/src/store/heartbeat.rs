//! Keeps replicas able to answer while nobody writes.
//!
//! A replica answers only while it heard from its master within the last second, and a master that has nothing to send
//! is silent for longer (half of `wal_sender_timeout`). So while a shard is read and its replicas hear nothing, this
//! process writes its row of `ringwright.heartbeat`, which the replicas hear.
//!
//! Hearing is not replaying: a replica whose replay is paused hears each heartbeat and stays behind its position, by
//! which it is told apart ([`super::positions`]). One that replays passes it at once.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use sqlx::PgConnection;
use uuid::Uuid;

use super::Inner;
use super::fault::Refusal;
use super::member::ShardView;
use super::write::{Place, Work};

/// How often shards are looked at.
const PAUSE: Duration = Duration::from_millis(200);
/// A replica that heard nothing for so long is about to become too old.
const SILENCE: Duration = Duration::from_millis(500);

const BEAT: &str = "SELECT ringwright.beat($1)";

struct Beat {
    process: Uuid,
}

impl Work for Beat {
    type Output = ();
    const OPERATION: &'static str = "write a heartbeat";

    async fn run(&self, conn: &mut PgConnection) -> Result<(), Refusal> {
        sqlx::query(BEAT).bind(self.process).execute(conn).await?;
        Ok(())
    }
}

/// Runs until the store is dropped.
pub(super) async fn keep_replicas_fresh(store: Weak<Inner>) {
    let process = Uuid::from_u128(rand::random());
    loop {
        tokio::time::sleep(PAUSE).await;
        let Some(inner) = store.upgrade() else { return };
        for shard in inner.shards.all() {
            let silent = is_silent(&shard.view.borrow(), Instant::now());
            if !(shard.take_read_mark() && silent && shard.begin_beat()) {
                continue;
            }
            let inner = Arc::clone(&inner);
            tokio::spawn(async move {
                if let Err(error) = inner.write(Place::Shard(shard.ordinal), Beat { process }).await {
                    tracing::debug!(shard = %shard.ordinal, error = telemetry::chain(&error), "no heartbeat was written");
                }
                shard.end_beat();
            });
        }
    }
}

/// Whether a replica that streams from a master within reach heard nothing for too long.
fn is_silent(view: &ShardView, now: Instant) -> bool {
    view.master().is_some()
        && view
            .members
            .iter()
            .filter_map(|member| member.sample()?.last_message(now))
            .any(|age| age > SILENCE)
}
