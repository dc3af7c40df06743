//! The commands against an API server in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use clap::Parser;
use crds::{OrderCluster, labels};
use http::{Method, Request, Response, StatusCode};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::client::Body;
use kube::{Client, ResourceExt};
use ring::{Epoch, Ordinal, Position, Ring, Shard, ShardState, Weight};
use row_id::{OrderId, UserId};
use serde_json::{Value, json};
use tower::service_fn;

use crate::arguments::{Arguments, Output};
use crate::place::Place;
use crate::{run, status};

/// The objects there are by path, and every write.
#[derive(Clone, Default)]
struct Api(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    writes: Vec<(String, Value)>,
}

const CLUSTERS: &str = "/apis/ringwright.dev/v1alpha1/namespaces/prod/orderclusters";

impl Api {
    /// A cluster of three shards with its ring.
    fn new() -> Self {
        let api = Self::default();
        api.put(&format!("{CLUSTERS}/shop"), cluster("shop"));
        api.put(
            "/api/v1/namespaces/prod/configmaps/shop-ring",
            serde_json::to_value(ring_map(&ring(3))).unwrap(),
        );
        api
    }

    fn put(&self, path: &str, object: Value) {
        self.0.lock().unwrap().objects.insert(path.to_owned(), object);
    }

    /// Changes the cluster as a person or the operator would.
    fn edit(&self, change: impl FnOnce(&mut Value)) {
        change(
            self.0
                .lock()
                .unwrap()
                .objects
                .get_mut(&format!("{CLUSTERS}/shop"))
                .unwrap(),
        );
    }

    fn writes(&self) -> Vec<(String, Value)> {
        self.0.lock().unwrap().writes.clone()
    }

    fn client(&self) -> Client {
        let api = self.clone();
        let service = service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await?;
                let (status, answer) = api.answer(&parts.method, parts.uri.path(), &body);
                let body = Body::from(serde_json::to_vec(&answer)?);
                Ok::<_, tower::BoxError>(Response::builder().status(status).body(body)?)
            }
        });
        Client::new(service, "prod")
    }

    fn answer(&self, method: &Method, path: &str, body: &[u8]) -> (StatusCode, Value) {
        let mut state = self.0.lock().unwrap();
        if path == CLUSTERS {
            let all = state.objects.iter().filter(|(path, _)| path.starts_with(CLUSTERS));
            let items: Vec<&Value> = all.map(|(_, object)| object).collect();
            let list = json!({"apiVersion": "ringwright.dev/v1alpha1", "kind": "OrderClusterList", "metadata": {}, "items": items});
            return (StatusCode::OK, list);
        }
        let Some(found) = state.objects.get(path).cloned() else {
            let missing =
                json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "message": path, "code": 404});
            return (StatusCode::NOT_FOUND, missing);
        };
        if *method == Method::PATCH {
            state
                .writes
                .push((path.to_owned(), serde_json::from_slice(body).unwrap()));
        }
        (StatusCode::OK, found)
    }

    /// What a command prints, or why it fails.
    async fn say(&self, command: &str) -> Result<String, String> {
        let arguments = Arguments::try_parse_from(["kubectl-ringwright"].into_iter().chain(command.split_whitespace()));
        let mut out = Vec::new();
        match run(&arguments.map_err(|error| error.to_string())?, self.client(), &mut out).await {
            Ok(()) => Ok(String::from_utf8(out).unwrap()),
            Err(error) => Err(format!("{error:#}")),
        }
    }

    async fn json(&self, command: &str) -> Value {
        serde_json::from_str(&self.say(&format!("{command} -o json")).await.unwrap()).unwrap()
    }
}

fn cluster(name: &str) -> Value {
    json!({
        "apiVersion": "ringwright.dev/v1alpha1",
        "kind": "OrderCluster",
        "metadata": {"name": name, "namespace": "prod"},
        "spec": {"shards": 3, "postgres": {"storage": {"size": "1Gi"}}},
    })
}

