//! Having a member that cannot follow copied anew, and telling of it until it follows again.

use std::time::{Duration, Instant};

use crds::{OrderShard, Rebuild};
use kube::ResourceExt;
use store::admin::Lsn;
use telemetry::chain;
use tracing::{info, warn};

use super::Shards;
use super::database;
use super::members::Member;
use super::patroni_api::{PatroniError, Reinitialized};
use super::rejoin::{self, RejoinWatch, Still, Stranded};
use super::rollout::View;
use super::secrets::Credentials;
use crate::conditions::now;

/// Between two questions to the master, and between two requests to a member: a copy begins within seconds, and one that
/// could not begin is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// What is remembered of a shard's members that do not follow.
#[derive(Debug, Default)]
pub(super) struct Memory {
    watch: RejoinWatch,
    asked: Option<Instant>,
}

/// Looks after the members that do not follow. What the status shall say of a copy: the one begun now, the one under way, or
/// none.
///
/// What fails here is tried again at a later look and fails nothing else: the shard serves without that member.
pub(super) async fn mend(
    resource: &OrderShard,
    shards: &Shards,
    view: &View<'_>,
    credentials: &Credentials,
) -> Option<Rebuild> {
    let under_way = match resource.status.as_ref().and_then(|s| s.rebuilding.clone()) {
        Some(rebuild) if is_over(&rebuild, view) => {
            tell_end(resource, shards, &rebuild, view).await;
            None
        }
        other => other,
    };
    let (Some(master), Some((member, why))) = (view.master, find(resource, shards, view, credentials).await) else {
        return under_way;
    };
    match ask_patroni(shards, master, member, credentials).await {
        Ok(()) => {
            let note = format!("{} is copied anew from {}: {why}", member.name, master.name);
            shards.context.warn(resource, "RebuildingMember", note).await;
            shards.context.metrics.shards.rebuilt(resource);
            Some(Rebuild {
                member: member.name.clone(),
                since: now(),
                why: why.to_string(),
            })
        }
        Err(error) => {
            warn!(
                shard = resource.name_any(),
                member = member.name,
                why = %why,
                error = chain(&error),
                "a member that cannot follow could not be copied anew; it is tried again"
            );
            under_way
        }
    }
}

/// It follows again, or it is a member no longer, or the lock has gone to it.
fn is_over(rebuild: &Rebuild, view: &View<'_>) -> bool {
    let index = rebuild
        .member
        .rsplit_once('-')
        .and_then(|(_, index)| index.parse::<u32>().ok());
    let is_asked_for = index.is_some_and(|index| index < view.instances);
    let is_master = view.master.is_some_and(|master| master.name == rebuild.member);
    !is_asked_for || is_master || follows(rebuild, view)
}

fn follows(rebuild: &Rebuild, view: &View<'_>) -> bool {
    let found = view.members.iter().find(|m| m.name == rebuild.member);
    found.is_some_and(Member::is_streaming)
}

async fn tell_end(resource: &OrderShard, shards: &Shards, rebuild: &Rebuild, view: &View<'_>) {
    if follows(rebuild, view) {
        let note = format!("{} has been copied anew and follows", rebuild.member);
        shards.context.tell(resource, "MemberRebuilt", note).await;
    }
}

/// The first member that provably cannot follow; the master is asked only when somebody has stood still for a while.
async fn find<'a>(
    resource: &OrderShard,
    shards: &Shards,
    view: &View<'a>,
    credentials: &Credentials,
) -> Option<(&'a Member, Stranded)> {
    let master = view.master?;
    let now = Instant::now();
    let still = shards.remember(resource, |memory| {
        let rejoin = &mut memory.rejoin;
        let still = rejoin.watch.look(view, now);
        let due = rejoin.asked.is_none_or(|at| now.duration_since(at) >= ASK_AGAIN);
        if still.is_empty() || !due {
            return Vec::new();
        }
        rejoin.asked = Some(now);
        still
    });
    if still.is_empty() || rejoin::is_copying(view.members) {
        return None;
    }
    let oldest = match database::oldest_log(master, credentials).await {
        Ok(oldest) => oldest,
        Err(error) => {
            warn!(
                shard = resource.name_any(),
                error = chain(&error),
                "could not ask the master whether members that stand still can follow"
            );
            return None;
        }
    };
    let found = first_stranded(&still, master, oldest, view)?;
    info!(shard = resource.name_any(), member = found.0.name, why = %found.1, "a member cannot follow");
    Some(found)
}

fn first_stranded<'a>(
    still: &[Still<'a>],
    master: &Member,
    oldest: Option<Lsn>,
    view: &View<'_>,
) -> Option<(&'a Member, Stranded)> {
    still.iter().find_map(|one| {
        Some((
            one.member,
            rejoin::stranded(one, master, oldest, &view.consensus.history)?,
        ))
    })
}

/// Why a member was not asked to copy itself anew.
#[derive(Debug, thiserror::Error)]
enum RebuildError {
    #[error("its lost replication slot on the master could not be dropped")]
    Slot(#[from] database::DatabaseError),
    #[error(transparent)]
    Patroni(#[from] PatroniError),
    #[error("the member's pod has no address")]
    NoAddress,
    #[error("its Patroni does not begin now: {0}")]
    NotNow(String),
}

async fn ask_patroni(
    shards: &Shards,
    master: &Member,
    member: &Member,
    credentials: &Credentials,
) -> Result<(), RebuildError> {
    let ip = member.ip.as_deref().ok_or(RebuildError::NoAddress)?;
    database::drop_lost_slot(master, credentials, member).await?;
    match shards
        .patroni
        .reinitialize(ip, &member.name, &credentials.system)
        .await?
    {
        Reinitialized::Begun => Ok(()),
        Reinitialized::NotNow(why) => Err(RebuildError::NotNow(why)),
    }
}
