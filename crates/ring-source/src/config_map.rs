//! The ring's ConfigMap by the API server.

use futures::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use ring::EncodedRing;
use tokio::sync::mpsc::Sender;

use crate::keeper::{Offer, Origin};
use crate::{DIGEST, RING_JSON, TOKENS};

/// Watches the one object by its name, so that a Role with `resourceNames` allows it; ends when nobody listens.
pub(crate) async fn follow(client: Client, namespace: String, name: String, offers: Sender<Offer>) {
    let api: Api<ConfigMap> = Api::namespaced(client, &namespace);
    let changes = watcher::watch_object(api, &name).default_backoff();
    pin_mut!(changes);
    while let Some(change) = changes.next().await {
        let content = match change {
            Ok(Some(config_map)) => content(config_map),
            Ok(None) => Err(format!("there is no ConfigMap {namespace}/{name}")),
            Err(error) => {
                // The API server is away, or refuses: says nothing about the ring, which stays as it is.
                tracing::warn!(
                    error = telemetry::chain(&error),
                    namespace,
                    name,
                    "the ring's ConfigMap cannot be watched, trying again"
                );
                continue;
            }
        };
        if offers
            .send(Offer {
                origin: Origin::ConfigMap,
                content,
            })
            .await
            .is_err()
        {
            return;
        }
    }
}

fn content(config_map: ConfigMap) -> Result<EncodedRing, String> {
    let (mut text, mut binary) = (
        config_map.data.unwrap_or_default(),
        config_map.binary_data.unwrap_or_default(),
    );
    let lacks = |entry: &'static str| move || format!("it has no entry {entry}");
    Ok(EncodedRing {
        ring_json: text.remove(RING_JSON).ok_or_else(lacks(RING_JSON))?,
        digest: text.remove(DIGEST).ok_or_else(lacks(DIGEST))?,
        tokens: binary.remove(TOKENS).ok_or_else(lacks(TOKENS))?.0,
    })
}
