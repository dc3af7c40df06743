//! The ring: from the shards' books to the ConfigMap.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crds::{OrderShard, ShardState};
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{ResourceExt, api::PostParams};
use ring::{Epoch, Ordinal, Range, Ring, Shard, Tokens, Weight};
use tracing::info;

use super::{
    Error, Operator, apply,
    books::Keeper,
    build, chain, names,
    observe::Observed,
    plan::Plan,
    record::Record,
    ring_truth::{ShardBook, Truth, truth},
    validate::Cluster,
};
use crate::apply::covers;

/// How many books are read at the same time.
const READERS: usize = 16;

/// Where the ring stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RingState {
    /// It is published and is what the shards say.
    Current(Epoch),
    /// It has to be published, and was less than two seconds ago.
    Soon(Option<Epoch>, Duration),
    /// Not every shard says what it owns. What is published, if anything is, stays.
    Unread {
        published: Option<Epoch>,
        why: BTreeMap<Ordinal, String>,
    },
    /// The shards contradict each other: nothing is published until somebody has looked.
    Broken { published: Option<Epoch>, why: String },
}

impl RingState {
    pub(crate) fn epoch(&self) -> Option<Epoch> {
        match self {
            Self::Current(epoch) => Some(*epoch),
            Self::Soon(published, _) | Self::Unread { published, .. } | Self::Broken { published, .. } => *published,
        }
    }
}

/// Makes the published ring what the shards' books say.
pub(crate) async fn settle(
    operator: &Operator,
    cluster: &Cluster,
    observed: &Observed,
    plan: &Plan,
    shards: &BTreeMap<u16, OrderShard>,
) -> Result<RingState, Error> {
    let mut record = observed.record.clone();
    let published = record.epoch;
    if let Some(damage) = observed.ring.damage() {
        let note = format!(
            "The ring in ConfigMap {} is refused: {damage}",
            names::ring(&cluster.name)
        );
        operator.warn_once(cluster, "RingDamaged", note).await;
    }
    let tokens = match read_truth(operator, cluster, observed, plan, shards).await {
        Truth::Owned(tokens) => tokens,
        Truth::Founding { tokens, claims } if record.epoch.is_none() => {
            found(operator, cluster, observed, &mut record, shards, claims).await?;
            tokens
        }
        Truth::Founding { claims, .. } => {
            return Ok(RingState::Broken {
                published,
                why: lost(&claims),
            });
        }
        Truth::Unread(why) => return Ok(RingState::Unread { published, why }),
        Truth::Broken(why) => return Ok(RingState::Broken { published, why }),
    };
    publish(operator, cluster, observed, record, shards, tokens).await
}

/// A ring was published, so these shards owned keys; now their books are empty.
fn lost(claims: &BTreeMap<Ordinal, Vec<Range>>) -> String {
    let shards: Vec<String> = claims.keys().map(ToString::to_string).collect();
    format!(
        "shard {} owned keys and its database remembers none: its volume was lost or replaced; bring the volume back, \
         or delete the cluster with all its volumes and begin anew",
        shards.join(", ")
    )
}

/// The published ring while it is known to agree with the books, else what the books say.
async fn read_truth(
    operator: &Operator,
    cluster: &Cluster,
    observed: &Observed,
    plan: &Plan,
    shards: &BTreeMap<u16, OrderShard>,
) -> Truth {
    if let (Some(ring), Some(map)) = (observed.ring.intact(), &observed.ring.map)
        && operator.memory.trusts(&cluster.uid, &build::encoded_ring(map).digest)
    {
        return Truth::Owned(ring.tokens().clone());
    }
    let missing = plan.shards.keys().filter(|ordinal| !shards.contains_key(ordinal));
    let missing: BTreeMap<_, _> = missing.map(|o| (Ordinal(*o), "it does not exist".to_owned())).collect();
    if !missing.is_empty() {
        return Truth::Unread(missing);
    }
    // Collected first: a lazy iterator of futures that borrow is more general than the compiler can prove Send.
    let reading: Vec<_> = shards
        .iter()
        .map(|(ordinal, shard)| read_book(operator, cluster, *ordinal, shard))
        .collect();
    let books = stream::iter(reading).buffer_unordered(READERS).collect().await;
    truth(&books)
}

async fn read_book(operator: &Operator, cluster: &Cluster, ordinal: u16, shard: &OrderShard) -> (Ordinal, ShardBook) {
    let weight = u32::try_from(shard.spec.weight)
        .ok()
        .and_then(|w| Weight::new(w).ok())
        .unwrap_or(Weight::ONE);
    let rows = match keeper(cluster, shard) {
        Ok(keeper) => operator.books.read(&keeper).await.map_err(|error| chain(&error)),
        Err(why) => Err(why),
    };
    (Ordinal(ordinal), ShardBook { weight, rows })
}

