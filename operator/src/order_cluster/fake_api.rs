//! An API server in memory, with as much of the real one's behaviour as the controller's scenarios rest on: resource
//! versions and conflicts, generations, server-side apply of what one manager owns, finalizers.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use clap::Parser as _;
use http::{Method, Request, Response, StatusCode};
use kube::{Client, client::Body};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tower::service_fn;

use crate::{config::Config, context::Context, metrics::Metrics};

/// The server; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct FakeApi(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// By path, without the query.
    objects: BTreeMap<String, Value>,
    version: u64,
    /// Verb and path of every write that was answered with success, events aside.
    writes: Vec<String>,
    /// Reasons of the events that were written.
    events: Vec<String>,
    /// How many more writes succeed; the rest are answered with an error.
    writes_left: Option<usize>,
}

type Answer = (StatusCode, Value);

impl FakeApi {
    pub(crate) fn client(&self) -> Client {
        let api = self.clone();
        let service = service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await?;
                let body = if body.is_empty() {
                    Value::Null
                } else {
                    serde_json::from_slice(&body)?
                };
                let apply = parts
                    .headers
                    .get("content-type")
                    .is_some_and(|t| t == "application/apply-patch+yaml");
                let query = parts.uri.query().unwrap_or_default();
                let (status, value) = api.answer(&parts.method, parts.uri.path(), query, apply, body);
                let response = Response::builder()
                    .status(status)
                    .body(Body::from(serde_json::to_vec(&value)?))?;
                Ok::<_, tower::BoxError>(response)
            }
        });
        Client::new(service, "ns")
    }

    /// What a controller works with, on this server.
    pub(crate) fn context(&self) -> Context {
        let metrics = Metrics::register(&mut Registry::default());
        Context::new(self.client(), Config::parse_from(["operator"]), metrics)
    }

    /// Puts an object there, as a person would.
    pub(crate) fn put(&self, path: &str, object: Value) {
        self.with(|state| drop(state.store(path, object)));
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.with(|state| state.objects.get(path).cloned())
    }

    /// Changes an object, as a person or another controller would.
    pub(crate) fn edit(&self, path: &str, change: impl FnOnce(&mut Value)) {
        self.with(|state| {
            let mut object = state.objects.get(path).unwrap_or_else(|| panic!("no {path}")).clone();
            change(&mut object);
            state.store(path, object);
        });
    }

    /// Takes an object away, finalizers or not.
    pub(crate) fn remove(&self, path: &str) {
        self.with(|state| drop(state.objects.remove(path).unwrap_or_else(|| panic!("no {path}"))));
    }

    /// Deletes an object, as `kubectl delete` does.
    pub(crate) fn delete(&self, path: &str) {
        self.with(|state| drop(state.delete(path)));
    }

    pub(crate) fn paths(&self) -> Vec<String> {
        self.with(|state| state.objects.keys().cloned().collect())
    }

    /// The writes since the last call.
    pub(crate) fn take_writes(&self) -> Vec<String> {
        self.with(|state| std::mem::take(&mut state.writes))
    }

    pub(crate) fn events(&self) -> Vec<String> {
        self.with(|state| state.events.clone())
    }

    /// Lets `left` more writes through; `None`: all.
    pub(crate) fn fail_after(&self, left: Option<usize>) {
        self.with(|state| state.writes_left = left);
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock().unwrap())
    }

    fn answer(&self, method: &Method, path: &str, query: &str, apply: bool, body: Value) -> Answer {
        self.with(|state| {
            if method == Method::GET {
                return state.read(path, query);
            }
            if path.ends_with("/events") {
                state
                    .events
                    .push(body["reason"].as_str().unwrap_or_default().to_owned());
                return (StatusCode::CREATED, body);
            }
            if let Some(left) = &mut state.writes_left {
                match left.checked_sub(1) {
                    Some(rest) => *left = rest,
                    None => return refusal(StatusCode::INTERNAL_SERVER_ERROR, "the operator was killed here"),
                }
            }
            let answer = state.write(method, path, apply, body);
            if answer.0.is_success() {
                state.writes.push(format!("{method} {path}"));
            }
            answer
        })
    }
}

