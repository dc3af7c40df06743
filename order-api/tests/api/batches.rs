//! Batches: each item with its own outcome.

use row_id::{OrderId, Position, UserId};
use serde_json::{Value, json};

use crate::shards::ShardedApi;
use crate::support::{Reply, an_order, fresh_key};

fn order_of(user: &str) -> Value {
    let mut order = an_order();
    order["user_id"] = user.into();
    order
}

fn statuses(results: &Value) -> Vec<u64> {
    results["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| result["status"].as_u64().unwrap())
        .collect()
}

#[tokio::test]
async fn a_bad_order_is_its_own_outcome_and_no_other_ones() {
    let api = ShardedApi::start().await;
    let (one, two, nobody) = (api.user().await, api.user().await, UserId::generate().to_string());
    let mut wrong_total = order_of(&one);
    wrong_total["total_minor"] = 1.into();
    let orders = json!([
        order_of(&one),
        wrong_total,
        order_of(&nobody),
        order_of("not-an-id"),
        "not an order",
        order_of(&two),
        order_of(&one),
    ]);
    let reply = api
        .post("/v1/orders:batch-create")
        .json(&json!({"orders": orders}))
        .send()
        .await
        .expect(200);
    let results = reply.json();
    assert_eq!(statuses(&results), [201, 422, 404, 422, 422, 201, 201]);
    assert_eq!(
        results["results"][1]["problem"]["errors"][0]["pointer"],
        "#/total_minor"
    );
    assert_eq!(results["results"][3]["problem"]["errors"][0]["pointer"], "#/user_id");
    assert_eq!(results["results"][5]["order"]["user_id"], json!(two));
    assert!(reply.headers.contains_key("ringwright-token"));
}

async fn send(api: &ShardedApi, key: &str, orders: Value) -> Reply {
    let call = api.post("/v1/orders:batch-create").header("idempotency-key", key);
    call.json(&json!({"orders": orders})).send().await
}

#[tokio::test]
async fn a_repeated_batch_repeats_each_item_by_itself() {
    let api = ShardedApi::start().await;
    let (user, nobody) = (api.user().await, UserId::generate().to_string());
    let (key, orders) = (
        fresh_key(),
        json!([order_of(&user), order_of(&nobody), order_of(&user)]),
    );
    let first = send(&api, &key, orders.clone()).await.expect(200).json();
    assert_eq!(statuses(&first), [201, 404, 201]);
    let ids = |results: &Value| [0, 2].map(|i| results["results"][i]["order"]["order_id"].clone());
    assert_ne!(ids(&first)[0], ids(&first)[1]);
    let again = send(&api, &key, orders).await.expect(200).json();
    assert_eq!(statuses(&again), [201, 404, 201]);
    assert_eq!(ids(&again), ids(&first));
    for i in [0, 2] {
        assert_eq!(again["results"][i]["replayed"], json!(true));
        assert_eq!(first["results"][i]["replayed"], Value::Null);
    }
}

#[tokio::test]
async fn a_batchs_key_is_refused_for_any_other_batch_and_nothing_of_that_is_done() {
    let api = ShardedApi::start().await;
    let (user, other) = (api.user().await, api.user().await);
    let key = fresh_key();
    send(&api, &key, json!([order_of(&user), order_of(&user)]))
        .await
        .expect(200);
    let mut changed = order_of(&user);
    changed["order_details"]["note"] = "second thoughts".into();
    let others = [
        json!([order_of(&user)]),
        json!([order_of(&user), order_of(&user), order_of(&other)]),
        json!([order_of(&user), changed]),
        // No item of these lies where one of the first batch's keys does.
        json!([order_of(&other), order_of(&other)]),
    ];
    for batch in others {
        send(&api, &key, batch).await.problem(422, "idempotency-key-reused");
    }
    let user_creation = api.post("/v1/users").header("idempotency-key", &key);
    let refused = user_creation.json(&crate::support::a_user()).send().await;
    refused.problem(422, "idempotency-key-reused");
    for (user, placed) in [(user, 2), (other, 0)] {
        let list = api
            .get(&format!("/v1/users/{user}/orders"))
            .header("ringwright-consistency", "strong");
        let list = list.send().await.expect(200).json();
        assert_eq!(list["orders"].as_array().unwrap().len(), placed);
    }
}

#[tokio::test]
async fn a_batch_of_which_nothing_can_be_placed_leaves_its_key_free() {
    let api = ShardedApi::start().await;
    let (user, key) = (api.user().await, fresh_key());
    let wrong = send(&api, &key, json!(["not an order"])).await.expect(200).json();
    assert_eq!(statuses(&wrong), [422]);
    let right = send(&api, &key, json!([order_of(&user)])).await.expect(200).json();
    assert_eq!(statuses(&right), [201]);
}

#[tokio::test]
async fn a_batch_is_looked_up_in_its_order() {
    let api = ShardedApi::start().await;
    let user = api.user().await;
    let (one, two) = (api.order(&user).await, api.order(&api.user().await).await);
    let absent = OrderId::generate(Position::new(rand::random())).to_string();
    let ids = json!([two, absent, "x", one, two]);
    let call = api
        .post("/v1/orders:batch-get")
        .without("idempotency-key")
        .header("ringwright-consistency", "strong");
    let results = call.json(&json!({"order_ids": ids})).send().await.expect(200).json();
    assert_eq!(statuses(&results), [200, 404, 400, 200, 200]);
    let found: Vec<_> = [0, 3, 4]
        .iter()
        .map(|i| results["results"][i]["order"]["order_id"].clone())
        .collect();
    assert_eq!(found, [json!(two), json!(one), json!(two)]);
    assert_eq!(results["results"][2]["problem"]["type"], "/problems/invalid-id");
}

#[tokio::test]
async fn a_batch_has_items_and_not_too_many() {
    let api = ShardedApi::start().await;
    for orders in [json!([]), json!(vec![json!({}); 101])] {
        let reply = api
            .post("/v1/orders:batch-create")
            .json(&json!({"orders": orders}))
            .send()
            .await;
        assert_eq!(reply.problem(422, "invalid-fields")["errors"][0]["pointer"], "#/orders");
    }
    for ids in [json!([]), json!(vec!["x"; 101])] {
        let reply = api
            .post("/v1/orders:batch-get")
            .json(&json!({"order_ids": ids}))
            .send()
            .await;
        assert_eq!(
            reply.problem(422, "invalid-fields")["errors"][0]["pointer"],
            "#/order_ids"
        );
    }
}
