//! Applying a shard's objects.

use std::fmt::Debug;

use futures::future::try_join_all;
use k8s_openapi::NamespaceResourceScope;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::build::Children;
use crate::apply::{Applied, ApplyError, apply};
use crate::context::Context;

/// Applies all of them and names what was written. What a pod needs is there before the StatefulSet that makes it.
pub(crate) async fn apply_children(
    context: &Context,
    namespace: &str,
    children: &Children,
) -> Result<Vec<String>, ApplyError> {
    let one = Applier { context, namespace };
    let mut written = Vec::new();
    let (account, role, configuration, credentials, dcs) = tokio::try_join!(
        one.apply(&children.service_account),
        one.apply(&children.role),
        one.apply(&children.configuration),
        one.apply(&children.credentials),
        one.apply_all(&children.dcs),
    )?;
    let (binding, network, budget, services) = tokio::try_join!(
        one.apply(&children.role_binding),
        one.apply(&children.network_policy),
        one.apply(&children.disruption_budget),
        one.apply_all(&children.services),
    )?;
    written.extend(
        [account, role, configuration, credentials, binding, network, budget]
            .into_iter()
            .flatten(),
    );
    written.extend(dcs.into_iter().chain(services).flatten());
    written.extend(one.apply(&children.stateful_set).await?);
    Ok(written)
}

struct Applier<'a> {
    context: &'a Context,
    namespace: &'a str,
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

    async fn apply_all<K>(&self, objects: &[K]) -> Result<Vec<Option<String>>, ApplyError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize,
    {
        try_join_all(objects.iter().map(|object| self.apply(object))).await
    }
}
