//! Preparing a shard's database beside the reconciles: a migration may take hours, and neither the other shards nor what
//! else this one needs wait for it.
//!
//! The work is found again at each look. It is dropped, and so ended, when its occasion has passed (another master, other
//! passwords) and when this process no longer leads. It is never begun twice at once: one look follows the other, and the
//! database itself lets only one session migrate.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crds::OrderShard;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use telemetry::chain;
use tokio::sync::watch;
use tokio::task::JoinError;
use tokio_util::task::AbortOnDropHandle;
use tracing::info;

use super::Shards;
use super::database::{self, DatabaseError, Done, Occasion, Prepared, Progress};
use super::reconcile::ReconcileError;
use super::rollout::View;
use super::secrets::Credentials;
use super::shard::Shard;
use super::status::{Because, DatabaseFacts};
use crate::conditions::Standing;

/// A look waits so long for work that it has begun: nearly always it is done by then.
const AT_ONCE: Duration = Duration::from_secs(3);

/// What comes of it.
type Outcome = Result<Option<Prepared>, DatabaseError>;

/// Work that goes on while nobody looks; dropping it ends it.
#[derive(Debug)]
pub(super) struct Background<T> {
    progress: watch::Receiver<Progress>,
    task: AbortOnDropHandle<T>,
}

impl<T: Send + 'static> Background<T> {
    fn begin<F>(work: impl FnOnce(watch::Sender<Progress>) -> F) -> Self
    where
        F: Future<Output = T> + Send + 'static,
    {
        let (sender, progress) = watch::channel(Progress::default());
        Self {
            progress,
            task: AbortOnDropHandle::new(tokio::spawn(work(sender))),
        }
    }

    /// Waits for the end, for so long at most.
    async fn end_within(mut self, patience: Duration) -> Result<Result<T, JoinError>, Self> {
        match tokio::time::timeout(patience, &mut self.task).await {
            Ok(end) => Ok(end),
            Err(_) => Err(self),
        }
    }
}

/// A shard's database under preparation.
#[derive(Debug)]
pub(super) struct Preparation {
    occasion: Occasion,
    work: Background<Outcome>,
}

/// Prepares the database if something calls for it. Work under way, and a refusal that needs a person, are standings; only
/// what is repeated is an error.
pub(super) async fn prepare_database(
    resource: &OrderShard,
    shards: &Shards,
    view: &View<'_>,
    credentials: &Credentials,
    shard: &Shard,
) -> Result<Result<DatabaseFacts, Standing>, ReconcileError> {
    let Some(master) = view.master else {
        return Ok(Ok(DatabaseFacts::remembered(resource)));
    };
    let occasion = Occasion::of(master, credentials);
    let done = shards.remember(resource, |memory| memory.database.clone());
    if let Some((done, prepared)) = done
        && done.still_holds(&occasion)
    {
        return Ok(Ok(DatabaseFacts::of(prepared)));
    }
    let under_way = shards.remember(resource, |memory| memory.preparation.take());
    let (work, patience) = match under_way.filter(|found| found.occasion == occasion) {
        Some(found) => (found.work, Duration::ZERO),
        None => {
            let confirmed = !shard.commit.strict() || view.synchronous_standby().is_some();
            let pods = shards.context.api::<Pod>(&shard.namespace);
            let identity = database::identity(&shard.data_id, shard.ordinal);
            let (master, credentials) = (master.clone(), credentials.clone());
            let context = Arc::clone(&shards.context);
            let (namespace, name) = (shard.namespace.clone(), shard.name.clone());
            let prepare = |progress| async move {
                let _passage = context.schemas.pass(&namespace, &name).await;
                database::prepare(pods, master, credentials, identity, confirmed, progress).await
            };
            (Background::begin(prepare), AT_ONCE)
        }
    };
    match work.end_within(patience).await {
        Ok(Ok(outcome)) => settle(resource, shards, occasion, outcome).await,
        Ok(Err(_)) => Err(DatabaseError::Ended(master.name.clone()).into()),
        Err(work) => {
            let progress = *work.progress.borrow();
            let preparation = Preparation { occasion, work };
            shards.remember(resource, |memory| memory.preparation = Some(preparation));
            let standing = Standing::reconciling(Because::PreparingDatabase, progress.to_string());
            Ok(Err(standing))
        }
    }
}

async fn settle(
    resource: &OrderShard,
    shards: &Shards,
    occasion: Occasion,
    outcome: Outcome,
) -> Result<Result<DatabaseFacts, Standing>, ReconcileError> {
    let prepared = match outcome {
        Ok(Some(prepared)) => prepared,
        Ok(None) => return Ok(Ok(DatabaseFacts::remembered(resource))),
        Err(refused) if refused.needs_a_person() => {
            return Ok(Err(Standing::stalled(Because::DatabaseRefused, chain(&refused))));
        }
        Err(error) => return Err(error.into()),
    };
    if prepared.migration_waits {
        let message = format!(
            "the schema stays at version {} until the keys that move have arrived",
            prepared.schema.0
        );
        return Ok(Err(Standing::reconciling(Because::MigrationWaiting, message)));
    }
    info!(
        shard = resource.name_any(),
        schema = prepared.schema.0,
        "the database is prepared"
    );
    if prepared.passwords_reset {
        let note = "the passwords in the database were set to those of the cluster's Secrets";
        shards.context.tell(resource, "PasswordsReset", note).await;
    }
    shards.remember(resource, |memory| {
        memory.database = Some((Done::at(occasion, Instant::now()), prepared));
    });
    Ok(Ok(DatabaseFacts::of(prepared)))
}

#[cfg(test)]
mod tests {
    use store::admin::SchemaVersion;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn work_that_is_done_at_once_is_told_at_the_same_look() {
        let work = Background::begin(|_| async { 7 });
        assert_eq!(work.end_within(AT_ONCE).await.expect("done").expect("no panic"), 7);
    }

    #[tokio::test]
    async fn long_work_tells_how_far_it_is_and_is_found_done_at_a_later_look() {
        let (finish, finished) = oneshot::channel::<()>();
        let (said, heard) = oneshot::channel::<()>();
        let work = Background::begin(|progress| async move {
            progress.send_modify(|progress| progress.applying = Some(SchemaVersion(3)));
            let _ = said.send(());
            finished.await.map(|()| 7)
        });
        heard.await.expect("the work runs");
        let work = work.end_within(Duration::ZERO).await.expect_err("still at work");
        assert_eq!(work.progress.borrow().applying, Some(SchemaVersion(3)));
        finish.send(()).expect("the work waits");
        let end = work.end_within(AT_ONCE).await.expect("done").expect("no panic");
        assert_eq!(end, Ok(7));
    }

    #[tokio::test]
    async fn work_whose_occasion_has_passed_ends_when_it_is_dropped() {
        let (alive, gone) = oneshot::channel::<()>();
        let work = Background::begin(|_| async move {
            let _alive = alive;
            std::future::pending::<()>().await;
        });
        drop(work);
        assert!(gone.await.is_err(), "the work and all it holds are gone");
    }

    #[tokio::test]
    async fn work_that_panics_is_an_end_and_no_panic_of_the_look() {
        let work = Background::begin(|_| async {
            if AT_ONCE > Duration::ZERO {
                panic!("on purpose");
            }
        });
        assert!(work.end_within(AT_ONCE).await.expect("ended").is_err());
    }
}
