//! The same key and request are done once and answered alike; anything else under the key is refused.

use std::time::Duration;

use futures::future::join_all;
use row_id::UserId;
use serde_json::{Value, json};

use crate::shards::ShardedApi;
use crate::support::{Call, OTHER, Reply, a_user, an_order, fresh_key};

/// A POST under a key.
fn under(api: &ShardedApi, key: &str, path: &str, body: &Value) -> Call {
    api.post(path).header("idempotency-key", key).json(body)
}

/// A user, where its orders are placed, and a key for the first.
async fn start() -> (ShardedApi, String, String, String) {
    let api = ShardedApi::start().await;
    let user = api.user().await;
    let path = format!("/v1/users/{user}/orders");
    (api, user, path, fresh_key())
}

fn replayed(reply: &Reply) -> bool {
    reply
        .headers
        .get("idempotency-replayed")
        .is_some_and(|value| value == "true")
}

async fn orders_of(api: &ShardedApi, user: &str) -> usize {
    let list = api
        .get(&format!("/v1/users/{user}/orders"))
        .header("ringwright-consistency", "strong");
    list.send().await.expect(200).json()["orders"].as_array().unwrap().len()
}

#[tokio::test]
async fn a_repeat_gets_the_first_answer_and_does_nothing() {
    let (api, user, path, key) = start().await;
    let first = under(&api, &key, &path, &an_order()).send().await.expect(201);
    assert!(!replayed(&first));
    // The order moves on; the answer to the repeat is still that of the first request.
    api.post(&format!("{}/process", first.header("location")))
        .send()
        .await
        .expect(200);
    let again = under(&api, &key, &path, &an_order()).send().await.expect(201);
    assert!(replayed(&again));
    assert_eq!(again.body, first.body);
    for header in ["location", "etag", "content-type"] {
        assert_eq!(again.header(header), first.header(header));
    }
    assert_eq!(orders_of(&api, &user).await, 1);
}

#[tokio::test]
async fn a_repeat_may_be_written_otherwise_and_quote_its_key() {
    let api = ShardedApi::start().await;
    let (user, key) = (a_user(), fresh_key());
    let first = under(&api, &key, "/v1/users", &user).send().await.expect(201);
    let reversed: Vec<String> = user
        .as_object()
        .unwrap()
        .iter()
        .rev()
        .map(|(k, v)| format!("\"{k}\" : {v}"))
        .collect();
    let again = api
        .post("/v1/users")
        .header("idempotency-key", &format!("\"{key}\""))
        .json(&json!(null));
    let again = again
        .body(format!("{{ {} }}", reversed.join(" , ")))
        .send()
        .await
        .expect(201);
    assert!(replayed(&again));
    assert_eq!(again.body, first.body);
}

#[tokio::test]
async fn a_key_is_refused_for_another_body_or_another_operation() {
    let (api, _, path, key) = start().await;
    let order = under(&api, &key, &path, &an_order()).send().await.expect(201);
    let mut other = an_order();
    other["order_details"]["lines"][0]["quantity"] = 3.into();
    let reply = under(&api, &key, &path, &other).send().await;
    insta::assert_json_snapshot!(reply.problem(422, "idempotency-key-reused"));
    let process = api
        .post(&format!("{}/process", order.header("location")))
        .header("idempotency-key", &key);
    process.send().await.problem(422, "idempotency-key-reused");
}

#[tokio::test]
async fn keys_of_two_clients_never_meet() {
    let (api, user, path, key) = start().await;
    under(&api, &key, &path, &an_order()).send().await.expect(201);
    let other = under(&api, &key, &path, &an_order())
        .bearer(OTHER)
        .send()
        .await
        .expect(201);
    assert!(!replayed(&other));
    assert_eq!(orders_of(&api, &user).await, 2);
}

