//! Orders: on the shard of their user, through their states, and in lists.

use futures::future::join_all;
use ring::Ordinal;
use row_id::{OrderId, Position, UserId};
use serde_json::json;

use crate::shards::ShardedApi;
use crate::support::an_order;

#[tokio::test]
async fn an_order_is_placed_and_read() {
    let api = ShardedApi::start().await;
    let user = api.user().await;
    let placed = api
        .post(&format!("/v1/users/{user}/orders"))
        .json(&an_order())
        .send()
        .await
        .expect(201);
    let order = placed.json();
    assert_eq!(
        (&order["total_minor"], &order["status"], &order["user_id"]),
        (&json!(3998), &json!("created"), &json!(user))
    );
    assert_eq!(order["order_details"], an_order()["order_details"]);
    let read = api
        .get(placed.header("location"))
        .header("ringwright-token", placed.header("ringwright-token"));
    let read = read.send().await.expect(200);
    assert_eq!((read.json(), read.header("etag")), (order, placed.header("etag")));
}

#[tokio::test]
async fn a_users_rows_lie_on_the_shard_that_the_ring_names_and_nowhere_else() {
    let api = ShardedApi::start().await;
    let mut seen = [0; 2];
    for _ in 0..12 {
        let user = api.user().await;
        let order = api.order(&user).await;
        let owner = api
            .store
            .ring()
            .locate(user.parse::<UserId>().unwrap().position())
            .ordinal;
        for shard in [Ordinal(0), Ordinal(1)] {
            let expected = i64::from(shard == owner);
            let users = api
                .count(shard, "SELECT count(*) FROM shop.users WHERE user_id = $1", &user)
                .await;
            let orders = api
                .count(shard, "SELECT count(*) FROM shop.orders WHERE order_id = $1", &order)
                .await;
            assert_eq!((users, orders), (expected, expected), "user {user} on shard {shard}");
        }
        seen[usize::from(owner.get())] += 1;
    }
    assert!(
        seen.iter().all(|count| *count > 0),
        "12 users on one shard of two happen once in 2048 runs: {seen:?}"
    );
}

#[tokio::test]
async fn an_order_is_processed_or_cancelled_once() {
    let api = ShardedApi::start().await;
    let user = api.user().await;
    let order = format!("/v1/orders/{}", api.order(&user).await);
    let processed = api.post(&format!("{order}/process")).send().await.expect(200);
    assert_eq!(
        (&processed.json()["status"], processed.header("etag")),
        (&json!("processed"), "\"v2\"")
    );
    for operation in ["process", "cancel"] {
        api.post(&format!("{order}/{operation}"))
            .send()
            .await
            .problem(409, "order-state-conflict");
    }
    let other = format!("/v1/orders/{}", api.order(&user).await);
    let cancelled = api
        .post(&format!("{other}/cancel"))
        .json(&json!({}))
        .send()
        .await
        .expect(200);
    assert_eq!(cancelled.json()["status"], "cancelled");
    api.post(&format!("{other}/process"))
        .send()
        .await
        .problem(409, "order-state-conflict");
}

#[tokio::test]
async fn a_change_tied_to_a_version_fails_on_another() {
    let api = ShardedApi::start().await;
    let order = format!("/v1/orders/{}", api.order(&api.user().await).await);
    let process = || api.post(&format!("{order}/process"));
    process()
        .header("if-match", "\"v7\"")
        .send()
        .await
        .problem(412, "precondition-failed");
    process()
        .header("if-match", "\"not-ours\"")
        .send()
        .await
        .problem(412, "precondition-failed");
    process()
        .header("if-match", "\"v9\", W/\"v1\"")
        .send()
        .await
        .problem(412, "precondition-failed");
    process().header("if-match", "\"v9\", \"v1\"").send().await.expect(200);
}

#[tokio::test]
async fn orders_of_nobody_and_orders_that_are_not_there_are_not_found() {
    let api = ShardedApi::start().await;
    let orders = format!("/v1/users/{}/orders", UserId::generate());
    api.post(&orders)
        .json(&an_order())
        .send()
        .await
        .problem(404, "user-not-found");
    api.get(&orders).send().await.problem(404, "user-not-found");
    let order = format!("/v1/orders/{}", OrderId::generate(Position::new(rand::random())));
    api.get(&order).send().await.problem(404, "order-not-found");
    api.get(&format!("{order}/notifications"))
        .send()
        .await
        .problem(404, "order-not-found");
    for operation in ["process", "cancel", "invoice"] {
        api.post(&format!("{order}/{operation}"))
            .send()
            .await
            .problem(404, "order-not-found");
    }
}

#[tokio::test]
async fn a_list_is_newest_first_and_its_cursors_lead_through_all_of_it_once() {
    let api = ShardedApi::start().await;
    let user = api.user().await;
    let list = format!("/v1/users/{user}/orders");
    assert_eq!(api.get(&list).send().await.expect(200).json(), json!({"orders": []}));
    let mut placed = join_all((0..7).map(|_| api.order(&user))).await;
    placed.sort_by(|a, b| b.cmp(a));

    let (mut found, mut path, mut parts) = (Vec::new(), format!("{list}?limit=3"), 0);
    loop {
        let part = api
            .get(&path)
            .header("ringwright-consistency", "strong")
            .send()
            .await
            .expect(200)
            .json();
        let orders = part["orders"].as_array().unwrap();
        assert!(orders.len() <= 3);
        found.extend(
            orders
                .iter()
                .map(|order| order["order_id"].as_str().unwrap().to_owned()),
        );
        parts += 1;
        match part["next_cursor"].as_str() {
            Some(cursor) => path = format!("{list}?limit=3&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!((found, parts), (placed, 3));
}

#[tokio::test]
async fn a_cursor_holds_for_its_own_list_only() {
    let api = ShardedApi::start().await;
    let user = api.user().await;
    join_all((0..2).map(|_| api.order(&user))).await;
    let list = api
        .get(&format!("/v1/users/{user}/orders?limit=1"))
        .header("ringwright-consistency", "strong");
    let cursor = list.send().await.expect(200).text("next_cursor");
    let other = api.user().await;
    api.get(&format!("/v1/users/{other}/orders?cursor={cursor}"))
        .send()
        .await
        .problem(400, "invalid-cursor");
}

#[tokio::test]
async fn an_order_nobody_was_told_of_has_no_notifications() {
    let api = ShardedApi::start().await;
    let order = api.order(&api.user().await).await;
    let reply = api
        .get(&format!("/v1/orders/{order}/notifications"))
        .header("ringwright-consistency", "strong");
    assert_eq!(reply.send().await.expect(200).json(), json!({"emails": [], "sms": []}));
}

#[tokio::test]
async fn one_shard_away_is_no_matter_of_the_others_users() {
    let mut api = ShardedApi::start().await;
    let mut users = Vec::new();
    while users.len() < 20 {
        users.push(api.user().await);
    }
    api.cut_off(Ordinal(1));
    for user in users {
        let owner = api
            .store
            .ring()
            .locate(user.parse::<UserId>().unwrap().position())
            .ordinal;
        if owner == Ordinal(0) {
            api.order(&user).await;
        }
    }
    api.get("/readyz").send().await.expect(200);
}