fn ring(shards: u16) -> Ring {
    let owners: Vec<_> = (0..shards).map(|ordinal| (Ordinal(ordinal), Weight::ONE)).collect();
    let shard = |ordinal: u16| Shard {
        name: format!("shop-{ordinal}"),
        ordinal: Ordinal(ordinal),
        state: ShardState::Active,
        hosts: vec![format!("shop-{ordinal}-0.shop-{ordinal}.prod.svc:5432")],
    };
    Ring::new(
        Epoch(7),
        (0..shards).map(shard).collect(),
        ring::plan(None, &owners).unwrap(),
    )
    .unwrap()
}

fn ring_map(ring: &Ring) -> ConfigMap {
    let encoded = ring::encode(ring);
    ConfigMap {
        data: Some(BTreeMap::from([
            ("ring.json".to_owned(), encoded.ring_json),
            ("digest".to_owned(), encoded.digest),
        ])),
        binary_data: Some(BTreeMap::from([("tokens".to_owned(), ByteString(encoded.tokens))])),
        ..ConfigMap::default()
    }
}

#[tokio::test]
async fn a_row_is_located_where_the_ring_has_its_position() {
    let (api, ring) = (Api::new(), ring(3));
    for _ in 0..20 {
        let user = UserId::generate();
        let order = OrderId::generate(user.position());
        let owner = ring.locate(user.position());
        for (id, is_user_id) in [(user.to_string(), true), (order.to_string(), false)] {
            let found = api.json(&format!("ring locate {id}")).await;
            assert_eq!(found["shard"], owner.name, "{id}");
            assert_eq!(found["isUserId"], is_user_id, "{id}");
        }
    }
    let owner = &ring.locate(Position::new(0xff00_0000)).name;
    let text = api.say("ring locate ff000000").await.unwrap();
    assert!(
        text.contains("position  ff000000\n") && text.contains(&format!("shard     {owner}\n")),
        "{text}"
    );
}

#[tokio::test]
async fn what_is_no_id_is_refused_by_saying_what_is() {
    for id in ["shop-0", "ff", "8a3c01f2-0195-4c3e-8a4b-5d2f00c1e9a7"] {
        let refusal = Api::new().say(&format!("ring locate {id}")).await.unwrap_err();
        assert!(
            refusal.contains("a UUID of version 8") && refusal.contains(id),
            "{refusal}"
        );
    }
}

#[tokio::test]
async fn the_ring_is_shown_with_the_share_of_each_shard() {
    let api = Api::new();
    let text = api.say("ring show").await.unwrap();
    assert!(text.starts_with("Ring of prod/shop, epoch 7\n"), "{text}");
    assert_eq!(text.matches("33.33 %").count(), 3, "{text}");
    let shown = api.json("ring show").await;
    let ranges = shown["shards"]
        .as_array()
        .unwrap()
        .iter()
        .map(|shard| shard["ranges"].as_array().unwrap().len());
    assert_eq!(ranges.sum::<usize>(), ring(3).ranges().len());
}

#[tokio::test]
async fn a_plan_is_that_of_the_planner_and_changes_nothing() {
    let api = Api::new();
    let planned = api.json("rebalance plan --shards 5").await;
    let owners: Vec<_> = (0..5).map(|ordinal| (Ordinal(ordinal), Weight::ONE)).collect();
    let plan = moves::plan(ring(3).tokens(), &owners).unwrap();
    assert_eq!(planned["moves"], serde_json::to_value(&plan.moves).unwrap());
    assert_eq!(planned["join"], json!([3, 4]));
    let (moved, ideal) = (&planned["summary"]["moved"], &planned["summary"]["ideal"]);
    let (moved, ideal) = (moved.as_f64().unwrap(), ideal.as_f64().unwrap());
    assert!(
        (ideal - 0.4).abs() < 1e-6 && (moved / ideal - 1.0).abs() < 0.02,
        "{moved} of {ideal}"
    );
    let text = api.say("rebalance plan --shards 5").await.unwrap();
    assert!(text.contains("Shards: 3 now, 5 then\n  join: 3, 4\n"), "{text}");
    let every = api.say("rebalance plan --shards 5 --ranges").await.unwrap();
    assert_eq!(
        every.matches("[").count(),
        plan.moves.iter().map(|one| one.ranges.len()).sum::<usize>()
    );
    assert_eq!(api.writes(), []);
}

