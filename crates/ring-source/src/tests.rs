use std::convert::Infallible;
use std::fs;
use std::path::Path;
use std::sync::Mutex;

use axum::body::Body;
use axum::http::{Request, Response};
use futures::channel::mpsc::{UnboundedSender, unbounded};
use futures::{StreamExt, stream};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use ring::{EncodedRing, Epoch, Ordinal, Shard, ShardState, Weight, encode, plan};
use serde_json::{Value, json};

use super::*;

const LIMIT: Duration = Duration::from_secs(10);

fn ring(epoch: u64, shards: u16) -> Ring {
    let weights: Vec<_> = (0..shards).map(|ordinal| (Ordinal(ordinal), Weight::ONE)).collect();
    let shard = |ordinal| Shard {
        name: format!("shop-{ordinal}"),
        ordinal: Ordinal(ordinal),
        state: ShardState::Active,
        hosts: vec![format!("shop-{ordinal}-0.shop-{ordinal}.ns.svc:5432")],
    };
    Ring::new(
        Epoch(epoch),
        (0..shards).map(shard).collect(),
        plan(None, &weights).unwrap(),
    )
    .unwrap()
}

/// Writes a ring as the kubelet does: a directory of its own, and the link `..data` pointed at it in one step.
fn mount(directory: &Path, version: &str, encoded: &EncodedRing) {
    let content = directory.join(version);
    fs::create_dir(&content).unwrap();
    fs::write(content.join(RING_JSON), &encoded.ring_json).unwrap();
    fs::write(content.join(DIGEST), &encoded.digest).unwrap();
    fs::write(content.join(TOKENS), &encoded.tokens).unwrap();
    std::os::unix::fs::symlink(version, directory.join("..data_tmp")).unwrap();
    fs::rename(directory.join("..data_tmp"), directory.join("..data")).unwrap();
}

fn from_directory(directory: &Path) -> RingSourceConfig {
    let directory = Some(directory.to_owned());
    RingSourceConfig {
        directory,
        config_map: None,
        client: None,
        first_ring_within: LIMIT,
    }
}

async fn next_epoch(rings: &mut watch::Receiver<Arc<Ring>>) -> u64 {
    timeout(LIMIT, rings.changed()).await.expect("a ring in time").unwrap();
    rings.borrow().epoch().get()
}

async fn refusal(source: &RingSource) -> String {
    let refused = async {
        loop {
            if let Some(refusal) = &source.status().refusal {
                return refusal.reason.clone();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LIMIT, refused).await.expect("a refusal in time")
}

#[tokio::test]
async fn a_mounted_ring_is_followed_through_its_changes() {
    let directory = tempfile::tempdir().unwrap();
    mount(directory.path(), "..1", &encode(&ring(1, 3)));
    let source = RingSource::start(from_directory(directory.path())).await.unwrap();
    assert_eq!(*source.current(), ring(1, 3));
    let mut rings = source.subscribe();
    mount(directory.path(), "..2", &encode(&ring(2, 4)));
    assert_eq!(next_epoch(&mut rings).await, 2);
    assert_eq!(
        *source.status(),
        Status {
            epoch: Some(Epoch(2)),
            refused: 0,
            refusal: None
        }
    );
}

#[tokio::test]
async fn a_damaged_ring_is_refused_until_it_is_repaired() {
    let directory = tempfile::tempdir().unwrap();
    mount(directory.path(), "..1", &encode(&ring(1, 3)));
    let source = RingSource::start(from_directory(directory.path())).await.unwrap();
    let mut rings = source.subscribe();
    let mut damaged = encode(&ring(2, 3));
    damaged.tokens[17] ^= 1;
    mount(directory.path(), "..2", &damaged);
    let reason = refusal(&source).await;
    assert!(reason.contains("it was damaged, or changed by hand"), "{reason}");
    assert_eq!(*source.current(), ring(1, 3), "the last good ring stays");
    mount(directory.path(), "..3", &encode(&ring(2, 3)));
    assert_eq!(next_epoch(&mut rings).await, 2);
    assert_eq!(
        *source.status(),
        Status {
            epoch: Some(Epoch(2)),
            refused: 1,
            refusal: None
        }
    );
}

#[tokio::test]
async fn an_older_ring_and_another_one_of_the_same_epoch_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    mount(directory.path(), "..1", &encode(&ring(5, 3)));
    let source = RingSource::start(from_directory(directory.path())).await.unwrap();
    mount(directory.path(), "..2", &encode(&ring(4, 4)));
    assert_eq!(
        refusal(&source).await,
        "it has epoch 4, but there was one of epoch 5 before"
    );
    mount(directory.path(), "..3", &encode(&ring(5, 4)));
    let until_the_second = async {
        while source.status().refused < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LIMIT, until_the_second).await.unwrap();
    assert_eq!(
        refusal(&source).await,
        "it has epoch 5 like the ring in use, but is another one"
    );
    assert_eq!(*source.current(), ring(5, 3));
}

#[tokio::test]
async fn an_ordinary_directory_serves_as_well() {
    let directory = tempfile::tempdir().unwrap();
    let encoded = encode(&ring(1, 2));
    fs::write(directory.path().join(RING_JSON), &encoded.ring_json).unwrap();
    fs::write(directory.path().join(TOKENS), &encoded.tokens).unwrap();
    let starting = tokio::spawn(RingSource::start(from_directory(directory.path())));
    // The digest comes last, and possibly after the first look.
    fs::write(directory.path().join(DIGEST), &encoded.digest).unwrap();
    assert_eq!(*starting.await.unwrap().unwrap().current(), ring(1, 2));
}

#[tokio::test]
async fn a_start_without_a_ring_says_what_was_found() {
    let directory = tempfile::tempdir().unwrap();
    let limit = Duration::from_secs(2);
    let config = RingSourceConfig {
        first_ring_within: limit,
        ..from_directory(directory.path())
    };
    let error = RingSource::start(config.clone()).await.err().unwrap().to_string();
    assert!(
        error.contains("no ring within 2s: the mounted directory: there is no file"),
        "{error}"
    );
    let nowhere = RingSourceConfig {
        directory: None,
        ..config
    };
    assert_eq!(
        RingSource::start(nowhere.clone()).await.err(),
        Some(RingSourceError::NoPlace)
    );
    let no_client = RingSourceConfig {
        config_map: Some(("ns".into(), "shop-ring".into())),
        ..nowhere
    };
    assert_eq!(
        RingSource::start(no_client).await.err(),
        Some(RingSourceError::NoClient("ns/shop-ring".into()))
    );
}

fn config_map(version: &str, encoded: &EncodedRing) -> ConfigMap {
    let text = [
        (RING_JSON.to_owned(), encoded.ring_json.clone()),
        (DIGEST.to_owned(), encoded.digest.clone()),
    ];
    ConfigMap {
        metadata: ObjectMeta {
            name: Some("shop-ring".into()),
            namespace: Some("ns".into()),
            resource_version: Some(version.into()),
            ..ObjectMeta::default()
        },
        data: Some(text.into()),
        binary_data: Some([(TOKENS.to_owned(), ByteString(encoded.tokens.clone()))].into()),
        ..ConfigMap::default()
    }
}

/// An API server that knows one ConfigMap, and tells the changes that are sent to it.
fn api_server(config_map: &ConfigMap) -> (Client, UnboundedSender<Value>) {
    let list = json!({
        "apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": "1"}, "items": [config_map],
    });
    let (tell, changes) = unbounded::<Value>();
    let changes = Arc::new(Mutex::new(Some(changes)));
    let answer = move |request: Request<kube::client::Body>| {
        let query = request.uri().query().unwrap_or_default().to_owned();
        assert_eq!(request.uri().path(), "/api/v1/namespaces/ns/configmaps");
        assert!(query.contains("fieldSelector=metadata.name%3Dshop-ring"), "{query}");
        let body = if query.contains("watch=true") {
            match changes.lock().unwrap().take() {
                Some(changes) => Body::from_stream(changes.map(|change| Ok::<_, Infallible>(format!("{change}\n")))),
                None => Body::from_stream(stream::pending::<Result<String, Infallible>>()),
            }
        } else {
            Body::from(list.to_string())
        };
        async { Ok::<_, Infallible>(Response::new(body)) }
    };
    (Client::new(tower::service_fn(answer), "default"), tell)
}

