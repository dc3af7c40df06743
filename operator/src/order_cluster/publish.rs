//! The ring: from the shards' books to the ConfigMap.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crds::{Durability, OrderShard, ShardState};
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{ResourceExt, api::PostParams};
use ring::{Epoch, Ordinal, Range, Ring, Shard, Tokens};
use tracing::info;

use super::{
    Error, Operator, apply, build, chain,
    masters::Keeper,
    names,
    observe::Observed,
    plan::{self, Plan},
    record::Record,
    ring_truth::{ShardBook, Truth, truth},
    validate::Cluster,
};
use crate::{apply::covers, order_shard::member_index};

/// How many books are read at the same time.
const READERS: usize = 16;

/// How often books have to contradict each other: a batch that changes hands between the look at the one shard and the look
/// at the other seems to have two owners, or none.
const LOOKS: usize = 3;
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

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

/// What settling the ring came to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settled {
    pub(crate) ring: RingState,
    /// Who owns what, where it is known.
    pub(crate) tokens: Option<Tokens>,
    /// Whether the books were read and ranges were found on their way.
    pub(crate) in_flight: bool,
    /// The shards that the newest ring lists; `None` if that is not there, or damaged.
    pub(crate) listed: Option<BTreeSet<Ordinal>>,
}

/// Makes the published ring what the shards' books say.
pub(crate) async fn settle(
    operator: &Operator,
    cluster: &Cluster,
    observed: &Observed,
    record: &Record,
    plan: &Plan,
    shards: &BTreeMap<u16, OrderShard>,
) -> Result<Settled, Error> {
    let mut record = record.clone();
    let published = record.epoch;
    if let Some(damage) = observed.ring.damage() {
        let note = format!(
            "The ring in ConfigMap {} is refused: {damage}",
            names::ring(&cluster.name)
        );
        operator.warn_once(cluster, "RingDamaged", note).await;
    }
    let unsettled = |ring: RingState| {
        Ok(Settled {
            ring,
            tokens: None,
            in_flight: false,
            listed: observed.newest_ring().map(listed_in),
        })
    };
    // A newcomer is not listed yet, and has no book to be read.
    let shards = shards
        .iter()
        .filter(|(ordinal, shard)| !observed.is_newcomer(**ordinal, shard));
    let shards = shards.map(|(ordinal, shard)| (*ordinal, shard.clone())).collect();
    let (tokens, in_flight) = match read_truth(operator, cluster, observed, plan, &shards).await {
        Truth::Owned { tokens, in_flight } => (tokens, in_flight),
        Truth::Founding { tokens, claims } if record.epoch.is_none() => {
            found(operator, cluster, observed, &mut record, &shards, claims).await?;
            (tokens, false)
        }
        Truth::Founding { claims, .. } => {
            let why = lost(&claims);
            return unsettled(RingState::Broken { published, why });
        }
        Truth::Unread(why) => return unsettled(RingState::Unread { published, why }),
        Truth::Broken(why) => return unsettled(RingState::Broken { published, why }),
    };
    let (ring, listed) = publish(operator, cluster, observed, plan, record, &shards, &tokens).await?;
    Ok(Settled {
        ring,
        tokens: Some(tokens),
        in_flight,
        listed,
    })
}

