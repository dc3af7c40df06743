//! The sample's bearer key for the order API: made once, kept in the cluster, never printed.

use std::fmt;
use std::fs::File;
use std::io::Read;

use anyhow::{Context, Result};
use installation::api_key::{self, ALL_SCOPES, hex};
use serde_json::json;

use crate::place::Place;
use crate::platform::{NAMESPACE, apply};
use crate::stage::Stage;

/// The key itself is kept here, for people; the API knows only its digest.
const SECRET: &str = "sample-api-key";

/// A bearer key. Does not show itself.
pub(crate) struct ApiKey(String);

impl fmt::Debug for ApiKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ApiKey(..)")
    }
}

impl ApiKey {
    /// The key in the cluster, or a new one. Either way the API accepts it afterwards.
    pub(crate) fn find_or_make(stage: &Stage, place: &Place) -> Result<Self> {
        let template = "--output=go-template={{.data.token | base64decode}}";
        let get = [
            "get",
            "secret",
            SECRET,
            "--namespace",
            NAMESPACE,
            "--ignore-not-found",
            template,
        ];
        let found = stage.read(&mut place.kubectl(&get))?;
        let key = if found.trim().is_empty() {
            Self::generate()?
        } else {
            Self(found.trim().to_owned())
        };
        let entry = api_key::entry(&key.0, &ALL_SCOPES);
        apply(stage, place, &secret(SECRET, "token", &key.0))?;
        apply(stage, place, &secret(api_key::SECRET, "sample", &entry))?;
        Ok(key)
    }

    fn generate() -> Result<Self> {
        let mut bytes = [0; 32];
        File::open("/dev/urandom")
            .and_then(|mut random| random.read_exact(&mut bytes))
            .context("reading /dev/urandom")?;
        Ok(Self(hex(&bytes)))
    }

    /// The value of the `Authorization` header.
    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// The command that shows the key.
    pub(crate) fn reveal_command(place: &Place) -> String {
        let template = "'go-template={{.data.token | base64decode}}'";
        format!(
            "{} get secret {SECRET} --namespace {NAMESPACE} --output {template}",
            place.typed_kubectl()
        )
    }
}

fn secret(name: &str, key: &str, value: &str) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "stringData": {key: value},
    })
}
