//! Installing the charts and a sample cluster, and waiting until they work.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use installation::charts::{self, DEFINITIONS_ARE_SERVED, RELEASE, WORKLOADS};
use serde_json::{Value, json};

use crate::api_key::ApiKey;
use crate::images::Images;
use crate::place::Place;
use crate::stage::Stage;
use crate::workspace::Workspace;

/// Where `up` installs everything.
pub(crate) const NAMESPACE: &str = "shop";
/// Label of a namespace that was not there before.
pub(crate) const MADE_BY_UP: &str = "ringwright.dev/made-by-up";
/// The order API's Service.
pub(crate) const ORDER_API: &str = "ringwright-order-api";
/// The development SMS gateway's Service.
pub(crate) const SMS_GATEWAY: &str = "ringwright-sms-gateway";
/// The sample cluster of `deploy/sample-cluster.yaml`.
pub(crate) const CLUSTER: &str = "ordercluster/shop";
/// Its ring.
const RING: &str = "shop-ring";
/// The broker's StatefulSet; all the other programs of the chart are Deployments.
const BROKER: &str = "ringwright-rabbitmq";

/// A platform that serves orders.
#[derive(Debug)]
pub(crate) struct Platform {
    pub(crate) place: Place,
    pub(crate) api_key: ApiKey,
    /// Whether the programs that need a ring are installed already.
    programs: bool,
}

/// Installs or upgrades the charts with the development mail server and SMS gateway.
pub(crate) fn install(stage: &Stage, workspace: &Workspace, place: Place) -> Result<Platform> {
    install_definitions(stage, workspace, &place)?;
    let found =
        stage.read(&mut place.kubectl(&["get", "namespace", NAMESPACE, "--ignore-not-found", "--output=name"]))?;
    if found.trim().is_empty() {
        let metadata = json!({"name": NAMESPACE, "labels": {MADE_BY_UP: "true"}});
        apply(
            stage,
            &place,
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}),
        )?;
    }
    let api_key = ApiKey::find_or_make(stage, &place)?;
    let get_ring = [
        "get",
        "configmap",
        RING,
        "--namespace",
        NAMESPACE,
        "--ignore-not-found",
        "--output=name",
    ];
    let programs = !stage.read(&mut place.kubectl(&get_ring))?.trim().is_empty();
    release(stage, workspace, &place, programs)?;
    Ok(Platform {
        place,
        api_key,
        programs,
    })
}

/// Installs or upgrades the resource definitions, and waits until they are served.
pub(crate) fn install_definitions(stage: &Stage, workspace: &Workspace, place: &Place) -> Result<()> {
    stage.run(place.helm(&[]).args(charts::install_definitions(&workspace.charts())))?;
    stage.run(&mut place.kubectl(&DEFINITIONS_ARE_SERVED))
}

/// Installs the platform's chart, with or without the programs that mount the ring. Pods that are made before the ring
/// would wait for it well: but the kubelet looks for a missing volume at ever longer intervals, of two minutes in the end.
fn release(stage: &Stage, workspace: &Workspace, place: &Place, programs: bool) -> Result<()> {
    let registry = format!("image.registry={}", place.image_registry());
    let mut settings = vec![registry.as_str()];
    if !programs {
        settings.extend(["orderApi.enabled=false", "notifier.enabled=false"]);
    }
    let arguments = charts::install_platform(&workspace.charts(), NAMESPACE, &settings);
    stage.run(place.helm(&[]).args(arguments))
}

/// Starts those programs anew that run an older image: while they are developed, the tag stays the same.
pub(crate) fn restart_outdated(stage: &Stage, place: &Place, images: &Images) -> Result<()> {
    let pods = "--output=jsonpath={range .items[*]}{.metadata.labels.app\\.kubernetes\\.io/name} {.status.containerStatuses[0].imageID}{'\\n'}{end}";
    let release = format!("--selector=app.kubernetes.io/instance={RELEASE}");
    let pods = stage.read(&mut place.kubectl(&["get", "pods", "--namespace", NAMESPACE, &release, pods]))?;
    let outdated = |(component, running): &(&str, &str)| {
        let built = component.strip_prefix("ringwright-").and_then(|name| images.id(name));
        // Only ids of the same kind can be compared: a registry gives a pod the digest of the manifest.
        built.is_some_and(|built| running.starts_with("sha256:") && *running != built)
    };
    let pods = pods.lines().filter_map(|line| line.split_once(' '));
    let outdated: BTreeSet<_> = pods.filter(outdated).map(|(component, _)| component).collect();
    for component in outdated {
        let kind = if component == BROKER {
            "statefulset"
        } else {
            "deployment"
        };
        stage.note(format!("{component}: a newer image"));
        let workload = format!("{kind}/{component}");
        stage.run(&mut place.kubectl(&["rollout", "restart", "--namespace", NAMESPACE, &workload]))?;
    }
    Ok(())
}