fn listed_in(ring: &Ring) -> BTreeSet<Ordinal> {
    ring.shards().iter().map(|shard| shard.ordinal).collect()
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

/// What the mover has just read, the published ring while it is known to agree with the books, else what the books say.
async fn read_truth(
    operator: &Operator,
    cluster: &Cluster,
    observed: &Observed,
    plan: &Plan,
    shards: &BTreeMap<u16, OrderShard>,
) -> Truth {
    if let Some((tokens, in_flight)) = operator.movers.truth(&cluster.uid) {
        return Truth::Owned { tokens, in_flight };
    }
    if let (Some(ring), Some(map)) = (observed.ring.intact(), &observed.ring.map)
        && operator.memory.trusts(&cluster.uid, &build::encoded_ring(map).digest)
    {
        return Truth::Owned {
            tokens: ring.tokens().clone(),
            in_flight: false,
        };
    }
    let listed = observed.ring.intact().map(listed_in).unwrap_or_default();
    let needed = |ordinal: &&u16| listed.is_empty() || listed.contains(&Ordinal(**ordinal));
    let missing = plan.shards.keys().filter(|ordinal| !shards.contains_key(ordinal));
    let missing: BTreeMap<_, _> = missing
        .filter(needed)
        .map(|o| (Ordinal(*o), "it does not exist".to_owned()))
        .collect();
    if !missing.is_empty() {
        return Truth::Unread(missing);
    }
    let mut found = truth(&read_books(operator, cluster, shards).await);
    for _ in 1..LOOKS {
        if !matches!(found, Truth::Broken(_)) {
            break;
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
        found = truth(&read_books(operator, cluster, shards).await);
    }
    found
}

async fn read_books(
    operator: &Operator,
    cluster: &Cluster,
    shards: &BTreeMap<u16, OrderShard>,
) -> BTreeMap<Ordinal, ShardBook> {
    // Collected first: a lazy iterator of futures that borrow is more general than the compiler can prove Send.
    let reading: Vec<_> = shards
        .iter()
        .map(|(ordinal, shard)| read_book(operator, cluster, *ordinal, shard))
        .collect();
    stream::iter(reading).buffer_unordered(READERS).collect().await
}

async fn read_book(operator: &Operator, cluster: &Cluster, ordinal: u16, shard: &OrderShard) -> (Ordinal, ShardBook) {
    let weight = plan::weight(shard.spec.weight);
    let view = match keeper(cluster, shard) {
        Ok(keeper) => operator.books.read(&keeper).await.map_err(|error| chain(&error)),
        Err(why) => Err(why),
    };
    (Ordinal(ordinal), ShardBook { weight, view })
}

/// The shard's master, once the database has been set up.
pub(crate) fn keeper(cluster: &Cluster, shard: &OrderShard) -> Result<Keeper, String> {
    let status = shard.status.as_ref().filter(|status| status.initialised);
    let status = status.ok_or_else(|| "its database is not set up yet".to_owned())?;
    let master = status.master.clone().ok_or_else(|| "it has no master".to_owned())?;
    let ordinal = u16::try_from(shard.spec.ordinal).map_err(|_| "its ordinal is no ordinal".to_owned())?;
    let name = shard.name_any();
    let (durability, instances) = (shard.spec.postgres.durability, instances(shard));
    let members = (0..instances).map(|instance| format!("{name}-{instance}"));
    Ok(Keeper {
        namespace: cluster.namespace.clone(),
        cluster: cluster.name.clone(),
        ordinal: Ordinal(ordinal),
        hosts: names::member_hosts(&cluster.namespace, &name, instances),
        others: members.filter(|member| *member != master).collect(),
        synchronous: durability != Durability::None && shard.spec.postgres.instances > 1,
        shard: name,
        master,
    })
}

/// How many members a shard is reached at: those that are asked for, and its master though it may be one that shall go. It
/// is master until it has handed over, however long that takes.
fn instances(shard: &OrderShard) -> i32 {
    let asked = shard.spec.postgres.instances;
    let master = shard.status.as_ref().and_then(|status| status.master.as_deref());
    let last = master.and_then(member_index).and_then(|index| u8::try_from(index).ok());
    last.map_or(asked, |last| asked.max(i32::from(last) + 1))
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

/// Publishes the ring if it differs from what is published. Also which shards the published one lists.
async fn publish(
    operator: &Operator,
    cluster: &Cluster,
    observed: &Observed,
    plan: &Plan,
    mut record: Record,
    shards: &BTreeMap<u16, OrderShard>,
    tokens: &Tokens,
) -> Result<(RingState, Option<BTreeSet<Ordinal>>), Error> {
    let before = observed.newest_ring().map(listed_in);
    let members = members(cluster, plan, shards, tokens, before.as_ref());
    let metadata = build::ring_metadata(cluster, &record);
    if let (Some(ring), Some(map)) = (observed.newest_ring(), &observed.ring.map)
        && ring.tokens() == tokens
        && ring.shards() == members
    {
        if !covers(&serde_json::json!(map.metadata), &serde_json::json!(metadata)) {
            write(operator, cluster, build::ring_config_map(metadata, Some(map), ring)).await?;
        }
        operator.memory.verified(&cluster.uid, &build::encoded_ring(map).digest);
        return Ok((RingState::Current(ring.epoch()), before));
    }
    if let Some(wait) = operator.memory.publish_after(&cluster.uid) {
        return Ok((RingState::Soon(record.epoch, wait), before));
    }
    let epoch = record.epoch.unwrap_or_default().next();
    let ring = Ring::new(epoch, members, tokens.clone())?;
    // The epoch is used up before it is seen: no crash in between can make it appear twice.
    record.epoch = Some(epoch);
    record.roster = Some(plan.roster());
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
    let note = format!("Published the ring of {} shards, epoch {epoch}", ring.shards().len());
    let listed = Some(listed_in(&ring));
    if before == listed && operator.movers.is_moving(&cluster.uid) {
        // Every two seconds while keys move: nobody wants these as events.
        info!(cluster = cluster.name, namespace = cluster.namespace, note);
    } else {
        operator.tell(cluster, "RingPublished", note).await;
    }
    Ok((RingState::Current(epoch), listed))
}

/// The shards as the ring lists them; `before`: whom the published one lists. One whose database was never set up is not
/// listed for the first time: it can be taken back, and who is listed goes only when its database says so. One that leaves
/// may have been listed by a ring that is lost.
fn members(
    cluster: &Cluster,
    plan: &Plan,
    shards: &BTreeMap<u16, OrderShard>,
    tokens: &Tokens,
    before: Option<&BTreeSet<Ordinal>>,
) -> Vec<Shard> {
    let holders: BTreeSet<Ordinal> = tokens.as_slice().iter().map(|token| token.ordinal).collect();
    let leaves = |ordinal: Ordinal, shard: &OrderShard| {
        let drained = !plan.owners.is_empty() && !plan.owners.contains_key(&ordinal);
        drained || shard.spec.state == ShardState::Leaving
    };
    let is_listed = |ordinal: Ordinal, shard: &OrderShard| {
        let known = before.is_some_and(|listed| listed.contains(&ordinal));
        let is_set_up = plan::shard_is_initialised(shard);
        is_set_up || known || holders.contains(&ordinal) || shard.spec.state == ShardState::Leaving
    };
    shards
        .iter()
        .map(|(ordinal, shard)| (Ordinal(*ordinal), shard))
        .filter(|(ordinal, shard)| is_listed(*ordinal, shard))
        .map(|(ordinal, shard)| {
            let name = shard.name_any();
            Shard {
                hosts: names::member_hosts(&cluster.namespace, &name, instances(shard)),
                state: match (leaves(ordinal, shard), holders.contains(&ordinal)) {
                    (true, _) => ring::ShardState::Leaving,
                    (false, true) => ring::ShardState::Active,
                    (false, false) => ring::ShardState::Joining,
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
