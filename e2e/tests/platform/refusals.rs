//! What is wrong is refused, clearly, and never with a 5xx.

use anyhow::{Result, ensure};
use crds::OrderCluster;
use e2e::api::{Customer, send, two_teapots};
use e2e::kubernetes::refusal;
use e2e::platform::{self, CLUSTER};
use e2e::{Api, Platform, Reply};
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use reqwest::Method;
use serde_json::{Value, json};

#[tokio::test]
async fn invalid_requests_get_a_clear_refusal() -> Result<()> {
    let platform = Platform::shared().await?;
    let api = platform.api().await?;
    let user = api.create_user(&Customer::new()).await?;
    let order = api.create_order(&user, "order").await?;
    let mut mistyped: Vec<char> = user.chars().collect();
    mistyped[0] = if mistyped[0] == '0' { '1' } else { '0' };
    let mistyped: String = mistyped.into_iter().collect();

    expect(api.get("/v1/users/none").await?, 400, "invalid-id")?;
    expect(api.get(&format!("/v1/users/{mistyped}")).await?, 400, "invalid-id")?;
    expect(api.get("/v1/nothing").await?, 404, "route-not-found")?;
    expect(
        api.get(&format!("/v1/users/{user}/orders?cursor=abc")).await?,
        400,
        "invalid-cursor",
    )?;
    let path = format!("/v1/orders/{order}");
    let with_token = api.request(Method::GET, &path).header("ringwright-token", "abc");
    expect(send(with_token).await?, 400, "invalid-consistency-token")?;
    expect(api.with_bearer("wrong").get(&path).await?, 401, "unauthenticated")?;
    let reader = api.with_bearer(platform::reader_bearer());
    ensure!(reader.get(&path).await?.status == 200, "a key that may read cannot");
    expect(
        reader.post(&format!("{path}/process"), "reader", None).await?,
        403,
        "insufficient-scope",
    )?;

    let orders = format!("/v1/users/{user}/orders");
    let keyless = api.request(Method::POST, &orders).json(&two_teapots());
    expect(send(keyless).await?, 400, "idempotency-key-missing")?;
    let mut other = two_teapots();
    other["currency"] = "CHF".into();
    expect(
        api.post(&orders, "order", Some(&other)).await?,
        422,
        "idempotency-key-reused",
    )?;
    let again = api.post(&orders, "order", Some(&two_teapots())).await?;
    ensure!(
        again.text.contains(&order),
        "the repeat did not get its first answer: {}",
        again.text
    );
    other["currency"] = "XXXX".into();
    let refused = api.post(&orders, "currency", Some(&other)).await?;
    ensure!(
        refused.text.contains("/currency"),
        "the problem does not point at the field: {}",
        refused.text
    );
    expect(refused, 422, "invalid-fields")?;
    let stale = api
        .request(Method::PATCH, &format!("/v1/users/{user}"))
        .header("if-match", "\"99\"");
    expect(
        send(stale.json(&json!({"first_name": "Eve"}))).await?,
        412,
        "precondition-failed",
    )
}

fn expect(reply: Reply, status: u16, problem: &str) -> Result<()> {
    let found = (reply.status.as_u16(), reply.problem()?);
    ensure!(
        found == (status, problem.to_owned()),
        "expected {status} {problem}, got {found:?}: {}",
        reply.text
    );
    Ok(())
}

#[tokio::test]
async fn a_broken_body_never_becomes_a_server_error() -> Result<()> {
    let platform = Platform::shared().await?;
    let api = platform.api().await?;
    let user = api.create_user(&Customer::new()).await?;
    let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    let bodies: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"{".to_vec(),
        b"null".to_vec(),
        b"[]".to_vec(),
        b"\xff\xfe\x00".to_vec(),
        deep.into_bytes(),
        br#"{"currency": "EUR", "currency": "EUR"}"#.to_vec(),
        br#"{"currency": "\ud800", "order_details": {"lines": []}}"#.to_vec(),
        json!({"currency": "EUR", "order_details": line("a\u{0}b", 1, 1)})
            .to_string()
            .into_bytes(),
        json!({"currency": "EUR", "order_details": line("a", i64::MAX, i64::MAX)})
            .to_string()
            .into_bytes(),
        json!({"currency": "EUR", "order_details": line("a", -1, 1)})
            .to_string()
            .into_bytes(),
        br#"{"currency": "EUR", "order_details": {"lines": [{"quantity": 1e400}]}}"#.to_vec(),
        // Over the limit of 1 MiB.
        vec![b' '; 3 << 20],
    ];
    for path in [
        "/v1/users".to_owned(),
        format!("/v1/users/{user}/orders"),
        "/v1/orders:batch-create".to_owned(),
    ] {
        for (number, body) in bodies.iter().enumerate() {
            let reply = broken(&api, &path, number, body).await?;
            ensure!(
                reply.status.is_client_error(),
                "body {number} to {path} got {}: {}",
                reply.status,
                reply.text
            );
            reply.problem()?;
        }
    }
    Ok(())
}