#[tokio::test]
async fn a_watched_ring_is_taken_at_once_and_one_that_is_deleted_stays_in_use() {
    let (client, tell) = api_server(&config_map("1", &encode(&ring(1, 3))));
    let directory = tempfile::tempdir().unwrap();
    mount(directory.path(), "..1", &encode(&ring(1, 3)));
    let config_map_name = Some(("ns".to_owned(), "shop-ring".to_owned()));
    let config = RingSourceConfig {
        config_map: config_map_name,
        client: Some(client),
        ..from_directory(directory.path())
    };
    let source = RingSource::start(config).await.unwrap();
    let mut rings = source.subscribe();
    let newer = config_map("2", &encode(&ring(2, 4)));
    tell.unbounded_send(json!({"type": "MODIFIED", "object": newer}))
        .unwrap();
    assert_eq!(next_epoch(&mut rings).await, 2);
    // The mounted copy lags behind; that is no refusal.
    assert_eq!(source.status().refusal, None);
    tell.unbounded_send(json!({"type": "DELETED", "object": newer}))
        .unwrap();
    assert_eq!(refusal(&source).await, "there is no ConfigMap ns/shop-ring");
    assert_eq!(*source.current(), ring(2, 4));
}

#[tokio::test]
async fn without_the_api_server_a_program_starts_from_the_directory() {
    let gone = |_: Request<kube::client::Body>| async { Err::<Response<Body>, _>(std::io::Error::other("no route")) };
    let directory = tempfile::tempdir().unwrap();
    mount(directory.path(), "..1", &encode(&ring(9, 3)));
    let config = RingSourceConfig {
        config_map: Some(("ns".into(), "shop-ring".into())),
        client: Some(Client::new(tower::service_fn(gone), "default")),
        ..from_directory(directory.path())
    };
    assert_eq!(RingSource::start(config).await.unwrap().current().epoch(), Epoch(9));
}

#[tokio::test]
async fn a_config_map_without_its_entries_is_refused_by_name() {
    let mut incomplete = config_map("1", &encode(&ring(1, 3)));
    incomplete.binary_data = None;
    let (client, _tell) = api_server(&incomplete);
    let config = RingSourceConfig {
        directory: None,
        config_map: Some(("ns".into(), "shop-ring".into())),
        client: Some(client),
        first_ring_within: Duration::from_secs(3),
    };
    let error = RingSource::start(config).await.err().unwrap().to_string();
    assert!(error.contains("the ConfigMap: it has no entry tokens"), "{error}");
}
