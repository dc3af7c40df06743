//! `rebalance pause`, `resume` and `abort`.

use std::io::Write;

use anyhow::{Context as _, Result, bail};
use crds::labels;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::arguments::Output;
use crate::place::Place;
use crate::status::rebalance;

/// Who writes, as the API server records it.
const FIELD_MANAGER: &str = "kubectl-ringwright";

/// Pauses, or goes on.
pub(crate) async fn pause(place: &Place, paused: bool, output: Output, out: &mut dyn Write) -> Result<()> {
    let was = place.cluster().await?.spec.rebalance.paused;
    if was != paused {
        write(place, &json!({"spec": {"rebalance": {"paused": paused}}})).await?;
    }
    let text = match (paused, was) {
        (true, false) => {
            "Paused: moves that copy are finished, no other is begun.\n\
             A pipeline that applies the OrderCluster undoes this unless it says spec.rebalance.paused: true as well."
        }
        (true, true) => "It is paused already.",
        (false, true) => "It goes on.",
        (false, false) => "It is not paused.",
    };
    say(json!({"paused": paused, "changed": was != paused}), text, output, out)
}

/// Asks for what has not changed hands to be undone. Paused in the same step: otherwise the operator, done with it, would
/// find that the specification asks for the very same moves.
pub(crate) async fn abort(place: &Place, output: Output, out: &mut dyn Write) -> Result<()> {
    let cluster = place.cluster().await?;
    let running = rebalance(&cluster).filter(|status| status.started_at.is_some() && status.finished_at.is_none());
    if running.is_none() {
        bail!(
            "no rebalance of {}/{} is under way, so there is nothing to abort",
            place.namespace,
            place.name
        );
    }
    let patch = json!({
        "metadata": {"annotations": {(labels::ABORT_REBALANCE): "true"}},
        "spec": {"rebalance": {"paused": true}},
    });
    write(place, &patch).await?;
    let text = "Aborting: what has not changed hands stays where it is; what has, stays where it went. Watch it with\n\
                `kubectl ringwright rebalance status -w`. The rebalance is paused then: take back what asked for it (such as\n\
                spec.shards) and resume, which moves the rest back; or resume as it is, which begins it anew.";
    say(json!({"aborting": true}), text, output, out)
}

async fn write(place: &Place, patch: &Value) -> Result<()> {
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let written = place.clusters().patch(&place.name, &params, &Patch::Merge(patch)).await;
    written
        .map(drop)
        .with_context(|| format!("change OrderCluster {}/{}", place.namespace, place.name))
}

fn say(json: Value, text: &str, output: Output, out: &mut dyn Write) -> Result<()> {
    match output {
        Output::Json => writeln!(out, "{json}")?,
        Output::Text => writeln!(out, "{text}")?,
    }
    Ok(())
}