fn line(description: &str, quantity: i64, price: i64) -> Value {
    json!({"lines": [{"sku": "A", "description": description, "quantity": quantity, "unit_price_minor": price}]})
}

async fn broken(api: &Api, path: &str, number: usize, body: &[u8]) -> Result<Reply> {
    let request = api
        .request(Method::POST, path)
        .header("idempotency-key", format!("broken-{number}"));
    send(request.header("content-type", "application/json").body(body.to_vec())).await
}

#[tokio::test]
async fn invalid_specifications_are_refused_by_the_api_server() -> Result<()> {
    let platform = Platform::shared().await?;
    let clusters = platform.kubernetes.objects::<OrderCluster>(&platform.namespace);
    // Untyped: the type would not let these through. By POST, since server-side apply has words of its own for some.
    let kind = ApiResource::erase::<OrderCluster>(&());
    let untyped: kube::Api<DynamicObject> =
        kube::Api::namespaced_with(platform.kubernetes.client.clone(), &platform.namespace, &kind);
    let cases = [
        ("/spec/shards", json!(0), "shards"),
        ("/spec/shards", json!(1001), "shards"),
        ("/spec/postgres/instances", json!(0), "instances"),
        ("/spec/postgres/durability", json!("maybe"), "durability"),
        ("/spec/postgres/storage/size", json!("lots"), "size"),
        (
            "/spec/postgres/parameters",
            json!({"wal_level": "minimal"}),
            "operator owns",
        ),
        (
            "/spec/postgres/parameters",
            json!({"wokr_mem": "64MB", "auto_explain.log_analyze": "on"}),
            "spelling",
        ),
        (
            "/spec/shardOverrides",
            json!([{"ordinal": 0}, {"ordinal": 0}]),
            "ordinal",
        ),
        ("/metadata/name", json!("shop-1"), "name"),
    ];
    for (pointer, value, word) in cases {
        let mut cluster = platform::cluster(3, 2);
        cluster["metadata"]["name"] = "refused".into();
        cluster["spec"]["shardOverrides"] = json!([]);
        let field = cluster
            .pointer_mut(pointer)
            .ok_or_else(|| anyhow::anyhow!("no field {pointer}"))?;
        *field = value.clone();
        let cluster: DynamicObject = serde_json::from_value(cluster)?;
        let message = refusal(untyped.create(&PostParams::default(), &cluster).await)?;
        ensure!(
            message.contains(word),
            "{pointer} = {value} was refused with {message:?}, which does not say {word}"
        );
    }
    let mut smaller = platform::cluster(3, 2);
    smaller["spec"]["postgres"]["storage"]["size"] = "128Mi".into();
    let shrunk = clusters
        .patch(CLUSTER, &PatchParams::apply("e2e").force(), &Patch::Apply(&smaller))
        .await;
    ensure!(
        refusal(shrunk)?.contains("shrink"),
        "shrinking a volume is refused with its reason"
    );
    Ok(())
}

#[tokio::test]
async fn shards_are_made_by_the_operator_only() -> Result<()> {
    let platform = Platform::shared().await?;
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("ringwright.dev", "v1alpha1", "OrderShard"));
    let shards: kube::Api<DynamicObject> =
        kube::Api::namespaced_with(platform.kubernetes.client.clone(), &platform.namespace, &kind);
    let change = json!({"metadata": {"labels": {"by": "hand"}}});
    let changed = shards
        .patch("shop-0", &PatchParams::default(), &Patch::Merge(&change))
        .await;
    ensure!(
        refusal(changed)?.contains("operator only"),
        "an OrderShard could be changed by hand"
    );
    let deleted = shards.delete("shop-0", &kube::api::DeleteParams::default()).await;
    ensure!(
        refusal(deleted)?.contains("operator only"),
        "an OrderShard could be deleted by hand"
    );
    Ok(())
}
