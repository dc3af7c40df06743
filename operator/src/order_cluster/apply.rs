//! Making Secrets and shards what the plan says. No decisions here.

use std::collections::BTreeMap;

use crds::{DeletionPolicy, OrderShard};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use rand::distr::{Alphanumeric, SampleString};

use super::{
    Error, Operator, build,
    delete::delete_shard,
    observe::Observed,
    plan::{Plan, Step},
    record::Record,
    validate::Cluster,
};
use crate::apply::{Applied, apply_over};

/// 32 letters and digits: 190 bits.
pub(crate) fn new_password() -> String {
    Alphanumeric.sample_string(&mut rand::rng(), 32)
}

/// Makes every Secret of the cluster complete, and writes down there what must be remembered before the plan is carried
/// out.
pub(crate) async fn secrets(
    operator: &Operator,
    cluster: &Cluster,
    observed: &Observed,
    record: &Record,
) -> Result<(), Error> {
    let api = operator.context.api::<Secret>(&cluster.namespace);
    for secret in build::secrets(cluster, &observed.secrets, record, new_password) {
        let live = observed.secrets.get(&secret.name_any()).cloned();
        if let Applied::Created(secret) = apply_over(&api, live, &secret).await? {
            let note = format!("Generated the passwords in Secret {}", secret.name_any());
            operator.tell(cluster, "CredentialsGenerated", note).await;
        }
    }
    Ok(())
}

/// Writes the record where it outlives the cluster, before anything is done that must be remembered.
pub(crate) async fn record(
    operator: &Operator,
    cluster: &Cluster,
    observed: &Observed,
    record: &Record,
) -> Result<(), Error> {
    let api = operator.context.api::<Secret>(&cluster.namespace);
    let name = super::names::system_secret(&cluster.name);
    // Read anew: it may have just been made, and must keep the passwords it was made with.
    let live = api.get_opt(&name).await?;
    let secret = build::system_secret(
        cluster,
        live.as_ref().or(observed.secrets.get(&name)),
        record,
        new_password,
    );
    apply_over(&api, live, &secret).await?;
    Ok(())
}

/// Carries the plan out and gives back the shards as they are then.
pub(crate) async fn shards(
    operator: &Operator,
    cluster: &Cluster,
    observed: &Observed,
    plan: &Plan,
) -> Result<BTreeMap<u16, OrderShard>, Error> {
    let api = operator.context.api::<OrderShard>(&cluster.namespace);
    let mut shards = BTreeMap::new();
    for (ordinal, planned) in &plan.shards {
        let live = observed.shards.get(ordinal).cloned();
        if matches!(planned.step, Step::AwaitDeletion | Step::Taken) {
            shards.extend(live.map(|live| (*ordinal, live)));
            continue;
        }
        let applied = apply_over(&api, live, &build::shard(cluster, *ordinal, &planned.spec)).await?;
        tell_of(operator, cluster, planned.step, &applied).await;
        shards.insert(*ordinal, applied.into_inner());
    }
    Ok(shards)
}

/// Deletes the shards that hold nothing any more, with their volumes: nobody shall take one for his own later. Their own
/// controller asks the database once more before it lets them go.
pub(crate) async fn departures(
    operator: &Operator,
    cluster: &Cluster,
    observed: &Observed,
    plan: &Plan,
) -> Result<(), Error> {
    let api = operator.context.api::<OrderShard>(&cluster.namespace);
    for shard in plan.departing.iter().filter_map(|ordinal| observed.shards.get(ordinal)) {
        let goes_already = shard.metadata.deletion_timestamp.is_some();
        if goes_already && shard.spec.deletion_policy == DeletionPolicy::Delete {
            continue;
        }
        delete_shard(&api, shard, DeletionPolicy::Delete).await?;
        if !goes_already {
            let note = format!(
                "Shard {} holds nothing any more and goes, with its volumes",
                shard.name_any()
            );
            operator.tell(cluster, "ShardLeft", note).await;
        }
    }
    Ok(())
}

async fn tell_of(operator: &Operator, cluster: &Cluster, step: Step, applied: &Applied<OrderShard>) {
    match (applied, step) {
        (Applied::Created(shard), _) => {
            operator
                .tell(cluster, "ShardCreated", format!("Created shard {}", shard.name_any()))
                .await;
        }
        (Applied::Changed(shard), Step::Update) => {
            operator
                .tell(
                    cluster,
                    "ShardUpdated",
                    format!("Gave shard {} its new settings", shard.name_any()),
                )
                .await;
        }
        (Applied::Changed(shard), _) => {
            operator
                .tell(
                    cluster,
                    "ShardRepaired",
                    format!("Put shard {} right", shard.name_any()),
                )
                .await;
        }
        (Applied::Unchanged(_), _) => {}
    }
}
