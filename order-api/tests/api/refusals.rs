//! Requests that are refused before any shard is asked. The bodies are snapshots: clients see them.

use std::time::Duration;

use axum::body::Body;
use axum::http::Method;
use futures::stream;
use order_api::app::Settings;
use row_id::{OrderId, Position, UserId};
use serde_json::json;

use crate::support::{Api, READER, SLOW, a_user, an_order, settings};

fn api() -> Api {
    Api::without_shards(settings())
}

fn order_path() -> String {
    format!("/v1/orders/{}", OrderId::generate(Position::new(7)))
}

#[tokio::test]
async fn a_path_without_a_route_is_a_problem() {
    let reply = api().get("/v2/nothing").send().await;
    insta::assert_json_snapshot!(reply.problem(404, "route-not-found"));
}

#[tokio::test]
async fn a_wrong_method_is_a_problem_that_names_the_right_ones() {
    let reply = api().call(Method::DELETE, &order_path()).send().await;
    insta::assert_json_snapshot!(reply.problem(405, "method-not-allowed"));
    assert_eq!(reply.header("allow"), "GET,HEAD");
    api().get("/v1/users").send().await.problem(405, "method-not-allowed");
}

#[tokio::test]
async fn a_request_without_a_known_key_is_refused_before_anything_else() {
    let api = api();
    // The id and the body are wrong too; who is not known learns only that.
    let reply = api
        .post("/v1/users/x/orders")
        .body("{")
        .without("authorization")
        .send()
        .await;
    insta::assert_json_snapshot!(reply.problem(401, "unauthenticated"));
    assert_eq!(reply.header("www-authenticate"), "Bearer realm=\"ringwright\"");
    let reply = api.get(&order_path()).bearer("wrong").send().await;
    reply.problem(401, "unauthenticated");
    assert_eq!(
        reply.header("www-authenticate"),
        "Bearer realm=\"ringwright\", error=\"invalid_token\""
    );
    for header in ["Basic dXNlcjpwdw==", "Bearer", "Bearer ", "bearerx"] {
        api.get(&order_path())
            .header("authorization", header)
            .send()
            .await
            .problem(401, "unauthenticated");
    }
}

#[tokio::test]
async fn a_key_without_the_scope_is_refused() {
    let reply = api().post("/v1/users").json(&a_user()).bearer(READER).send().await;
    insta::assert_json_snapshot!(reply.problem(403, "insufficient-scope"));
    assert!(
        reply
            .header("www-authenticate")
            .ends_with("error=\"insufficient_scope\", scope=\"write\"")
    );
    api()
        .get("/v1/ring")
        .bearer(READER)
        .send()
        .await
        .problem(403, "insufficient-scope");
}

#[tokio::test]
async fn a_key_over_its_rate_is_told_when_to_come_back() {
    let api = api();
    let ask = || api.get("/v1/orders/x").bearer(SLOW).send();
    ask().await.problem(400, "invalid-id");
    let mut reply = ask().await;
    // Where a second has passed meanwhile, it is let in again, and rightly.
    for _ in 0..10 {
        if reply.status == 429 {
            break;
        }
        reply = ask().await;
    }
    insta::assert_json_snapshot!(reply.problem(429, "too-many-requests"));
    assert_eq!(reply.header("retry-after"), "1");
}

#[tokio::test]
async fn ids_that_are_not_ours_are_refused_with_the_reason() {
    let api = api();
    let id = UserId::generate().to_string();
    let digit = if id.ends_with('0') { '1' } else { '0' };
    let mistyped = format!("{}{digit}", &id[..35]);
    for id in [
        "x",
        "0",
        "00000000-0000-0000-0000-000000000000",
        &mistyped,
        "%00",
        "%F0%9F%98%80",
    ] {
        api.get(&format!("/v1/users/{id}"))
            .send()
            .await
            .problem(400, "invalid-id");
    }
    let reply = api.get("/v1/orders/x").send().await;
    insta::assert_json_snapshot!(reply.problem(400, "invalid-id"));
    api.get("/v1/users/%ff%fe")
        .send()
        .await
        .problem(400, "malformed-request");
}

