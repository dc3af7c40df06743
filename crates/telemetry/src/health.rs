use std::collections::BTreeMap;
use std::fmt::Display;
use std::pin::Pin;
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// A check that takes longer has failed: Kubernetes gives a probe one second by default, and wants an answer.
const CHECK_LIMIT: Duration = Duration::from_millis(800);

type Outcome = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;
type Check = Box<dyn Fn() -> Outcome + Send + Sync>;

/// The named conditions under which a program wants to be sent work.
#[derive(Default)]
pub struct Readiness {
    checks: Vec<(&'static str, Check)>,
}

/// What the checks said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether all passed.
    pub ready: bool,
    /// The reason of each check that did not pass.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub failing: BTreeMap<&'static str, String>,
}

impl Readiness {
    /// Adds a check. It says why not, if not; it must be cheap, as it is asked every few seconds.
    #[must_use]
    pub fn with_check<C, F, E>(mut self, name: &'static str, check: C) -> Self
    where
        C: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Display,
    {
        let check = move || -> Outcome {
            let outcome = check();
            Box::pin(async move { outcome.await.map_err(|reason| reason.to_string()) })
        };
        self.checks.push((name, Box::new(check)));
        self
    }

    /// Not ready any more once the program is stopping, so that it is sent nothing new while it finishes.
    #[must_use]
    pub fn until(self, shutdown: CancellationToken) -> Self {
        self.with_check("shutdown", move || {
            let stopping = shutdown.is_cancelled();
            async move {
                if stopping {
                    Err("the program is stopping")
                } else {
                    Ok(())
                }
            }
        })
    }

    /// Asks all checks at the same time.
    pub async fn report(&self) -> Report {
        let mut running = JoinSet::new();
        for (name, check) in &self.checks {
            let (name, outcome) = (*name, check());
            running.spawn(async move {
                let late = || Err(format!("no answer within {} ms", CHECK_LIMIT.as_millis()));
                (name, timeout(CHECK_LIMIT, outcome).await.unwrap_or_else(|_| late()))
            });
        }
        // A panic of a check has no name any more, but must not pass for an answer.
        let mut failing: BTreeMap<&'static str, String> = BTreeMap::new();
        while let Some(outcome) = running.join_next().await {
            match outcome {
                Ok((_, Ok(()))) => {}
                Ok((name, Err(reason))) => drop(failing.insert(name, reason)),
                Err(panic) => drop(failing.insert("readiness", panic.to_string())),
            }
        }
        Report {
            ready: failing.is_empty(),
            failing,
        }
    }
}