/// Applies the sample cluster and waits until it and the programs are ready.
pub(crate) fn make_sample_cluster(stage: &Stage, workspace: &Workspace, platform: &Platform) -> Result<()> {
    let place = &platform.place;
    let sample = workspace.root().join("deploy/sample-cluster.yaml");
    // The admission policy and the resources may be a moment away from being served.
    retry(Duration::from_secs(60), || {
        stage.run(
            place
                .kubectl(&["apply", "--namespace", NAMESPACE, "--filename"])
                .arg(&sample),
        )
    })?;
    wait_until_ready(stage, place)?;
    if !platform.programs {
        release(stage, workspace, place, true)?;
    }
    for workload in WORKLOADS {
        stage.doing(format!("waiting for {workload}"));
        stage.run(&mut place.kubectl(&[
            "rollout",
            "status",
            "--namespace",
            NAMESPACE,
            "--timeout=300s",
            workload,
        ]))?;
    }
    Ok(())
}

/// Follows the sample cluster to Ready, telling each change of its status.
fn wait_until_ready(stage: &Stage, place: &Place) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(420);
    let mut told = String::new();
    loop {
        let text = stage.read(&mut place.kubectl(&["get", CLUSTER, "--namespace", NAMESPACE, "--output", "json"]))?;
        let cluster: Value = serde_json::from_str(&text).context("reading the sample cluster's status")?;
        let state = state(&cluster);
        if state.line != told {
            stage.note(&state.line);
            told = state.line;
        }
        if state.ready {
            return Ok(());
        }
        if Instant::now() > deadline {
            explain(stage, place);
            bail!("the sample cluster did not become Ready in 7 minutes; its last word: {told}");
        }
        thread::sleep(Duration::from_secs(1));
    }
}

struct State {
    ready: bool,
    line: String,
}

/// Ready only for the generation that was asked for: an older status says nothing about the present spec.
fn state(cluster: &Value) -> State {
    let status = &cluster["status"];
    let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let current = status["observedGeneration"] == cluster["metadata"]["generation"];
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready");
    let word = |name: &str| {
        ready
            .and_then(|ready| ready[name].as_str())
            .unwrap_or_default()
            .to_owned()
    };
    State {
        ready: current && word("status") == "True",
        line: format!(
            "{} of {} shards ready; {} {}",
            status["readyShards"].as_u64().unwrap_or(0),
            cluster["spec"]["shards"],
            word("reason"),
            word("message")
        ),
    }
}

/// What a person would look at first, into the log.
fn explain(stage: &Stage, place: &Place) {
    for arguments in [
        &[
            "get",
            "all,ordercluster,ordershard,pvc",
            "--namespace",
            NAMESPACE,
            "--output",
            "wide",
        ][..],
        &["get", "events", "--namespace", NAMESPACE, "--sort-by=.lastTimestamp"],
        &[
            "logs",
            "deployment/ringwright-operator",
            "--namespace",
            NAMESPACE,
            "--tail=60",
        ],
    ] {
        let _ = stage.run(&mut place.kubectl(arguments));
    }
}

/// Server-side apply of one object.
pub(crate) fn apply(stage: &Stage, place: &Place, object: &Value) -> Result<()> {
    let what = format!("{} {}", object["kind"], object["metadata"]["name"]);
    stage.doing(format!("applying {what}"));
    let arguments = [
        "apply",
        "--server-side",
        "--field-manager=ringwright-xtask",
        "--filename=-",
    ];
    pipe(&mut place.kubectl(&arguments), &object.to_string()).with_context(|| format!("applying {what}"))
}

/// Runs a command with this standard input; its output is shown only when it fails, for the input may be a secret.
fn pipe(command: &mut Command, input: &str) -> Result<()> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().context("starting kubectl")?;
    let mut stdin = child.stdin.take().context("kubectl has no standard input")?;
    stdin.write_all(input.as_bytes()).context("writing to kubectl")?;
    drop(stdin);
    let output = child.wait_with_output().context("waiting for kubectl")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Tries once a second until it works or the time is over.
pub(crate) fn retry<T>(patience: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > deadline => {
                return Err(error.context(format!("still failing after {} s", patience.as_secs())));
            }
            Err(_) => thread::sleep(Duration::from_secs(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ready_condition_of_an_older_generation_does_not_count() {
        let mut cluster = json!({
            "metadata": {"generation": 2},
            "spec": {"shards": 3},
            "status": {"observedGeneration": 1, "readyShards": 3, "conditions": [{"type": "Ready", "status": "True"}]},
        });
        assert!(!state(&cluster).ready);
        cluster["status"]["observedGeneration"] = json!(2);
        assert!(state(&cluster).ready);
        assert!(
            !state(&json!({"metadata": {"generation": 1}, "spec": {"shards": 1}})).ready,
            "no status yet"
        );
    }
}