#[tokio::test]
async fn a_new_shard_gets_a_number_that_none_ever_had() {
    let api = Api::new();
    let mut map = ring_map(&ring(3));
    map.metadata.annotations = Some(BTreeMap::from([(labels::HIGHEST_ORDINAL.to_owned(), "5".to_owned())]));
    api.put(
        "/api/v1/namespaces/prod/configmaps/shop-ring",
        serde_json::to_value(map).unwrap(),
    );
    assert_eq!(api.json("rebalance plan --shards 4").await["join"], json!([6]));
}

#[tokio::test]
async fn a_ring_as_the_specification_asks_has_nothing_to_move() {
    let text = Api::new().say("rebalance plan").await.unwrap();
    assert!(text.contains("Nothing moves."), "{text}");
}

#[tokio::test]
async fn the_highest_shard_leaves_unless_another_is_drained() {
    let api = Api::new();
    assert_eq!(api.json("rebalance plan --shards 2").await["leave"], json!([2]));
    api.edit(|cluster| cluster["spec"]["shardOverrides"] = json!([{"ordinal": 0, "drain": true}]));
    let planned = api.json("rebalance plan --shards 2").await;
    assert_eq!((&planned["leave"], &planned["drain"]), (&json!([0]), &json!([])));
    let planned = api.json("rebalance plan").await;
    assert_eq!((&planned["leave"], &planned["drain"]), (&json!([]), &json!([0])));
    assert!(
        planned["moves"]
            .as_array()
            .unwrap()
            .iter()
            .all(|one| one["source"] == 0)
    );
}

#[tokio::test]
async fn the_only_cluster_of_a_namespace_needs_no_name() {
    let api = Api::new();
    api.put(&format!("{CLUSTERS}/outlet"), cluster("outlet"));
    let refusal = api.say("ring show").await.unwrap_err();
    assert!(refusal.contains("outlet, shop; say which with --cluster"), "{refusal}");
    assert!(api.say("ring show --cluster shop").await.is_ok());
    let refusal = api.say("ring show -c outlet").await.unwrap_err();
    assert!(refusal.contains("no ring has been published"), "{refusal}");
    let refusal = api.say("rebalance plan -c shop2").await.unwrap_err();
    assert!(
        refusal.contains("there is no OrderCluster shop2 in namespace prod"),
        "{refusal}"
    );
}

#[tokio::test]
async fn a_damaged_ring_is_told_and_not_shown() {
    let api = Api::new();
    let mut map = ring_map(&ring(3));
    map.data.as_mut().unwrap().insert("digest".into(), "0".repeat(64));
    api.put(
        "/api/v1/namespaces/prod/configmaps/shop-ring",
        serde_json::to_value(map).unwrap(),
    );
    let refusal = api.say("ring locate ff000000").await.unwrap_err();
    assert!(refusal.contains("prod/shop-ring is damaged"), "{refusal}");
}

#[tokio::test]
async fn pause_and_resume_write_only_what_changes() {
    let api = Api::new();
    api.say("rebalance resume").await.unwrap();
    assert_eq!(api.writes(), []);
    api.say("rebalance pause").await.unwrap();
    let patch = json!({"spec": {"rebalance": {"paused": true}}});
    assert_eq!(api.writes(), [(format!("{CLUSTERS}/shop"), patch)]);
    api.edit(|cluster| cluster["spec"]["rebalance"] = json!({"paused": true}));
    assert_eq!(
        api.json("rebalance pause").await,
        json!({"paused": true, "changed": false})
    );
    api.say("rebalance resume").await.unwrap();
    assert_eq!(
        api.writes()[1..],
        [(
            format!("{CLUSTERS}/shop"),
            json!({"spec": {"rebalance": {"paused": false}}})
        )]
    );
}

