//! Applying a shard's objects.

use std::fmt::Debug;

use futures::future::try_join_all;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::build::Children;
use super::build::dcs::CONFIG_ANNOTATION;
use crate::apply::{Applied, ApplyError, apply};
use crate::context::Context;

/// What was written.
#[derive(Debug)]
pub(crate) struct Written {
    /// Kinds and names.
    pub(crate) what: Vec<String>,
    /// The StatefulSet among them.
    pub(crate) stateful_set: bool,
}

/// Applies all of them. What a pod needs is there before the StatefulSet that makes it.
///
/// `held`: it is not this shard's turn to take over what a newer operator makes of it. Whatever would have its members
/// replaced or restarted is left as it is; it is only made where it is missing.
pub(crate) async fn apply_children(
    context: &Context,
    namespace: &str,
    children: &Children,
    held: bool,
) -> Result<Written, ApplyError> {
    let one = Applier {
        context,
        namespace,
        held,
    };
    let mut what = Vec::new();
    let (account, role, configuration, credentials, dcs) = tokio::try_join!(
        one.apply(&children.service_account),
        one.apply(&children.role),
        one.apply(&children.configuration),
        one.apply(&children.credentials),
        one.apply_dcs(&children.dcs),
    )?;
    let (binding, network, budget, services) = tokio::try_join!(
        one.apply(&children.role_binding),
        one.apply(&children.network_policy),
        one.apply(&children.disruption_budget),
        one.apply_all(&children.services),
    )?;
    what.extend(
        [account, role, configuration, credentials, binding, network, budget]
            .into_iter()
            .flatten(),
    );
    what.extend(dcs.into_iter().chain(services).flatten());
    let set = one.apply_unless_held(&children.stateful_set).await?;
    let stateful_set = set.is_some();
    what.extend(set);
    Ok(Written { what, stateful_set })
}

struct Applier<'a> {
    context: &'a Context,
    namespace: &'a str,
    held: bool,
}

impl Applier<'_> {
    /// The object's kind and name if something was written.
    async fn apply<K>(&self, object: &K) -> Result<Option<String>, ApplyError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize,
    {
        let applied = apply(&self.context.api::<K>(self.namespace), object).await?;
        let name = || format!("{} {}", K::kind(&()), object.name_any());
        Ok(match applied {
            Applied::Unchanged(_) => None,
            Applied::Created(_) => Some(format!("created {}", name())),
            Applied::Changed(_) => Some(format!("changed {}", name())),
        })
    }

    /// Patroni's ConfigMaps: the one with the dynamic configuration names parameters that restart members.
    async fn apply_dcs(&self, objects: &[ConfigMap]) -> Result<Vec<Option<String>>, ApplyError> {
        try_join_all(objects.iter().map(|object| async move {
            let annotations = object.metadata.annotations.as_ref();
            if annotations.is_some_and(|all| all.contains_key(CONFIG_ANNOTATION)) {
                self.apply_unless_held(object).await
            } else {
                self.apply(object).await
            }
        }))
        .await
    }

    async fn apply_unless_held<K>(&self, object: &K) -> Result<Option<String>, ApplyError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize,
    {
        if self.held && self.is_there(object).await? {
            return Ok(None);
        }
        self.apply(object).await
    }

    async fn is_there<K>(&self, object: &K) -> Result<bool, ApplyError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let name = object.name_any();
        let found = self.context.api::<K>(self.namespace).get_opt(&name).await;
        found.map(|object| object.is_some()).map_err(|source| ApplyError::Read {
            kind: K::kind(&()).into_owned(),
            name,
            source,
        })
    }

    async fn apply_all<K>(&self, objects: &[K]) -> Result<Vec<Option<String>>, ApplyError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize,
    {
        try_join_all(objects.iter().map(|object| self.apply(object))).await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::build::{self, Files, SystemPasswords};
    use super::super::shard::tests::shard;
    use super::*;
    use crate::order_cluster::fake_api::FakeApi;

    const SET: &str = "/apis/apps/v1/namespaces/market/statefulsets/shop-0";
    const CONFIG: &str = "/api/v1/namespaces/market/configmaps/shop-0-config";
    const SERVICE: &str = "/api/v1/namespaces/market/services/shop-0-rw";

    fn children() -> Children {
        let shard = shard(json!({"storage": {"size": "1Gi"}}));
        let passwords = SystemPasswords {
            superuser: "a".to_owned().into(),
            replication: "b".to_owned().into(),
            rewind: "c".to_owned().into(),
            patroni_username: "patroni".to_owned(),
            patroni_password: "d".to_owned().into(),
        };
        build::children(&shard, &Files::render(&shard, &passwords, 2), 2, "ringwright")
    }

    #[tokio::test]
    async fn a_shard_on_hold_keeps_what_would_restart_its_members_and_gets_everything_else() {
        let api = FakeApi::default();
        let context = api.context();
        let apply = async |held| {
            let written = apply_children(&context, "market", &children(), held).await;
            written.expect("the API server answers")
        };
        let made = apply(true).await;
        assert!(made.what.len() > 10 && made.stateful_set, "what is missing is made");
        assert_eq!(apply(true).await.what, [""; 0]);

        // As an operator before this one left them.
        let before = json!({"spec": {"containers": [{"name": "postgres", "image": "older"}]}});
        api.edit(SET, |set| set["spec"]["template"] = before.clone());
        api.edit(CONFIG, |map| map["metadata"]["annotations"]["config"] = json!("{}"));
        api.edit(SERVICE, |service| service["spec"]["ports"] = json!([]));
        let written = apply(true).await;
        assert_eq!(written.what, ["changed Service shop-0-rw"]);
        assert!(!written.stateful_set);
        assert_eq!(api.get(SET).expect("a set")["spec"]["template"], before);

        let mut changed = apply(false).await;
        changed.what.sort();
        assert!(changed.stateful_set);
        assert_eq!(
            changed.what,
            ["changed ConfigMap shop-0-config", "changed StatefulSet shop-0"]
        );
    }
}
