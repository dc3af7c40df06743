//! What a read must see, and what its answer says.

use serde_json::json;

use crate::shards::ShardedApi;
use crate::support::ALL;

#[tokio::test]
async fn who_sends_the_token_of_a_write_reads_that_write() {
    let api = ShardedApi::start().await;
    let path = format!("/v1/users/{}", api.user().await);
    for version in 1..20 {
        let tag = format!("\"v{version}\"");
        let patch = api
            .patch(&path)
            .header("if-match", &tag)
            .json(&json!({"first_name": format!("Ada {version}")}));
        let written = patch.send().await.expect(200);
        let read = api
            .get(&path)
            .header("ringwright-token", written.header("ringwright-token"))
            .send()
            .await
            .expect(200);
        assert_eq!(read.json(), written.json());
    }
}

#[tokio::test]
async fn tokens_of_several_shards_go_together_in_one_header_or_in_several() {
    let api = ShardedApi::start().await;
    let mut tokens = Vec::new();
    let mut users = Vec::new();
    for _ in 0..6 {
        let user = api
            .post("/v1/users")
            .json(&crate::support::a_user())
            .send()
            .await
            .expect(201);
        tokens.push(user.header("ringwright-token").to_owned());
        users.push(user.header("location").to_owned());
    }
    for user in users {
        api.get(&user)
            .header("ringwright-token", &tokens.join("."))
            .send()
            .await
            .expect(200);
    }
}

#[tokio::test]
async fn the_ring_is_shown_with_its_shards_and_their_members() {
    let api = ShardedApi::start().await;
    api.user().await;
    let ring = api
        .get("/v1/ring?ranges=true")
        .bearer(ALL)
        .send()
        .await
        .expect(200)
        .json();
    assert_eq!(ring["epoch"], 1);
    let shards = ring["shards"].as_array().unwrap();
    let share: f64 = shards.iter().map(|shard| shard["share"].as_f64().unwrap()).sum();
    assert!((share - 1.0).abs() < 1e-9 && shards.len() == 2, "{ring}");
    let covered: u64 = ring["ranges"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["hi"].as_u64().unwrap() - r["lo"].as_u64().unwrap())
        .sum();
    assert_eq!(covered, 1 << 32);
    assert!(api.get("/v1/ring").send().await.expect(200).json()["ranges"].is_null());
    api.get("/v1/ring?range=true")
        .send()
        .await
        .problem(400, "malformed-request");
}

#[tokio::test]
async fn every_answer_carries_its_request_id_the_clients_own_if_it_sent_one() {
    let api = ShardedApi::start().await;
    let path = format!("/v1/users/{}", api.user().await);
    let reply = api
        .get(&path)
        .header("x-request-id", "shop-7")
        .header("ringwright-consistency", "strong");
    assert_eq!(reply.send().await.expect(200).header("x-request-id"), "shop-7");
    assert_eq!(api.get("/nothing").send().await.header("x-request-id").len(), 32);
    let strange = api
        .get("/nothing")
        .header("x-request-id", &"x".repeat(200))
        .send()
        .await;
    assert_eq!(strange.header("x-request-id").len(), 32);
}