#[tokio::test]
async fn of_requests_that_come_together_one_is_done() {
    let (api, user, path, key) = start().await;
    let together = (0..8).map(|_| under(&api, &key, &path, &an_order()).send());
    let replies = join_all(together).await;
    for reply in &replies {
        match reply.status.as_u16() {
            201 => {}
            409 => assert!(
                reply.problem(409, "idempotency-key-in-use").is_object() && reply.headers.contains_key("retry-after")
            ),
            _ => panic!("{reply:?}"),
        }
    }
    assert!(replies.iter().any(|reply| reply.status == 201));
    assert_eq!(orders_of(&api, &user).await, 1);
}

#[tokio::test]
async fn two_creations_of_a_user_with_one_key_make_one_user() {
    let api = ShardedApi::start().await;
    let (user, key) = (a_user(), fresh_key());
    let together = (0..4).map(|_| under(&api, &key, "/v1/users", &user).send());
    let replies = join_all(together).await;
    let mut created: Vec<_> = replies
        .iter()
        .filter(|reply| reply.status == 201)
        .map(|reply| reply.text("user_id"))
        .collect();
    created.dedup();
    assert_eq!(created.len(), 1, "{replies:?}");
    assert!(
        replies.iter().all(|reply| [201, 409].contains(&reply.status.as_u16())),
        "{replies:?}"
    );
}

#[tokio::test]
async fn a_request_that_failed_may_be_tried_again_with_its_key() {
    let api = ShardedApi::start().await;
    let (holder, key) = (a_user(), fresh_key());
    let path = api
        .post("/v1/users")
        .json(&holder)
        .send()
        .await
        .expect(201)
        .header("location")
        .to_owned();
    let mut user = a_user();
    user["email_address"] = holder["email_address"].clone();
    let create = || under(&api, &key, "/v1/users", &user);
    create().send().await.problem(409, "contact-taken");
    let elsewhere = json!({"email_address": a_user()["email_address"]});
    api.patch(&path)
        .header("if-match", "\"v1\"")
        .json(&elsewhere)
        .send()
        .await
        .expect(200);
    create().send().await.expect(201);
}

#[tokio::test]
async fn a_repeated_change_of_a_user_gets_its_answer_although_the_version_has_moved() {
    let api = ShardedApi::start().await;
    let path = format!("/v1/users/{}", api.user().await);
    let change = || {
        let patch = api
            .patch(&path)
            .header("if-match", "\"v1\"")
            .header("idempotency-key", "change-of-name");
        patch.json(&json!({"first_name": "Grace"}))
    };
    let first = change().send().await.expect(200);
    let again = change().send().await.expect(200);
    assert!(replayed(&again) && !replayed(&first));
    assert_eq!(again.body, first.body);
    assert_eq!(
        api.get(&path)
            .header("ringwright-consistency", "strong")
            .send()
            .await
            .expect(200)
            .header("etag"),
        "\"v2\""
    );
}

#[tokio::test]
async fn a_write_goes_on_when_its_client_hangs_up() {
    let api = ShardedApi::start().await;
    let user = api.user().await;
    // Warm: connections are open, so that the write is under way when its client leaves.
    api.order(&user).await;
    let (path, key) = (format!("/v1/users/{user}/orders"), fresh_key());
    let place = || under(&api, &key, &path, &an_order()).send();
    let gone = tokio::time::timeout(Duration::from_micros(300), place()).await;
    if gone.is_err() {
        api.app.writes_ended().await;
    }
    let again = place().await.expect(201);
    assert!(
        replayed(&again),
        "the first request was done without anybody waiting for it"
    );
    assert_eq!(orders_of(&api, &user).await, 2);
}

#[tokio::test]
async fn processing_cancelling_and_invoicing_are_repeated_like_everything_else() {
    let api = ShardedApi::start().await;
    let user: String = api.user().await;
    assert!(user.parse::<UserId>().is_ok());
    for operation in ["process", "cancel", "invoice"] {
        let (order, key) = (api.order(&user).await, fresh_key());
        let run = || {
            api.post(&format!("/v1/orders/{order}/{operation}"))
                .header("idempotency-key", &key)
                .send()
        };
        let (first, again) = (run().await, run().await);
        assert_eq!((first.status, &first.body), (again.status, &again.body), "{operation}");
        assert!(first.status.is_success() && replayed(&again), "{operation}: {again:?}");
    }
}
