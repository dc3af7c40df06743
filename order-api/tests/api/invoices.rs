//! Invoices: one an order, fixed when generated, as JSON and PDF.

use row_id::{InvoiceId, Position};
use serde_json::json;

use crate::shards::ShardedApi;

async fn invoice(api: &ShardedApi, order: &str) -> String {
    let generated = api
        .post(&format!("/v1/orders/{order}/invoice"))
        .send()
        .await
        .expect(201);
    generated.header("location").to_owned()
}

#[tokio::test]
async fn an_invoice_shows_what_was_ordered_and_by_whom() {
    let api = ShardedApi::start().await;
    let user = api.user().await;
    let order = api.order(&user).await;
    let path = invoice(&api, &order).await;
    let read = api
        .get(&path)
        .header("ringwright-consistency", "strong")
        .send()
        .await
        .expect(200);
    let (body, details) = (read.json(), &read.json()["invoice_details"]);
    assert_eq!((read.header("etag"), &body["order_id"]), ("\"v1\"", &json!(order)));
    assert_eq!(
        (&details["total_minor"], &details["currency"]),
        (&json!(3998), &json!("EUR"))
    );
    assert_eq!(details["lines"][0]["amount_minor"], 3998);
    assert_eq!(
        (&details["customer"]["first_name"], &details["seller"]["name"]),
        (&json!("Ada"), &json!("Tea & Co"))
    );
    assert_eq!(details["reference"], "web-2041");

    // A later change of the user does not change what was billed.
    let patch = api
        .patch(&format!("/v1/users/{user}"))
        .header("if-match", "\"v1\"")
        .json(&json!({"first_name": "Grace"}));
    patch.send().await.expect(200);
    assert_eq!(
        &api.get(&path)
            .header("ringwright-consistency", "strong")
            .send()
            .await
            .json(),
        &body
    );
}

#[tokio::test]
async fn an_order_is_invoiced_once_and_a_second_try_is_told_where_the_invoice_is() {
    let api = ShardedApi::start().await;
    let order = api.order(&api.user().await).await;
    let path = invoice(&api, &order).await;
    let second = api.post(&format!("/v1/orders/{order}/invoice")).send().await;
    second.problem(409, "invoice-exists");
    assert_eq!(second.header("location"), path);
}

#[tokio::test]
async fn a_cancelled_order_is_not_invoiced() {
    let api = ShardedApi::start().await;
    let order = format!("/v1/orders/{}", api.order(&api.user().await).await);
    api.post(&format!("{order}/cancel")).send().await.expect(200);
    api.post(&format!("{order}/invoice"))
        .send()
        .await
        .problem(409, "order-state-conflict");
}

#[tokio::test]
async fn the_document_is_to_be_had_by_accept_and_by_path() {
    let api = ShardedApi::start().await;
    let path = invoice(&api, &api.order(&api.user().await).await).await;
    let strong = |path: &str| api.get(path).header("ringwright-consistency", "strong");
    let by_accept = strong(&path)
        .header("accept", "application/pdf")
        .send()
        .await
        .expect(200);
    let by_path = strong(&format!("{path}/pdf")).send().await.expect(200);
    assert_eq!(by_accept.header("content-type"), "application/pdf");
    assert!(by_accept.body.starts_with(b"%PDF-") && by_accept.body.len() > 1000);
    assert_eq!(by_accept.body, by_path.body);
    assert!(
        by_path
            .header("content-disposition")
            .starts_with("inline; filename=\"invoice-")
    );
    let html = strong(&path).header("accept", "text/html").send().await;
    insta::assert_json_snapshot!(html.problem(406, "not-acceptable"));
}

#[tokio::test]
async fn an_invoice_that_is_not_there_is_not_found() {
    let api = ShardedApi::start().await;
    let path = format!("/v1/invoices/{}", InvoiceId::generate(Position::new(rand::random())));
    api.get(&path).send().await.problem(404, "invoice-not-found");
    api.get(&format!("{path}/pdf"))
        .send()
        .await
        .problem(404, "invoice-not-found");
}
