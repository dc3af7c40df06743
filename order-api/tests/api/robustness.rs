//! Whatever is sent, the fault is never this side's: thousands of broken requests, and no answer from 500 up.

use axum::http::{HeaderName, HeaderValue, Method};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::shards::ShardedApi;
use crate::support::{a_user, an_order, fresh_key};

/// A request as it is sent.
#[derive(Clone, Debug)]
struct Broken {
    method: Method,
    path: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Vec<u8>,
}

/// Ids of rows that are there, so that broken requests get past the look-up.
#[derive(Clone, Debug)]
struct Ids {
    user: String,
    order: String,
    invoice: String,
}

fn paths(ids: &Ids) -> impl Strategy<Value = String> + use<> {
    let Ids { user, order, invoice } = ids.clone();
    let real = vec![
        "/v1/users".to_owned(),
        format!("/v1/users/{user}"),
        format!("/v1/users/{user}/orders"),
        "/v1/orders:batch-create".to_owned(),
        "/v1/orders:batch-get".to_owned(),
        format!("/v1/orders/{order}"),
        format!("/v1/orders/{order}/process"),
        format!("/v1/orders/{order}/cancel"),
        format!("/v1/orders/{order}/invoice"),
        format!("/v1/orders/{order}/notifications"),
        format!("/v1/invoices/{invoice}"),
        format!("/v1/invoices/{invoice}/pdf"),
        "/v1/ring".to_owned(),
        "/problems/overloaded".to_owned(),
        "/docs/".to_owned(),
    ];
    let real = proptest::sample::select(real);
    let query = prop_oneof![3 => Just(String::new()), 1 => "[?][a-z%=&0-9.]{0,30}".prop_map(clean_percent)];
    let strange = prop::collection::vec(any::<u8>(), 0..12)
        .prop_map(|bytes| bytes.iter().map(|byte| format!("%{byte:02X}")).collect::<String>());
    prop_oneof![
        8 => (real.clone(), query).prop_map(|(path, query)| path + &query),
        // One segment replaced, a byte cut off, something behind.
        1 => (real.clone(), strange.clone()).prop_map(|(path, strange)| format!("{path}/{strange}")),
        1 => (real.clone(), strange).prop_map(|(path, strange)| {
            let (parent, _) = path.rsplit_once('/').unwrap_or(("", ""));
            format!("{parent}/{strange}")
        }),
        1 => real.prop_map(|path| path[..path.len() - 1].to_owned()).prop_filter("a path", |path| !path.is_empty()),
    ]
}

/// A percent sign stands for a byte; half a one is no URI and would not leave the client.
fn clean_percent(query: String) -> String {
    query.replace('%', "%F0")
}

fn headers() -> impl Strategy<Value = Vec<(HeaderName, HeaderValue)>> {
    let names = [
        "idempotency-key",
        "if-match",
        "ringwright-token",
        "ringwright-consistency",
        "accept",
        "content-type",
        "x-request-id",
        "content-encoding",
    ];
    let value = prop_oneof![
        prop::collection::vec(prop_oneof![0x20u8..0x7f, 0x80u8..=0xff], 0..40),
        prop::sample::select(vec![
            "\"v1\"",
            "*",
            "W/\"v1\"",
            "strong",
            "session",
            "application/pdf",
            "application/json",
            "a.b.c"
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ];
    let header = (prop::sample::select(names.to_vec()), value)
        .prop_map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_bytes(&value).unwrap()));
    prop::collection::vec(header, 0..4)
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        Just(json!("\u{0}")),
        Just(json!("\u{202e}\u{feff}")),
        Just(json!("x".repeat(5000))),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map("[a-z_]{1,12}", inner, 0..6).prop_map(|fields| json!(fields)),
        ]
    })
}

/// A body that would be right, with one place replaced by anything at all.
fn nearly_right(ids: &Ids) -> impl Strategy<Value = Vec<u8>> + use<> {
    let mut batched = an_order();
    batched["user_id"] = json!(ids.user);
    batched["total_minor"] = json!(3998);
    let bodies = vec![
        a_user(),
        json!({"first_name": "Ada", "locale": "de"}),
        an_order(),
        json!({"orders": [batched.clone(), batched]}),
        json!({"order_ids": [ids.order]}),
    ];
    (prop::sample::select(bodies), any::<prop::sample::Index>(), json_value()).prop_map(|(mut body, place, value)| {
        let mut places = Vec::new();
        collect_places(&body, String::new(), &mut places);
        *body.pointer_mut(&places[place.index(places.len())]).unwrap() = value;
        body.to_string().into_bytes()
    })
}

fn collect_places(value: &Value, at: String, places: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields
            .iter()
            .for_each(|(name, value)| collect_places(value, format!("{at}/{name}"), places)),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .for_each(|(i, value)| collect_places(value, format!("{at}/{i}"), places)),
        _ => {}
    }
    places.push(at);
}

fn bodies(ids: &Ids) -> impl Strategy<Value = Vec<u8>> + use<> {
    prop_oneof![
        2 => Just(Vec::new()),
        6 => nearly_right(ids),
        1 => json_value().prop_map(|value| value.to_string().into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..200),
        // Cut in the middle.
        1 => (nearly_right(ids), any::<prop::sample::Index>()).prop_map(|(body, at)| body[..at.index(body.len())].to_vec()),
        1 => Just("[".repeat(20_000).into_bytes()),
        1 => Just(br#"{"first_name":"\ud800","last_name":1e999}"#.to_vec()),
    ]
}

fn broken(ids: &Ids) -> impl Strategy<Value = Broken> + use<> {
    let methods = vec![
        Method::GET,
        Method::POST,
        Method::POST,
        Method::POST,
        Method::PATCH,
        Method::DELETE,
        Method::HEAD,
    ];
    (prop::sample::select(methods), paths(ids), headers(), bodies(ids)).prop_map(|(method, path, headers, body)| {
        Broken {
            method,
            path,
            headers,
            body,
        }
    })
}

async fn answer(api: &ShardedApi, request: &Broken) -> u16 {
    let mut call = api.call(request.method.clone(), &request.path);
    call = call
        .header("content-type", "application/json")
        .header("idempotency-key", &fresh_key());
    for (name, value) in &request.headers {
        call = call.raw_header(name, value);
    }
    call.body(request.body.clone()).send().await.status.as_u16()
}

#[test]
fn no_request_however_broken_is_answered_with_a_5xx() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let (api, ids) = runtime.block_on(async {
        let api = ShardedApi::start().await;
        let user = api.user().await;
        let (order, billed) = (api.order(&user).await, api.order(&user).await);
        let invoice = api
            .post(&format!("/v1/orders/{billed}/invoice"))
            .send()
            .await
            .expect(201)
            .text("invoice_id");
        (api, Ids { user, order, invoice })
    });
    let config = Config {
        cases: 3000,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    };
    let mut runner = TestRunner::new(config);
    let outcome = runner.run(&broken(&ids), |request| {
        let status = runtime.block_on(answer(&api, &request));
        prop_assert!(status < 500, "{status}");
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    drop(runtime.enter());
}
