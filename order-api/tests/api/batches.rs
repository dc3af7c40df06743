//! Batches: each item with its own outcome.

use row_id::{OrderId, Position, UserId};
use serde_json::{Value, json};

use crate::shards::ShardedApi;
use crate::support::{an_order, fresh_key};

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

#[tokio::test]
async fn a_repeated_batch_repeats_each_item_by_itself() {
    let api = ShardedApi::start().await;
    let (user, key) = (api.user().await, fresh_key());
    let send = |orders: Value| {
        let call = api.post("/v1/orders:batch-create").header("idempotency-key", &key);
        call.json(&json!({"orders": orders})).send()
    };
    let first = send(json!([order_of(&user), order_of(&user)])).await.expect(200).json();
    assert_eq!(statuses(&first), [201, 201]);
    assert_ne!(
        first["results"][0]["order"]["order_id"],
        first["results"][1]["order"]["order_id"]
    );
    // One item is new, one is another order under its old key.
    let mut changed = order_of(&user);
    changed["order_details"]["note"] = "second thoughts".into();
    let again = send(json!([order_of(&user), changed, order_of(&user)]))
        .await
        .expect(200)
        .json();
    assert_eq!(statuses(&again), [201, 422, 201]);
    assert_eq!(
        (&again["results"][0]["replayed"], &again["results"][2]["replayed"]),
        (&json!(true), &Value::Null)
    );
    assert_eq!(again["results"][0]["order"], first["results"][0]["order"]);
    assert_eq!(
        again["results"][1]["problem"]["type"],
        "/problems/idempotency-key-reused"
    );
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
