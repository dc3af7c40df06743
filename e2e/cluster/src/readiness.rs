//! Waiting until the cluster does what it should.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::{Cluster, Error, NodeName, Result};

const POLL: Duration = Duration::from_millis(200);

/// Asks `there` until it says yes. `hint` tells where to look if it never does.
pub(crate) fn wait_until(
    what: &str,
    timeout: Duration,
    hint: impl FnOnce() -> String,
    mut there: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let started = Instant::now();
    loop {
        match there() {
            Ok(true) => return Ok(()),
            // An error may pass, too: a server that starts refuses connections.
            Ok(false) | Err(_) if started.elapsed() < timeout => std::thread::sleep(POLL),
            Ok(false) => {
                return Err(Error::Timeout {
                    what: what.into(),
                    seconds: timeout.as_secs(),
                    hint: hint(),
                });
            }
            Err(error) => {
                let hint = format!("{}; last error: {error}", hint());
                return Err(Error::Timeout {
                    what: what.into(),
                    seconds: timeout.as_secs(),
                    hint,
                });
            }
        }
    }
}

/// When each node last gave a sign of life, by its own account.
pub(crate) type SignsOfLife = BTreeMap<String, String>;

/// Nodes and leases, as `kubectl get --output json` lists them.
#[derive(Debug, Deserialize)]
struct List {
    items: Vec<Item>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "kind")]
enum Item {
    Node { metadata: Metadata, status: NodeStatus },
    Lease { metadata: Metadata, spec: LeaseSpec },
}

#[derive(Debug, Deserialize)]
struct Metadata {
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LeaseSpec {
    renew_time: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct NodeStatus {
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Debug, Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

/// Which nodes are Ready, and when each last gave a sign of life.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct NodeReport {
    pub(crate) ready: Vec<String>,
    pub(crate) signs: SignsOfLife,
}

impl NodeReport {
    pub(crate) fn fetch(cluster: &Cluster) -> Result<Self> {
        let args = [
            "get",
            "nodes,leases.coordination.k8s.io",
            "--namespace",
            "kube-node-lease",
            "--output",
            "json",
        ];
        Self::parse(&cluster.kubectl(args)?)
    }

    fn parse(json: &str) -> Result<Self> {
        let list: List =
            serde_json::from_str(json).map_err(|error| Error::Invalid(format!("kubectl's list of nodes: {error}")))?;
        let mut report = Self::default();
        for item in list.items {
            match item {
                Item::Node { metadata, status } => {
                    if status
                        .conditions
                        .iter()
                        .any(|condition| condition.kind == "Ready" && condition.status == "True")
                    {
                        report.ready.push(metadata.name);
                    }
                }
                Item::Lease { metadata, spec } => {
                    report.signs.extend(spec.renew_time.map(|time| (metadata.name, time)));
                }
            }
        }
        Ok(report)
    }

    /// Whether every node is Ready and gave a sign of life other than the one in `before`: what the API server says
    /// of a node that was started again is at first what it last heard of its former life.
    pub(crate) fn all_ready_since(&self, before: &SignsOfLife) -> bool {
        NodeName::all().map(|node| node.to_string()).all(|node| {
            let sign = self.signs.get(&node);
            self.ready.contains(&node) && sign.is_some() && sign != before.get(&node)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(third_ready: &str, third_sign: &str) -> String {
        let node = |name: &str, ready: &str| {
            format!(
                r#"{{"kind":"Node","metadata":{{"name":"{name}"}},"status":{{"conditions":[{{"type":"Ready","status":"{ready}"}}]}}}}"#
            )
        };
        let lease = |name: &str, time: &str| {
            format!(r#"{{"kind":"Lease","metadata":{{"name":"{name}"}},"spec":{{"renewTime":"{time}"}}}}"#)
        };
        let items = [
            node("node1", "True"),
            node("node2", "True"),
            node("node3", third_ready),
            lease("node1", "10"),
            lease("node2", "10"),
            lease("node3", third_sign),
        ];
        format!(r#"{{"kind":"List","items":[{}]}}"#, items.join(","))
    }

    #[test]
    fn three_nodes_with_a_sign_of_life_are_ready() {
        assert!(
            NodeReport::parse(&list("True", "10"))
                .unwrap()
                .all_ready_since(&SignsOfLife::new())
        );
    }

    #[test]
    fn one_node_that_is_not_ready_is_enough() {
        assert!(
            !NodeReport::parse(&list("Unknown", "10"))
                .unwrap()
                .all_ready_since(&SignsOfLife::new())
        );
    }

    #[test]
    fn a_sign_from_a_former_life_does_not_count() {
        let before = SignsOfLife::from([("node3".into(), "10".into())]);
        assert!(!NodeReport::parse(&list("True", "10")).unwrap().all_ready_since(&before));
        assert!(NodeReport::parse(&list("True", "14")).unwrap().all_ready_since(&before));
    }

    #[test]
    fn a_timeout_tells_the_last_error() {
        let error = wait_until(
            "the moon",
            Duration::ZERO,
            || "look up".into(),
            || Err(Error::Invalid("clouds".into())),
        )
        .unwrap_err();
        assert!(error.to_string().contains("the moon") && error.to_string().contains("clouds"));
    }
}
