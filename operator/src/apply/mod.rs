//! Server-side apply that asks first whether there is anything to do.
//!
//! An object is left alone when it was made from exactly what is wanted now (a hash in an annotation says so) and still
//! shows all of it (nobody has edited it by hand since). So a second apply of everything writes nothing, while whatever
//! was taken out of the specification, or changed behind the operator's back, is put right.

mod covers;

use std::fmt::{Debug, Write};

use crds::labels::APPLIED_HASH;
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use sha2::{Digest, Sha256};

pub(crate) use covers::covers;

/// Name of the operator as an owner of fields.
pub(crate) const FIELD_MANAGER: &str = "ringwright-operator";

/// What applying an object came to; each holds the object as the API server has it now.
#[derive(Debug)]
pub(crate) enum Applied<K> {
    /// It was not there.
    Created(K),
    /// It was there and differed.
    Changed(K),
    /// It was there as wanted: nothing was written.
    Unchanged(K),
}

impl<K> Applied<K> {
    /// The object.
    pub(crate) fn into_inner(self) -> K {
        match self {
            Self::Created(object) | Self::Changed(object) | Self::Unchanged(object) => object,
        }
    }
}

/// Why an object could not be applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    /// The API server could not be asked.
    #[error("could not read {kind} {name} before applying it")]
    Read {
        kind: String,
        name: String,
        #[source]
        source: kube::Error,
    },
    /// The API server refused it.
    #[error("could not apply {kind} {name}")]
    Write {
        kind: String,
        name: String,
        #[source]
        source: kube::Error,
    },
    /// The built object cannot be written as JSON.
    #[error("could not write {kind} {name} as JSON")]
    Encode {
        kind: String,
        name: String,
        #[source]
        source: serde_json::Error,
    },
}

/// Makes the object in the cluster what `desired` says, with as many writes as that needs: none or one.
///
/// Fields that `desired` does not name are left to others.
pub(crate) async fn apply<K>(api: &Api<K>, desired: &K) -> Result<Applied<K>, ApplyError>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize,
{
    let (kind, name) = (K::kind(&()).into_owned(), desired.name_any());
    let live = api
        .get_opt(&name)
        .await
        .map_err(|source| ApplyError::Read { kind, name, source })?;
    apply_over(api, live, desired).await
}

/// [`apply`] for a caller that has just read the object, or knows that there is none.
pub(crate) async fn apply_over<K>(api: &Api<K>, live: Option<K>, desired: &K) -> Result<Applied<K>, ApplyError>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize,
{
    let (kind, name) = (K::kind(&()).into_owned(), desired.name_any());
    let encode = |source| ApplyError::Encode {
        kind: kind.clone(),
        name: name.clone(),
        source,
    };
    let wanted = to_apply(desired).map_err(encode)?;
    if let Some(live) = &live
        && covers(&serde_json::to_value(live).map_err(encode)?, &wanted)
    {
        return Ok(Applied::Unchanged(live.clone()));
    }
    let existed = live.is_some();
    let params = PatchParams::apply(FIELD_MANAGER).force();
    match api.patch(&name, &params, &Patch::Apply(&wanted)).await {
        Ok(object) if existed => Ok(Applied::Changed(object)),
        Ok(object) => Ok(Applied::Created(object)),
        Err(source) => Err(ApplyError::Write { kind, name, source }),
    }
}

/// What is sent: the object with its type and the hash of all of that.
fn to_apply<K>(desired: &K) -> Result<Value, serde_json::Error>
where
    K: Resource<DynamicType = ()> + Clone + Serialize,
{
    let mut value = serde_json::to_value(desired)?;
    value["apiVersion"] = K::api_version(&()).into();
    value["kind"] = K::kind(&()).into();
    let hash = hash_of(&value);
    value["metadata"]["annotations"][APPLIED_HASH] = hash.into();
    Ok(value)
}

/// 128 bits of SHA-256 over the JSON, in hexadecimal.
fn hash_of(value: &Value) -> String {
    let digest = Sha256::digest(value.to_string());
    digest[..16].iter().fold(String::with_capacity(32), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::ObjectMeta;

    use super::*;

    fn map(entries: &[(&str, &str)]) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                name: Some("a".to_owned()),
                ..ObjectMeta::default()
            },
            data: Some(
                entries
                    .iter()
                    .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                    .collect(),
            ),
            ..ConfigMap::default()
        }
    }

    #[test]
    fn what_was_applied_covers_the_same_and_nothing_else() {
        let applied = to_apply(&map(&[("a", "1"), ("b", "2")])).unwrap();
        assert!(covers(&applied, &to_apply(&map(&[("a", "1"), ("b", "2")])).unwrap()));
        assert!(!covers(&applied, &to_apply(&map(&[("a", "1"), ("b", "3")])).unwrap()));
        // The hash tells that `b` has to go, though all that is wanted is there.
        assert!(!covers(&applied, &to_apply(&map(&[("a", "1")])).unwrap()));
    }

    #[test]
    fn an_edit_by_hand_is_noticed_though_the_hash_stayed() {
        let wanted = to_apply(&map(&[("a", "1")])).unwrap();
        let mut edited = wanted.clone();
        edited["data"]["a"] = "2".into();
        assert!(!covers(&edited, &wanted));
    }
}