#[tokio::test]
async fn an_abort_asks_the_operator_and_pauses_in_one_write() {
    let api = Api::new();
    let refusal = api.say("rebalance abort").await.unwrap_err();
    assert!(refusal.contains("nothing to abort"), "{refusal}");
    api.edit(|cluster| cluster["status"] = json!({"rebalance": {"startedAt": "2026-01-01T00:00:00Z"}}));
    api.say("rebalance abort").await.unwrap();
    let (_, patch) = &api.writes()[0];
    assert_eq!(patch["metadata"]["annotations"][labels::ABORT_REBALANCE], "true");
    assert_eq!(patch["spec"]["rebalance"]["paused"], true);
    assert_eq!(api.writes().len(), 1);
}

#[tokio::test]
async fn the_status_tells_what_went_wrong_and_what_is_done_about_it() {
    let api = Api::new();
    assert_eq!(
        api.say("rebalance status").await.unwrap(),
        "There has been no rebalance.\n"
    );
    let rebalance = json!({
        "phase": "HandingOver",
        "shardsBefore": 3, "shardsAfter": 5, "movesDone": 1, "movesTotal": 6, "rangesDone": 10, "rangesTotal": 77,
        "rowsDone": 1000, "rowsTotal": 9000, "rowsPerSecond": 500,
        "keysMovedPerMillion": 399_000, "keysIdealPerMillion": 400_000,
        "longestPauseMilliseconds": 48, "medianPauseMilliseconds": 12,
        "startedAt": "2026-01-01T00:00:00Z",
        "lastError": {"at": "2026-01-01T00:01:00Z", "message": "the copy is void", "action": "It is copied again."},
    });
    api.edit(|cluster| cluster["status"] = json!({"rebalance": rebalance}));
    let text = api.say("rebalance status").await.unwrap();
    for line in [
        "phase     HandingOver\n",
        "ranges    10 of 77\n",
        "keys      39.90 % move, 40.00 % ideally\n",
        "pauses    median 12 ms, longest 48 ms\n",
        "error     the copy is void at 2026-01-01T00:01:00Z\n          It is copied again.\n",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert_eq!(api.json("rebalance status").await["rangesDone"], 10);
}

#[tokio::test]
async fn watching_says_each_change_once_and_ends_with_the_rebalance() {
    let place = Place::find(Api::new().client(), None, None).await.unwrap();
    let at = |done: i64, finished: Option<&str>| {
        let mut cluster: OrderCluster = serde_json::from_value(cluster("shop")).unwrap();
        cluster.status = serde_json::from_value(json!({"rebalance": {
            "phase": if finished.is_some() { "Finished" } else { "HandingOver" },
            "rangesDone": done, "rangesTotal": 2, "startedAt": "2026-01-01T00:00:00Z", "finishedAt": finished,
        }}))
        .unwrap();
        assert_eq!(cluster.name_any(), "shop");
        Ok(Some(cluster))
    };
    let end = Some("2026-01-01T00:02:00Z");
    let changes = futures::stream::iter([at(0, None), at(1, None), at(1, None), at(2, end), at(2, None)]);
    let mut out = Vec::new();
    status::follow(&place, changes, Output::Text, &mut out).await.unwrap();
    let text = String::from_utf8(out).unwrap();
    let starts: Vec<&str> = text.lines().map(|line| line.split(',').next().unwrap()).collect();
    let wanted = [
        "HandingOver: 0 of 2 ranges",
        "HandingOver: 1 of 2 ranges",
        "Finished: 2 of 2 ranges",
    ];
    assert_eq!(starts, wanted);
}

#[tokio::test]
async fn a_watch_that_begins_before_the_rebalance_waits_for_it() {
    let place = Place::find(Api::new().client(), None, None).await.unwrap();
    let old = json!({"phase": "Finished", "rangesDone": 9, "rangesTotal": 9,
        "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:02:00Z"});
    let new = |finished: Option<&str>| {
        json!({"phase": if finished.is_some() { "Finished" } else { "Copying" }, "rangesDone": 0, "rangesTotal": 2,
            "startedAt": "2026-01-02T00:00:00Z", "finishedAt": finished})
    };
    let at = |observed: i64, reconciling: Option<&str>, rebalance: &Value| {
        let mut cluster: OrderCluster = serde_json::from_value(cluster("shop")).unwrap();
        cluster.metadata.generation = Some(2);
        let condition = reconciling.map(|message| {
            json!({"type": "Reconciling", "status": "True", "reason": "CreatingShards", "message": message,
                "lastTransitionTime": "2026-01-02T00:00:00Z"})
        });
        let conditions: Vec<Value> = condition.into_iter().collect();
        let status = json!({"observedGeneration": observed, "conditions": conditions, "rebalance": rebalance});
        cluster.status = serde_json::from_value(status).unwrap();
        Ok(Some(cluster))
    };
    let changes = futures::stream::iter([
        at(1, None, &old),
        at(2, Some("creating shop-3"), &old),
        at(2, Some("creating shop-3"), &old),
        at(2, Some("keys move"), &new(None)),
        at(2, Some("shop-4 is about to go"), &new(Some("2026-01-02T00:01:00Z"))),
    ]);
    let mut out = Vec::new();
    status::follow(&place, changes, Output::Text, &mut out).await.unwrap();
    let text = String::from_utf8(out).unwrap();
    let starts: Vec<&str> = text.lines().map(|line| line.split(',').next().unwrap()).collect();
    let wanted = [
        "No keys move now: the operator has not looked at the specification yet",
        "No keys move now: creating shop-3",
        "Copying: 0 of 2 ranges",
        "Finished: 0 of 2 ranges",
    ];
    assert_eq!(starts, wanted);

    let settled = futures::stream::iter([at(2, None, &old)]);
    let mut out = Vec::new();
    status::follow(&place, settled, Output::Text, &mut out).await.unwrap();
    assert!(String::from_utf8(out).unwrap().starts_with("Finished: 9 of 9 ranges"));
}

#[tokio::test]
async fn a_rebalance_that_is_held_before_it_begins_is_no_finished_one() {
    let api = Api::new();
    let held = "keys have to move, and spec.rebalance.paused holds them: set it to false";
    api.edit(|cluster| {
        cluster["status"] = json!({
            "conditions": [{"type": "Stalled", "status": "True", "reason": "RebalancePaused", "message": held,
                "lastTransitionTime": "2026-01-02T00:00:00Z"}],
            "rebalance": {"phase": "Finished", "rangesDone": 9, "rangesTotal": 9,
                "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:02:00Z"},
        });
    });
    let text = api.say("rebalance status").await.unwrap();
    assert!(text.starts_with(&format!("No keys move: {held}\n")), "{text}");

    let place = Place::find(api.client(), None, None).await.unwrap();
    let changes = futures::stream::iter([Ok(Some(place.cluster().await.unwrap()))]);
    let mut out = Vec::new();
    let refusal = status::follow(&place, changes, Output::Text, &mut out)
        .await
        .unwrap_err();
    assert_eq!(refusal.to_string(), format!("no keys move: {held}"));
    assert!(out.is_empty(), "{out:?}");
}

#[test]
fn the_arguments_make_sense_to_clap() {
    use clap::CommandFactory as _;
    Arguments::command().debug_assert();
}
