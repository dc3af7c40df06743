//! What a mover says on the cluster's resource, and counts.

use std::{sync::Arc, time::Duration};

use crds::RebalanceStatus;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::EventType;
use moves::{MoveId, Summary};
use ring::Ordinal;
use tracing::info;

use super::hands::Batch;
use crate::{context::Context, metrics};

/// Tells of one cluster's moves.
pub(crate) struct Teller {
    context: Arc<Context>,
    reference: ObjectReference,
    labels: metrics::Cluster,
}

impl Teller {
    pub(crate) fn new(context: Arc<Context>, namespace: &str, cluster: &str, reference: ObjectReference) -> Self {
        let labels = metrics::Cluster::new(namespace, cluster);
        // The first step of a counter that is born at one is not seen by those who look for growth.
        let counters = &context.metrics.rebalance;
        for counter in [&counters.moves_aborted, &counters.freezes_expired, &counters.rows_moved] {
            drop(counter.get_or_create(&labels));
        }
        Self {
            context,
            reference,
            labels,
        }
    }

    async fn tell(&self, reason: &str, note: String) {
        info!(cluster = self.reference.name, reason, note);
        self.context
            .event(&self.reference, EventType::Normal, reason, note)
            .await;
    }

    async fn warn(&self, reason: &str, note: String) {
        tracing::warn!(cluster = self.reference.name, reason, note);
        self.context
            .event(&self.reference, EventType::Warning, reason, note)
            .await;
    }

    pub(crate) async fn started(&self, summary: &Summary, rows: u64) {
        let note = format!("{}; about {rows} rows", what_moves(summary));
        self.tell("RebalanceStarted", note).await;
    }

    pub(crate) async fn replanned(&self, summary: &Summary) {
        self.tell("RebalanceReplanned", what_moves(summary)).await;
    }

    pub(crate) async fn finished(&self, account: Option<&RebalanceStatus>) {
        let Some(account) = account else { return };
        let note = format!(
            "{} ranges with {} rows changed hands; writes to a batch paused for {} ms in the median, {} ms at most",
            account.ranges_done,
            account.rows_done,
            account.median_pause_milliseconds,
            account.longest_pause_milliseconds
        );
        self.tell("RebalanceFinished", note).await;
    }

    pub(crate) async fn paused(&self) {
        let note = "No move is begun while spec.rebalance.paused is true; those that were under way are finished";
        self.tell("RebalancePaused", note.to_owned()).await;
    }

    pub(crate) async fn aborted(&self) {
        let note = "The rebalance was aborted as asked; no other is begun until the specification changes";
        self.warn("RebalanceAborted", note.to_owned()).await;
    }

    pub(crate) async fn move_started(&self, id: MoveId, source: Ordinal, target: Ordinal, ranges: usize) {
        let note = format!("Shard {source} gives {ranges} ranges to shard {target}: copying (move {id})");
        self.tell("MoveStarted", note).await;
    }

    pub(crate) async fn move_finished(&self, id: MoveId, source: Ordinal, target: Ordinal) {
        let note = format!("Shard {target} has all it was to get from shard {source} (move {id})");
        self.tell("MoveFinished", note).await;
    }

    /// A move was undone; `asked_for`: because somebody asked for it, or for something else meanwhile.
    pub(crate) async fn move_aborted(&self, id: MoveId, why: &str, undone: u64, rolled_forward: u64, asked_for: bool) {
        if !asked_for {
            let metrics = &self.context.metrics.rebalance;
            metrics.moves_aborted.get_or_create(&self.labels).inc();
        }
        let note = format!(
            "Move {id}: {why}; {undone} ranges stay where they are, {rolled_forward} had passed their commit point"
        );
        self.warn("MoveAborted", note).await;
    }

    /// A batch changed hands.
    pub(crate) fn batch(&self, batch: &Batch) {
        let metrics = &self.context.metrics.rebalance;
        metrics.rows_moved.get_or_create(&self.labels).inc_by(batch.rows);
        metrics
            .pause_seconds
            .get_or_create(&self.labels)
            .observe(batch.pause.as_secs_f64());
    }

    /// So many more ranges have changed hands.
    pub(crate) fn ranges_moved(&self, ranges: i64) {
        if let Ok(ranges @ 1..) = u64::try_from(ranges) {
            let metrics = &self.context.metrics.rebalance;
            metrics.ranges_moved.get_or_create(&self.labels).inc_by(ranges);
        }
    }

    /// A freeze ran into its deadline, and held writers up for so long.
    pub(crate) fn expired(&self, pause: Duration) {
        let metrics = &self.context.metrics.rebalance;
        metrics.freezes_expired.get_or_create(&self.labels).inc();
        metrics
            .pause_seconds
            .get_or_create(&self.labels)
            .observe(pause.as_secs_f64());
    }

    /// So many copies are under way.
    pub(crate) fn copies(&self, copies: usize) {
        let metrics = &self.context.metrics.rebalance;
        let copies = i64::try_from(copies).unwrap_or(i64::MAX);
        metrics.copies.get_or_create(&self.labels).set(copies);
    }
}

fn what_moves(summary: &Summary) -> String {
    format!(
        "{:.2} % of the keys move (ideal {:.2} %), in {} moves of {} ranges",
        100.0 * summary.moved,
        100.0 * summary.ideal,
        summary.moves,
        summary.ranges
    )
}