#[tokio::test]
async fn bodies_that_are_not_json_are_malformed() {
    let api = api();
    let reply = api
        .post("/v1/users")
        .header("content-type", "application/json")
        .body("{\"first_name\": }")
        .send()
        .await;
    insta::assert_json_snapshot!(reply.problem(400, "malformed-json"));
    let deep = format!("{{\"first_name\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let bodies: [&[u8]; 5] = [
        b"",
        b"\xff\xfe",
        br#"{"first_name":"\ud800"}"#,
        br#"{"first_name":1e999}"#,
        b"{}x",
    ];
    for body in bodies.into_iter().chain([deep.as_bytes()]) {
        let reply = api
            .post("/v1/users")
            .header("content-type", "application/json")
            .body(body.to_vec())
            .send()
            .await;
        assert!([400, 422].contains(&reply.status.as_u16()), "{reply:?}");
    }
}

#[tokio::test]
async fn fields_that_are_wrong_are_all_named() {
    let body = json!({
        "first_name": "", "last_name": "a\u{0}b", "email_address": "nobody", "mobile_number": "0170",
        "locale": "??", "time_zone": "Mars",
    });
    let reply = api().post("/v1/users").json(&body).send().await;
    insta::assert_json_snapshot!(reply.problem(422, "invalid-fields"));
}