/// The shard's master, once the database has been set up.
fn keeper(cluster: &Cluster, shard: &OrderShard) -> Result<Keeper, String> {
    let status = shard.status.as_ref().filter(|status| status.initialised);
    let status = status.ok_or_else(|| "its database is not set up yet".to_owned())?;
    let master = status.master.clone().ok_or_else(|| "it has no master".to_owned())?;
    Ok(Keeper {
        namespace: cluster.namespace.clone(),
        cluster: cluster.name.clone(),
        shard: shard.name_any(),
        master,
    })
}

/// Gives out the first ranges: first the set of shards is written down for good, then each is told its part.
async fn found(
    operator: &Operator,
    cluster: &Cluster,
    observed: &Observed,
    record: &mut Record,
    shards: &BTreeMap<u16, OrderShard>,
    claims: BTreeMap<Ordinal, Vec<Range>>,
) -> Result<(), Error> {
    record.roster = Some(shards.keys().copied().collect());
    apply::record(operator, cluster, observed, record).await?;
    for (ordinal, ranges) in claims {
        let Some(shard) = shards.get(&ordinal.get()) else {
            continue;
        };
        let keeper = keeper(cluster, shard).map_err(|why| Error::NoMaster {
            shard: shard.name_any(),
            why,
        })?;
        operator.books.claim(&keeper, &ranges).await?;
        info!(
            shard = keeper.shard,
            ranges = ranges.len(),
            "gave the shard its first ranges"
        );
    }
    operator
        .tell(
            cluster,
            "RingFounded",
            format!("Spread the keys over {} shards", shards.len()),
        )
        .await;
    Ok(())
}

/// Publishes the ring if it differs from what is published.
async fn publish(
    operator: &Operator,
    cluster: &Cluster,
    observed: &Observed,
    mut record: Record,
    shards: &BTreeMap<u16, OrderShard>,
    tokens: Tokens,
) -> Result<RingState, Error> {
    let members = members(cluster, shards, &tokens);
    let metadata = build::ring_metadata(cluster, &record.data_id);
    if let (Some(ring), Some(map)) = (observed.ring.intact(), &observed.ring.map)
        && record.epoch.is_some_and(|known| ring.epoch() >= known)
        && ring.tokens() == &tokens
        && ring.shards() == members
    {
        if !covers(&serde_json::json!(map.metadata), &serde_json::json!(metadata)) {
            write(operator, cluster, build::ring_config_map(metadata, Some(map), ring)).await?;
        }
        operator.memory.verified(&cluster.uid, &build::encoded_ring(map).digest);
        return Ok(RingState::Current(ring.epoch()));
    }
    if let Some(wait) = operator.memory.publish_after(&cluster.uid) {
        return Ok(RingState::Soon(record.epoch, wait));
    }
    let epoch = record.epoch.unwrap_or_default().next();
    let ring = Ring::new(epoch, members, tokens)?;
    // The epoch is used up before it is seen: no crash in between can make it appear twice.
    record.epoch = Some(epoch);
    record.roster = Some(shards.keys().copied().collect());
    apply::record(operator, cluster, observed, &record).await?;
    let map = write(
        operator,
        cluster,
        build::ring_config_map(metadata, observed.ring.map.as_ref(), &ring),
    )
    .await?;
    operator.memory.published(&cluster.uid);
    operator
        .memory
        .verified(&cluster.uid, &build::encoded_ring(&map).digest);
    let note = format!("Published the ring of {} shards, epoch {epoch}", shards.len());
    operator.tell(cluster, "RingPublished", note).await;
    Ok(RingState::Current(epoch))
}

/// The shards as the ring lists them.
fn members(cluster: &Cluster, shards: &BTreeMap<u16, OrderShard>, tokens: &Tokens) -> Vec<Shard> {
    let owners: BTreeSet<Ordinal> = tokens.as_slice().iter().map(|token| token.ordinal).collect();
    shards
        .iter()
        .map(|(ordinal, shard)| {
            let ordinal = Ordinal(*ordinal);
            let name = shard.name_any();
            Shard {
                hosts: (0..shard.spec.postgres.instances)
                    .map(|instance| names::member_host(&cluster.namespace, &name, instance))
                    .collect(),
                state: match shard.spec.state {
                    ShardState::Leaving => ring::ShardState::Leaving,
                    ShardState::Active if owners.contains(&ordinal) => ring::ShardState::Active,
                    ShardState::Active => ring::ShardState::Joining,
                },
                ordinal,
                name,
            }
        })
        .collect()
}

/// Compare-and-swap: the resource version read at the start is the one that is replaced.
async fn write(operator: &Operator, cluster: &Cluster, map: ConfigMap) -> Result<ConfigMap, Error> {
    let api = operator.context.api::<ConfigMap>(&cluster.namespace);
    let params = PostParams {
        field_manager: Some(crate::apply::FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    let written = if map.metadata.resource_version.is_some() {
        api.replace(&map.name_any(), &params, &map).await
    } else {
        api.create(&params, &map).await
    };
    written.map_err(|source| Error::Publish {
        name: map.name_any(),
        source,
    })
}
