//! What a person would look at first when a cluster does not become what it should.

use crds::{OrderCluster, OrderShard};
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt as _;
use kube::api::{ListParams, LogParams};

use crate::kubernetes::{Kubernetes, is_ready};

/// Annotation in which Patroni says what its member is.
const PATRONI: &str = "status";
/// Characters of it that are worth a place in one line.
const PATRONI_SHOWN: usize = 160;

impl Kubernetes {
    /// One line: where clusters, shards and pods of a namespace stand.
    async fn standing(&self, namespace: &str) -> String {
        let mut parts = Vec::new();
        let all = ListParams::default();
        if let Ok(clusters) = self.objects::<OrderCluster>(namespace).list(&all).await {
            let conditions = |c: &OrderCluster| c.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
            parts.extend(clusters.iter().map(|c| of_resource(&c.name_any(), &conditions(c))));
        }
        if let Ok(shards) = self.objects::<OrderShard>(namespace).list(&all).await {
            let conditions = |s: &OrderShard| s.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
            parts.extend(shards.iter().map(|s| of_resource(&s.name_any(), &conditions(s))));
        }
        if let Ok(pods) = self.pods(namespace, "").await {
            parts.extend(pods.iter().map(of_pod));
        }
        parts.join("; ")
    }

    /// Prints resources, events and what the pods that are not ready wrote last. Returns one line for an error: where
    /// clusters, shards and pods stand.
    pub async fn explain(&self, namespace: &str) -> String {
        let standing = self.standing(namespace).await;
        eprintln!("---- {namespace} ----\n{standing}");
        if let Ok(text) =
            self.cluster
                .kubectl(["get", "ordercluster,ordershard,pods,pvc", "-n", namespace, "-o", "wide"])
        {
            eprintln!("{text}");
        }
        if let Ok(events) = self.objects::<Event>(namespace).list(&ListParams::default()).await {
            for event in events.items.iter().rev().take(40) {
                eprintln!(
                    "{:?} {} {}",
                    event.involved_object.name,
                    event.reason.as_deref().unwrap_or_default(),
                    event.message.as_deref().unwrap_or_default()
                );
            }
        }
        let Ok(pods) = self.pods(namespace, "").await else {
            return standing;
        };
        for pod in pods.iter().filter(|pod| !is_ready(pod)) {
            let tail = LogParams {
                tail_lines: Some(20),
                ..LogParams::default()
            };
            if let Ok(log) = self.objects::<Pod>(namespace).logs(&pod.name_any(), &tail).await {
                eprintln!("---- log of {} ----\n{log}", pod.name_any());
            }
        }
        standing
    }
}

fn of_resource(name: &str, conditions: &[Condition]) -> String {
    let told: Vec<String> = conditions
        .iter()
        .filter(|c| c.status == "True" || c.type_ == "Ready")
        .map(|c| format!("{}={} {}: {}", c.type_, c.status, c.reason, c.message))
        .collect();
    format!("{name} [{}]", told.join(", "))
}

fn of_pod(pod: &Pod) -> String {
    let since = |time: Option<&Time>| time.map(|t| t.0.to_string()).unwrap_or_default();
    let patroni = pod.annotations().get(PATRONI).map(String::as_str).unwrap_or_default();
    let mut told = vec![format!("made {}", since(pod.metadata.creation_timestamp.as_ref()))];
    if !is_ready(pod) {
        told.push("not ready".to_owned());
    }
    if pod.metadata.deletion_timestamp.is_some() {
        told.push(format!("going {}", since(pod.metadata.deletion_timestamp.as_ref())));
    }
    told.push(patroni.chars().take(PATRONI_SHOWN).collect());
    format!("pod {} [{}]", pod.name_any(), told.join(", "))
}
