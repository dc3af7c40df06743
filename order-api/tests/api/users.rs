//! Users: created once, with contacts of their own, changed only by who has seen the current version.

use futures::future::join_all;
use row_id::{ClaimId, UserId};
use serde_json::json;

use crate::shards::ShardedApi;
use crate::support::a_user;

#[tokio::test]
async fn a_user_is_created_read_and_changed() {
    let api = ShardedApi::start().await;
    let body = a_user();
    let created = api.post("/v1/users").json(&body).send().await.expect(201);
    assert_eq!(created.header("etag"), "\"v1\"");
    for (field, value) in body.as_object().unwrap() {
        assert_eq!(&created.json()[field], value);
    }
    let path = created.header("location").to_owned();
    let read = api
        .get(&path)
        .header("ringwright-token", created.header("ringwright-token"))
        .send()
        .await
        .expect(200);
    assert_eq!((read.json(), read.header("etag")), (created.json(), "\"v1\""));

    let changed = api
        .patch(&path)
        .header("if-match", "\"v1\"")
        .json(&json!({"first_name": "Grace"}));
    let changed = changed.send().await.expect(200);
    assert_eq!(
        (changed.header("etag"), &changed.json()["first_name"]),
        ("\"v2\"", &json!("Grace"))
    );
    assert_eq!(changed.json()["last_name"], body["last_name"]);

    let late = api
        .patch(&path)
        .header("if-match", "\"v1\"")
        .json(&json!({"first_name": "Joan"}))
        .send()
        .await;
    insta::assert_json_snapshot!(late.problem(412, "precondition-failed"));
    api.patch(&path)
        .header("if-match", "*")
        .json(&json!({"first_name": "Joan"}))
        .send()
        .await
        .expect(200);
}

#[tokio::test]
async fn contacts_are_kept_in_one_form() {
    let api = ShardedApi::start().await;
    let mut body = a_user();
    let number = body["mobile_number"].as_str().unwrap().to_owned();
    body["mobile_number"] = format!("{} {}-{}", &number[..3], &number[3..6], &number[6..]).into();
    body["email_address"] = body["email_address"]
        .as_str()
        .unwrap()
        .replace("example.org", "EXAMPLE.org")
        .into();
    body["locale"] = "en_gb".into();
    let created = api.post("/v1/users").json(&body).send().await.expect(201).json();
    assert_eq!(created["mobile_number"], number);
    assert!(created["email_address"].as_str().unwrap().ends_with("@example.org"));
    assert_eq!(created["locale"], "en-GB");
}

#[tokio::test]
async fn an_address_belongs_to_one_user_whatever_its_case() {
    let api = ShardedApi::start().await;
    let first = a_user();
    api.post("/v1/users").json(&first).send().await.expect(201);
    let mut second = a_user();
    second["email_address"] = first["email_address"].as_str().unwrap().to_uppercase().into();
    let reply = api.post("/v1/users").json(&second).send().await;
    insta::assert_json_snapshot!(reply.problem(409, "contact-taken"));
    let mut third = a_user();
    third["mobile_number"] = first["mobile_number"].clone();
    let problem = api
        .post("/v1/users")
        .json(&third)
        .send()
        .await
        .problem(409, "contact-taken");
    assert_eq!(problem["errors"][0]["pointer"], "#/mobile_number");
    // What a refused user had claimed is free again.
    third["mobile_number"] = a_user()["mobile_number"].clone();
    api.post("/v1/users").json(&third).send().await.expect(201);
}

#[tokio::test]
async fn of_those_who_race_for_an_address_one_wins() {
    let api = ShardedApi::start().await;
    let address = a_user()["email_address"].clone();
    let racers = (0..6).map(|_| {
        let mut user = a_user();
        user["email_address"] = address.clone();
        api.post("/v1/users").json(&user).send()
    });
    let mut statuses: Vec<_> = join_all(racers)
        .await
        .iter()
        .map(|reply| reply.status.as_u16())
        .collect();
    statuses.sort();
    assert_eq!(statuses, [201, 409, 409, 409, 409, 409]);
}