impl State {
    fn read(&self, path: &str, query: &str) -> Answer {
        if let Some(object) = self.objects.get(path) {
            return (StatusCode::OK, object.clone());
        }
        // A collection has an even number of parts behind the namespace: `.../namespaces/ns/secrets`.
        let within = path.split_once("/namespaces/").map_or("", |(_, within)| within);
        if within.matches('/').count() != 1 {
            return refusal(StatusCode::NOT_FOUND, path);
        }
        let prefix = format!("{path}/");
        let cluster = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("fieldSelector=spec.cluster%3D"))
            .map(str::to_owned);
        let items: Vec<&Value> = self
            .objects
            .iter()
            .filter(|(path, _)| path.starts_with(&prefix))
            .map(|(_, object)| object)
            .filter(|object| {
                cluster
                    .as_ref()
                    .is_none_or(|cluster| object["spec"]["cluster"] == **cluster)
            })
            .collect();
        (StatusCode::OK, json!({"metadata": {}, "items": items}))
    }

    fn write(&mut self, method: &Method, path: &str, apply: bool, body: Value) -> Answer {
        match method.as_str() {
            "POST" => {
                let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap_or_default());
                if self.objects.contains_key(&path) {
                    return refusal(StatusCode::CONFLICT, "it exists");
                }
                (StatusCode::CREATED, self.store(&path, body))
            }
            "DELETE" => self.delete(path),
            _ => {
                let path = path.strip_suffix("/status").unwrap_or(path);
                let Some(found) = self.objects.get(path).cloned() else {
                    if apply && body.get("status").is_none() {
                        return (StatusCode::CREATED, self.store(path, body));
                    }
                    return refusal(StatusCode::NOT_FOUND, path);
                };
                let read = &body["metadata"]["resourceVersion"];
                if !read.is_null() && *read != found["metadata"]["resourceVersion"] {
                    return refusal(StatusCode::CONFLICT, "it was changed since");
                }
                let next = if method == Method::PUT {
                    body
                } else {
                    merged(found, &body, apply)
                };
                (StatusCode::OK, self.store(path, next))
            }
        }
    }

    fn store(&mut self, path: &str, mut object: Value) -> Value {
        let found = self.objects.get(path);
        let was = |key: &str| {
            found
                .map(|found| found["metadata"][key].clone())
                .filter(|value| !value.is_null())
        };
        let generation = match found {
            Some(found) if found["spec"] == object["spec"] => was("generation").unwrap_or(json!(1)),
            Some(_) => json!(was("generation").and_then(|g| g.as_i64()).unwrap_or(1) + 1),
            None => json!(1),
        };
        self.version += 1;
        let uid = was("uid").unwrap_or_else(|| match &object["metadata"]["uid"] {
            Value::Null => json!(format!("uid-{}", self.version)),
            given => given.clone(),
        });
        object["metadata"]["generation"] = generation;
        object["metadata"]["uid"] = uid;
        if found.is_some_and(|found| same(found, &object)) {
            return self.objects[path].clone();
        }
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let finalizers = object["metadata"]["finalizers"].as_array().map_or(0, Vec::len);
        if finalizers == 0 && !object["metadata"]["deletionTimestamp"].is_null() {
            self.objects.remove(path);
        } else {
            self.objects.insert(path.to_owned(), object.clone());
        }
        object
    }

    fn delete(&mut self, path: &str) -> Answer {
        let Some(mut object) = self.objects.get(path).cloned() else {
            return refusal(StatusCode::NOT_FOUND, path);
        };
        object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        (StatusCode::OK, self.store(path, object))
    }
}

/// Equal but for the version: such a write changes nothing.
fn same(one: &Value, other: &Value) -> bool {
    let without = |object: &Value| {
        let mut object = object.clone();
        object["metadata"]["resourceVersion"] = Value::Null;
        object
    };
    without(one) == without(other)
}

/// A merge, in which the parts that only the operator owns take the place of what was there.
fn merged(mut into: Value, patch: &Value, apply: bool) -> Value {
    if let (Value::Object(into), Value::Object(patch)) = (&mut into, patch) {
        for (key, value) in patch {
            if !apply && value.is_null() {
                into.remove(key);
                continue;
            }
            let whole = apply && matches!(key.as_str(), "spec" | "data" | "status" | "ownerReferences");
            match into.get(key) {
                Some(found) if found.is_object() && !whole => {
                    let next = merged(found.clone(), value, apply);
                    into.insert(key.clone(), next);
                }
                _ => drop(into.insert(key.clone(), value.clone())),
            }
        }
    }
    into
}

fn refusal(status: StatusCode, message: &str) -> Answer {
    let code = status.as_u16();
    let reason = match code {
        404 => "NotFound",
        409 => "Conflict",
        _ => "InternalError",
    };
    (
        status,
        json!({"kind": "Status", "status": "Failure", "message": message, "reason": reason, "code": code}),
    )
}
