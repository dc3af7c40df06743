//! Work that runs again and again on every shard of the ring, each shard by itself: one that does not answer delays no
//! other.

use std::collections::HashMap;
use std::time::Duration;

use rand::RngExt;
use ring::Ordinal;
use store::Store;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How soon a shard that has joined gets its jobs.
const LOOK_FOR_SHARDS_EVERY: Duration = Duration::from_secs(2);

/// Runs `job` on every shard until `stop`; a run that has begun ends first. `job` tells the pause until its next run.
pub async fn on_every_shard<J, F>(name: &'static str, store: Store, stop: CancellationToken, job: J)
where
    J: Fn(Ordinal) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Duration> + Send + 'static,
{
    let mut running: HashMap<Ordinal, JoinHandle<()>> = HashMap::new();
    loop {
        for (shard, ended) in running.extract_if(|_, task| task.is_finished()) {
            if let Err(error) = ended.await {
                tracing::error!(%error, %shard, job = name, "a job panicked; it is started again");
            }
        }
        for shard in store.shards() {
            running
                .entry(shard)
                .or_insert_with(|| tokio::spawn(on_one_shard(store.clone(), shard, stop.clone(), job.clone())));
        }
        if stop
            .run_until_cancelled(tokio::time::sleep(LOOK_FOR_SHARDS_EVERY))
            .await
            .is_none()
        {
            break;
        }
    }
    futures::future::join_all(running.into_values()).await;
}

async fn on_one_shard<J, F>(store: Store, shard: Ordinal, stop: CancellationToken, job: J)
where
    J: Fn(Ordinal) -> F,
    F: Future<Output = Duration>,
{
    while store.shards().contains(&shard) && !stop.is_cancelled() {
        let pause = job(shard).await;
        // Instances started together must not ask together for ever.
        let pause = pause.mul_f64(rand::rng().random_range(0.8..1.2));
        if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            break;
        }
    }
}
