//! The OpenAPI document: complete, sound, and as published.

use std::path::Path;

use axum::http::Method;
use serde_json::Value;

use crate::support::{Api, settings};

fn document() -> Value {
    serde_json::to_value(order_api::routes::description()).unwrap()
}

fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().unwrap();
    let methods = paths.iter().flat_map(|(path, item)| {
        item.as_object()
            .unwrap()
            .iter()
            .map(move |(method, operation)| (path.clone(), method.clone(), operation.clone()))
    });
    methods
        .filter(|(_, method, _)| ["get", "post", "patch", "put", "delete"].contains(&method.as_str()))
        .collect()
}

#[test]
fn the_published_document_is_that_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let generated = order_api::routes::description().to_pretty_json().unwrap() + "\n";
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(&path, &generated).unwrap();
    }
    let published = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        published == generated,
        "openapi.json is not up to date: run this test with UPDATE_OPENAPI=1 and look at the diff"
    );
}

#[test]
fn every_handler_that_is_described_is_a_route() {
    let described = described_handlers(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert_eq!(
        operations(&document()).len(),
        described,
        "a handler with #[utoipa::path] is missing in routes.rs"
    );
}

fn described_handlers(directory: &Path) -> usize {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let count = |path: std::path::PathBuf| match path.is_dir() {
        true => described_handlers(&path),
        false => std::fs::read_to_string(path)
            .unwrap()
            .matches("#[utoipa::path(")
            .count(),
    };
    entries.map(count).sum()
}

#[tokio::test]
async fn every_described_operation_is_served() {
    let api = Api::without_shards(settings());
    for (path, method, operation) in operations(&document()) {
        let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
        let reply = api
            .call(method.clone(), &path.replace(['{', '}'], ""))
            .without("authorization")
            .send()
            .await;
        let open = operation["security"].as_array().is_some();
        let expected = if path == "/problems/{slug}" {
            404
        } else if open {
            200
        } else {
            401
        };
        assert_eq!(reply.status, expected, "{method} {path}");
    }
}

#[test]
fn every_operation_tells_its_problems_and_its_parameters() {
    for (path, method, operation) in operations(&document()) {
        let place = format!("{method} {path}");
        assert!(
            operation["summary"].is_string() && operation["operationId"].is_string(),
            "{place}"
        );
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        let has = |name: &str| parameters.iter().any(|parameter| parameter["name"] == name);
        assert_eq!(path.contains("{id}"), has("id"), "{place}");
        if path.starts_with("/v1/") {
            assert!(
                operation["responses"]["401"].is_object() && operation["responses"]["503"].is_object(),
                "{place}"
            );
        }
        if method == "post" && path != "/v1/orders:batch-get" {
            assert!(has("Idempotency-Key"), "{place}");
        }
    }
}

#[test]
fn every_reference_leads_somewhere() {
    let document = document();
    let mut references = Vec::new();
    collect_references(&document, &mut references);
    assert!(references.len() > 20);
    for reference in references {
        let pointer = reference.strip_prefix('#').expect("references are local");
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

fn collect_references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| match value.as_str() {
            Some(reference) if name == "$ref" => found.push(reference.to_owned()),
            _ => collect_references(value, found),
        }),
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, found)),
        _ => {}
    }
}

#[tokio::test]
async fn the_document_and_its_page_are_served_without_a_key() {
    let api = Api::without_shards(settings());
    let reply = api
        .get("/openapi.json")
        .without("authorization")
        .send()
        .await
        .expect(200);
    assert_eq!(
        (reply.json()["openapi"].as_str(), reply.header("content-type")),
        (Some("3.1.0"), "application/json")
    );
    let page = api.get("/docs/").without("authorization").send().await.expect(200);
    assert!(page.header("content-type").starts_with("text/html"));
    // Vendored: the page loads nothing from elsewhere.
    let html = String::from_utf8_lossy(&page.body).into_owned();
    assert!(!html.contains("http://") && !html.contains("https://"), "{html}");
    api.get("/docs/swagger-ui-bundle.js").send().await.expect(200);
}

#[tokio::test]
async fn every_problem_type_is_explained_to_programs_and_people() {
    let api = Api::without_shards(settings());
    let all = api
        .get("/problems")
        .without("authorization")
        .send()
        .await
        .expect(200)
        .json();
    for problem in all.as_array().unwrap() {
        let path = problem["type"].as_str().unwrap();
        let one = api.get(path).send().await.expect(200).json();
        assert_eq!(&one, problem);
        let page = api.get(path).header("accept", "text/html,*/*").send().await.expect(200);
        assert!(String::from_utf8_lossy(&page.body).contains(problem["title"].as_str().unwrap()));
    }
    let reply = api.get("/problems/nothing").send().await;
    insta::assert_json_snapshot!(reply.problem(404, "problem-not-found"));
    insta::assert_json_snapshot!("all_problem_types", all);
}