#[tokio::test]
async fn unknown_missing_and_mistyped_fields_are_pointed_at() {
    let api = api();
    let path = format!("/v1/users/{}/orders", UserId::generate());
    let cases = [
        ("/price", json!(1), "#/price"),
        (
            "/order_details/lines/0/quantity",
            json!("2"),
            "#/order_details/lines/0/quantity",
        ),
        (
            "/order_details/lines/0/quantity",
            json!(1.5),
            "#/order_details/lines/0/quantity",
        ),
        (
            "/order_details/lines/0/unit_price_minor",
            json!(-1),
            "#/order_details/lines/0/unit_price_minor",
        ),
        (
            "/order_details/lines/0/unit_price_minor",
            json!(u64::MAX),
            "#/order_details/lines/0/unit_price_minor",
        ),
        (
            "/order_details/lines/0/discount",
            json!(1),
            "#/order_details/lines/0/discount",
        ),
        ("/order_details/lines/0", json!(null), "#/order_details/lines/0"),
        ("/order_details/lines", json!([]), "#/order_details/lines"),
        ("/currency", json!("EURO"), "#/currency"),
        ("/total_minor", json!(3997), "#/total_minor"),
    ];
    for (place, value, pointer) in cases {
        let mut body = an_order();
        let (parent, field) = place.rsplit_once('/').unwrap();
        let parent = body.pointer_mut(parent).unwrap();
        match parent.as_array_mut() {
            Some(array) => array[field.parse::<usize>().unwrap()] = value,
            None => parent[field] = value,
        }
        let problem = api.post(&path).json(&body).send().await.problem(422, "invalid-fields");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
    let reply = api.post(&path).json(&json!({"currency": "EUR"})).send().await;
    insta::assert_json_snapshot!(reply.problem(422, "invalid-fields"));
}

#[tokio::test]
async fn only_json_in_plain_is_taken() {
    let api = api();
    let reply = api.post("/v1/users").body(a_user().to_string()).send().await;
    insta::assert_json_snapshot!(reply.problem(415, "unsupported-media-type"));
    for content_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonx",
        "/",
        "multipart/form-data",
    ] {
        let call = api
            .post("/v1/users")
            .json(&a_user())
            .header("content-type", content_type);
        call.send().await.problem(415, "unsupported-media-type");
    }
    let call = api.post("/v1/users").json(&a_user()).header("content-encoding", "gzip");
    call.send().await.problem(415, "unsupported-media-type");
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_announced_or_not() {
    let api = api();
    let large = "x".repeat(settings().body.max_bytes + 1);
    let call = api.post("/v1/users").header("content-type", "application/json");
    insta::assert_json_snapshot!(call.body(large.clone()).send().await.problem(413, "body-too-large"));
    let announced = api.post("/v1/users").header("content-type", "application/json");
    announced
        .header("content-length", "99999999")
        .send()
        .await
        .problem(413, "body-too-large");
    let chunks = stream::iter(vec![Ok::<_, std::io::Error>(large.clone()), Ok(large)]);
    let streamed = api.post("/v1/users").header("content-type", "application/json");
    streamed
        .body(Body::from_stream(chunks))
        .send()
        .await
        .problem(413, "body-too-large");
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_given_up() {
    let mut limits = settings();
    limits.body.read_timeout = Duration::from_millis(50);
    let api = Api::without_shards(limits);
    let endless = stream::pending::<Result<String, std::io::Error>>();
    let call = api.post("/v1/users").header("content-type", "application/json");
    let reply = call.body(Body::from_stream(endless)).send().await;
    insta::assert_json_snapshot!(reply.problem(408, "request-timeout"));
}

#[tokio::test]
async fn an_operation_without_a_body_takes_none() {
    let call = api().post(&format!("{}/process", order_path()));
    insta::assert_json_snapshot!(
        call.json(&json!({"force": true}))
            .send()
            .await
            .problem(422, "invalid-fields")
    );
}

#[tokio::test]
async fn every_post_that_changes_something_needs_an_idempotency_key() {
    let api = api();
    let order = order_path();
    let user_orders = format!("/v1/users/{}/orders", UserId::generate());
    let paths = [
        "/v1/users",
        &user_orders,
        "/v1/orders:batch-create",
        &format!("{order}/process"),
        &format!("{order}/cancel"),
        &format!("{order}/invoice"),
    ];
    for path in paths {
        let reply = api.post(path).without("idempotency-key").json(&json!({})).send().await;
        insta::allow_duplicates! { insta::assert_json_snapshot!(reply.problem(400, "idempotency-key-missing")); }
    }
}

#[tokio::test]
async fn an_idempotency_key_of_other_characters_is_refused() {
    let request = api().post("/v1/users").header("idempotency-key", "two words");
    let reply = request.json(&a_user()).send().await;
    insta::assert_json_snapshot!(reply.problem(400, "idempotency-key-invalid"));
}

#[tokio::test]
async fn a_change_of_a_user_needs_its_etag() {
    let path = format!("/v1/users/{}", UserId::generate());
    let reply = api().patch(&path).json(&json!({"first_name": "Grace"})).send().await;
    insta::assert_json_snapshot!(reply.problem(428, "precondition-required"));
    let unquoted = api().patch(&path).header("if-match", "v1").json(&json!({}));
    unquoted.send().await.problem(400, "malformed-request");
}

#[tokio::test]
async fn tokens_cursors_and_parameters_that_are_not_ours_are_refused() {
    let api = api();
    let order = order_path();
    let reply = api.get(&order).header("ringwright-token", "made-up").send().await;
    assert_eq!(
        reply.problem(400, "invalid-consistency-token")["title"],
        "The consistency token is not valid"
    );
    let reply = api
        .get(&order)
        .header("ringwright-consistency", "eventual")
        .send()
        .await;
    insta::assert_json_snapshot!(reply.problem(400, "malformed-request"));
    let list = format!("/v1/users/{}/orders", UserId::generate());
    let reply = api.get(&format!("{list}?cursor=AAAA")).send().await;
    insta::assert_json_snapshot!(reply.problem(400, "invalid-cursor"));
    for query in [
        "limt=3",
        "limit=0",
        "limit=201",
        "limit=-1",
        "limit=a",
        "limit=1&limit=2",
        "cursor=%ff",
    ] {
        let reply = api.get(&format!("{list}?{query}")).send().await;
        assert_eq!(reply.status, 400, "{query}: {reply:?}");
    }
}

#[tokio::test]
async fn what_does_not_fit_is_refused_at_once() {
    let api = Api::without_shards(Settings {
        max_concurrent_requests: 0,
        ..settings()
    });
    let reply = api.get(&order_path()).send().await;
    insta::assert_json_snapshot!(reply.problem(503, "overloaded"));
    assert_eq!(reply.header("retry-after"), "1");
    // Probes are answered also then: an instance under load is not a dead one.
    api.get("/readyz").send().await.expect(200);
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_ended() {
    let limits = Settings {
        request_timeout: Duration::from_millis(50),
        ..settings()
    };
    // The store must not give up first, however late this is looked at.
    let api = Api::waiting_in_vain(limits, Duration::from_secs(60));
    let reply = api.get(&order_path()).send().await;
    insta::assert_json_snapshot!(reply.problem(503, "timed-out"));
    assert_eq!(reply.header("retry-after"), "1");
}

#[tokio::test]
async fn a_shard_that_cannot_be_reached_is_a_503_that_tells_nothing_of_the_inside() {
    let api = api();
    let read = api.get(&order_path()).send().await;
    insta::assert_json_snapshot!(read.problem(503, "shard-unavailable"));
    assert!(read.headers.contains_key("retry-after"));
    let write = api.post("/v1/users").json(&a_user()).send().await;
    write.problem(503, "shard-unavailable");
    // And the instance stays ready: other shards' users are not to suffer.
    api.get("/readyz").send().await.expect(200);
}
