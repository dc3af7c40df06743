//! The definitions as YAML, and the checks that hold for every one of them.

use kube::CustomResourceExt;
use serde_yaml_ng::Value;

use crate::{OrderCluster, OrderShard};

/// One generated file.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// Name of the file in `crds/`.
    pub file: &'static str,
    /// Its content.
    pub yaml: String,
}

/// The definitions of all resources, as they lie in `crds/`.
///
/// # Errors
/// When a definition cannot be written as YAML, which a test rules out.
pub fn manifests() -> Result<Vec<Manifest>, serde_yaml_ng::Error> {
    let header = "# Generated from the types in crds/src by `cargo run -p crds --bin crdgen`; do not edit.\n";
    [
        ("orderclusters.yaml", OrderCluster::crd()),
        ("ordershards.yaml", OrderShard::crd()),
    ]
    .into_iter()
    .map(|(file, crd)| {
        let mut crd = serde_yaml_ng::to_value(&crd)?;
        join_lines(&mut crd);
        let yaml = format!("{header}{}", serde_yaml_ng::to_string(&crd)?);
        Ok(Manifest { file, yaml })
    })
    .collect()
}

/// Makes each paragraph of a description one line: `kubectl explain` breaks lines by itself, and keeps those it finds.
fn join_lines(value: &mut Value) {
    match value {
        Value::Mapping(map) => {
            for (key, value) in map {
                match value {
                    Value::String(text) if key.as_str() == Some("description") => {
                        let paragraphs: Vec<String> = text.split("\n\n").map(|p| p.replace('\n', " ")).collect();
                        *text = paragraphs.join("\n\n");
                    }
                    other => join_lines(other),
                }
            }
        }
        Value::Sequence(list) => list.iter_mut().for_each(join_lines),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
        CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
    };

    use super::*;

    fn definitions() -> [CustomResourceDefinition; 2] {
        [OrderCluster::crd(), OrderShard::crd()]
    }

    #[test]
    fn the_yaml_files_match_the_types() {
        for manifest in manifests().unwrap() {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(manifest.file);
            let found = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                found == manifest.yaml,
                "{} differs from the types; run `cargo run -p crds --bin crdgen` and commit what it writes",
                path.display()
            );
        }
    }

    fn without_description(path: &str, schema: &JSONSchemaProps, found: &mut Vec<String>) {
        for (name, property) in schema.properties.iter().flatten() {
            let path = format!("{path}.{name}");
            if property
                .description
                .as_deref()
                .is_none_or(|text| text.trim().is_empty())
            {
                found.push(path.clone());
            }
            without_description(&path, property, found);
        }
        if let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items {
            without_description(&format!("{path}[]"), items, found);
        }
        if let Some(JSONSchemaPropsOrBool::Schema(values)) = &schema.additional_properties {
            without_description(&format!("{path}{{}}"), values, found);
        }
    }

    #[test]
    fn every_field_has_a_description() {
        for crd in definitions() {
            let schema = crd.spec.versions[0]
                .schema
                .as_ref()
                .unwrap()
                .open_api_v3_schema
                .as_ref()
                .unwrap();
            let mut found = Vec::new();
            for part in ["spec", "status"] {
                without_description(part, &schema.properties.as_ref().unwrap()[part], &mut found);
            }
            assert_eq!(
                found,
                Vec::<String>::new(),
                "fields of {} without a description",
                crd.spec.names.kind
            );
        }
    }

    #[test]
    fn short_names_are_unique() {
        let mut names: Vec<String> = definitions()
            .into_iter()
            .flat_map(|crd| {
                let names = crd.spec.names;
                let more = [Some(names.plural), names.singular].into_iter().flatten();
                names
                    .short_names
                    .unwrap_or_default()
                    .into_iter()
                    .chain(more)
                    .collect::<Vec<_>>()
            })
            .collect();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