#[tokio::test]
async fn a_changed_address_is_free_for_others_and_a_taken_one_is_refused() {
    let api = ShardedApi::start().await;
    let (first, second) = (a_user(), a_user());
    let path = api
        .post("/v1/users")
        .json(&first)
        .send()
        .await
        .expect(201)
        .header("location")
        .to_owned();
    api.post("/v1/users").json(&second).send().await.expect(201);
    let taken = json!({"email_address": second["email_address"]});
    api.patch(&path)
        .header("if-match", "\"v1\"")
        .json(&taken)
        .send()
        .await
        .problem(409, "contact-taken");
    let fresh = json!({"email_address": a_user()["email_address"]});
    api.patch(&path)
        .header("if-match", "\"v1\"")
        .json(&fresh)
        .send()
        .await
        .expect(200);
    let mut heir = a_user();
    heir["email_address"] = first["email_address"].clone();
    api.post("/v1/users").json(&heir).send().await.expect(201);
}

#[tokio::test]
async fn while_another_request_claims_an_address_nobody_else_is_told_that_it_is_taken() {
    let api = ShardedApi::start().await;
    let path = format!("/v1/users/{}", api.user().await);
    // What a process leaves that died between claiming the address and writing its user.
    let claimed = a_user();
    let claim = ClaimId::derive("email", claimed["email_address"].as_str().unwrap());
    let shard = api.store.ring().locate(claim.position()).ordinal;
    let pending = "INSERT INTO ringwright.contact_claims (claim_id, kind, user_id, state, holder)
        VALUES ($1, 'email', $2, 'pending', gen_random_uuid())";
    sqlx::query(pending)
        .bind(claim.uuid())
        .bind(UserId::generate().uuid())
        .execute(&mut api.look_into(shard).await)
        .await
        .unwrap();
    let create = api.post("/v1/users").json(&claimed).send();
    let change = api
        .patch(&path)
        .header("if-match", "\"v1\"")
        .json(&json!({"email_address": claimed["email_address"]}))
        .send();
    let (create, change) = tokio::join!(create, change);
    for refused in [create, change] {
        refused.problem(409, "contact-claim-pending");
        assert!(refused.headers.contains_key("retry-after"));
    }
}

#[tokio::test]
async fn a_change_may_be_based_on_any_of_several_versions() {
    let api = ShardedApi::start().await;
    let path = format!("/v1/users/{}", api.user().await);
    let rename = |tags: &str, name: &str| {
        api.patch(&path)
            .header("if-match", tags)
            .json(&json!({"first_name": name}))
            .send()
    };
    let changed = rename("\"v7\", \"v1\"", "Grace").await.expect(200);
    assert_eq!(changed.header("etag"), "\"v2\"");
    for tags in ["\"v7\", \"v1\"", "W/\"v2\"", "\"v02\""] {
        rename(tags, "Joan").await.problem(412, "precondition-failed");
    }
    rename("*, \"v2\"", "Joan").await.problem(400, "malformed-request");
}

#[tokio::test]
async fn changes_of_whatever_is_there_all_happen_though_they_meet() {
    let api = ShardedApi::start().await;
    let path = format!("/v1/users/{}", api.user().await);
    let change = |body| api.patch(&path).header("if-match", "*").json(&body).send();
    let (first, last) = tokio::join!(
        change(json!({"first_name": "Grace"})),
        change(json!({"last_name": "Hopper"}))
    );
    first.expect(200);
    last.expect(200);
    let user = api
        .get(&path)
        .header("ringwright-consistency", "strong")
        .send()
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&user["first_name"], &user["last_name"]),
        (&json!("Grace"), &json!("Hopper"))
    );
}

#[tokio::test]
async fn a_field_cannot_be_taken_away() {
    let api = ShardedApi::start().await;
    let path = format!("/v1/users/{}", api.user().await);
    let patch = api
        .patch(&path)
        .header("if-match", "\"v1\"")
        .header("content-type", "application/merge-patch+json");
    let problem = patch
        .body(r#"{"locale":null}"#)
        .send()
        .await
        .problem(422, "invalid-fields");
    assert_eq!(problem["errors"][0]["pointer"], "#/locale");
}

#[tokio::test]
async fn a_user_that_is_not_there_is_not_found() {
    let api = ShardedApi::start().await;
    let id = UserId::generate().to_string();
    let path = format!("/v1/users/{id}");
    let mut problem = api.get(&path).send().await.problem(404, "user-not-found");
    problem["detail"] = problem["detail"].as_str().unwrap().replace(&id, "{id}").into();
    insta::assert_json_snapshot!(problem);
    let patch = api
        .patch(&path)
        .header("if-match", "\"v1\"")
        .json(&json!({"first_name": "Ada"}));
    patch.send().await.problem(404, "user-not-found");
}
