//! What every reconcile is given.

use std::time::Duration;

use k8s_openapi::{NamespaceResourceScope, api::core::v1::ObjectReference};
use kube::{
    Api, Client, Resource,
    runtime::{
        events::{Event, EventType, Recorder, Reporter},
        watcher,
    },
};
use tracing::warn;

use crate::{apply::FIELD_MANAGER, config::Config, metrics::Metrics, schema_gates::SchemaGates};

/// An API server that sends nothing for so long is gone: the connection is given up, and whoever waited for it tries again.
/// The server itself gives up a request after 60 s, and ends a watch before that (see [`watching`]).
pub(crate) const API_SILENCE: Duration = Duration::from_secs(90);
/// After so many seconds the server ends a watch, which is taken up where it was; a quiet one never looks like one whose
/// server is gone.
const WATCH_SECONDS: u32 = 60;

/// How a watch is asked for.
pub(crate) fn watching() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}

/// Clients, settings and counters shared by the controllers.
pub(crate) struct Context {
    /// A client that counts writes and refuses them once the Lease is lost (see [`crate::api_gate`]).
    pub(crate) client: Client,
    pub(crate) config: Config,
    pub(crate) metrics: Metrics,
    /// Keeps migrations and moves apart.
    pub(crate) schemas: SchemaGates,
    recorder: Recorder,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Context {
    pub(crate) fn new(client: Client, config: Config, metrics: Metrics) -> Self {
        let reporter = Reporter {
            controller: FIELD_MANAGER.to_owned(),
            instance: Some(config.identity.clone()),
        };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            config,
            metrics,
            schemas: SchemaGates::default(),
        }
    }

    /// Objects of one namespace.
    pub(crate) fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Objects wherever the operator watches.
    pub(crate) fn watched<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        match &self.config.watch_namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    /// Tells a step that went well, on the object it concerns.
    pub(crate) async fn tell<K>(&self, about: &K, reason: &str, note: impl Into<String>)
    where
        K: Resource<DynamicType = ()>,
    {
        self.event(&about.object_ref(&()), EventType::Normal, reason, note.into())
            .await;
    }

    /// Tells something a person should look at.
    pub(crate) async fn warn<K>(&self, about: &K, reason: &str, note: impl Into<String>)
    where
        K: Resource<DynamicType = ()>,
    {
        self.event(&about.object_ref(&()), EventType::Warning, reason, note.into())
            .await;
    }

    /// Writes an event. One that cannot be written never fails the step it tells of.
    pub(crate) async fn event(&self, about: &ObjectReference, type_: EventType, reason: &str, mut note: String) {
        // The API server refuses notes of more than 1 kB.
        note.truncate(note.floor_char_boundary(1000));
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note),
            action: reason.to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, about).await {
            warn!(
                reason,
                about = about.name.as_deref(),
                error = telemetry::chain(&error),
                "could not write an event"
            );
        }
    }
}
