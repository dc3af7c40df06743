//! The load at work, until it is told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::sleep_until;

use super::client::Client;

/// Requests that may wait for their answers at once. The API takes no more either; past it a request is not sent, and
/// counted.
const MOST_UNDER_WAY: u32 = 1_000;
/// A load that nobody stops ends by itself.
const LONGEST: Duration = Duration::from_secs(3_600);

/// What the load is.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Requests a second.
    pub rate: u32,
    /// What is drawn at random comes from it.
    pub seed: u64,
}

/// A running load.
pub struct Load {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Result<()>>,
}

impl Load {
    /// Begins.
    pub fn start(client: &Client, settings: Settings) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(send(client.clone(), settings, Arc::clone(&stop)));
        Self { stop, task }
    }

    /// Sends no more, and waits until everything that was sent is settled.
    ///
    /// # Errors
    /// When the load had ended by itself, or broke.
    pub async fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.context("the load panicked")?
    }
}

async fn send(client: Client, settings: Settings, stop: Arc<AtomicBool>) -> Result<()> {
    let mut random = StdRng::seed_from_u64(settings.seed);
    let room = Arc::new(Semaphore::new(MOST_UNDER_WAY as usize));
    let interval = Duration::from_secs(1) / settings.rate.max(1);
    let began = Instant::now();
    let mut due = began;
    while !stop.load(Ordering::Relaxed) {
        anyhow::ensure!(began.elapsed() < LONGEST, "the load was not stopped within an hour");
        due += interval;
        sleep_until(due.into()).await;
        let request = client.draw(&mut random);
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
            client.latency().not_sent();
            continue;
        };
        let client = client.clone();
        tokio::spawn(async move {
            client.perform(request, due).await;
            drop(place);
        });
    }
    // All places are free again when everything is settled.
    let _ = room.acquire_many(MOST_UNDER_WAY).await;
    Ok(())
}
