use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use ring::{EncodedRing, Epoch, Ring, decode};

/// A place that rings come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The mounted ConfigMap.
    Directory,
    /// The ConfigMap by the API server.
    ConfigMap,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Directory => "the mounted directory",
            Self::ConfigMap => "the ConfigMap",
        })
    }
}

/// What a place has now: a ring as it is written there, or why there is none.
pub(crate) struct Offer {
    pub(crate) origin: Origin,
    pub(crate) content: Result<EncodedRing, String>,
}

/// A ring that was not taken, and still stands where it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Where it was found.
    pub origin: Origin,
    /// What is wrong with it.
    pub reason: String,
    /// When it was found.
    pub at: SystemTime,
}

/// What is known about the ring of a program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The epoch of the ring in use; none before the first.
    pub epoch: Option<Epoch>,
    /// How many rings were refused since the program started.
    pub refused: u64,
    /// The last refusal, until the place where it happened has a good ring again.
    pub refusal: Option<Refusal>,
}

/// Decides which of the rings that are offered is used.
#[derive(Default)]
pub(crate) struct Keeper {
    ring: Option<Arc<Ring>>,
    places: [Place; 2],
    refused: u64,
    status: Arc<ArcSwap<Status>>,
}

/// What is remembered of a place.
#[derive(Default)]
struct Place {
    highest: Option<Epoch>,
    refusal: Option<Refusal>,
}

impl Keeper {
    /// Takes a ring that is newer than the one in use, and returns it then.
    pub(crate) fn judge(&mut self, offer: Offer) -> Option<Arc<Ring>> {
        let Offer { origin, content } = offer;
        let verdict = self.examine(origin, content);
        let place = &mut self.places[origin as usize];
        let taken = match verdict {
            Ok(taken) => {
                place.refusal = None;
                taken.map(Arc::new)
            }
            Err(reason) => {
                self.refused += 1;
                tracing::warn!(%origin, reason, "ring refused");
                place.refusal = Some(Refusal {
                    origin,
                    reason,
                    at: SystemTime::now(),
                });
                None
            }
        };
        if let Some(ring) = &taken {
            tracing::info!(%origin, epoch = ring.epoch().get(), shards = ring.shards().len(), "ring taken");
            self.ring = Some(Arc::clone(ring));
        }
        self.publish_status();
        taken
    }

    /// The ring if it is to be used, nothing if it is good and not newer, or what is wrong with it.
    fn examine(&mut self, origin: Origin, content: Result<EncodedRing, String>) -> Result<Option<Ring>, String> {
        let ring = decode(&content?).map_err(|error| telemetry::chain(&error))?;
        let epoch = ring.epoch();
        let place = &mut self.places[origin as usize];
        if let Some(highest) = place.highest.filter(|&highest| epoch < highest) {
            return Err(format!(
                "it has epoch {epoch}, but there was one of epoch {highest} before"
            ));
        }
        place.highest = Some(epoch);
        match &self.ring {
            None => Ok(Some(ring)),
            Some(current) if epoch > current.epoch() => Ok(Some(ring)),
            Some(current) if epoch == current.epoch() && ring != **current => {
                Err(format!("it has epoch {epoch} like the ring in use, but is another one"))
            }
            // The same ring again, or one of a place that lags behind the other, as a mounted ConfigMap does.
            Some(_) => Ok(None),
        }
    }

    /// What each place said last, for the error of a program that finds no ring.
    pub(crate) fn reasons(&self) -> String {
        let refusals = self.places.iter().filter_map(|place| place.refusal.as_ref());
        let reasons: Vec<String> = refusals
            .map(|refusal| format!("{}: {}", refusal.origin, refusal.reason))
            .collect();
        if reasons.is_empty() {
            "nothing answered".to_owned()
        } else {
            reasons.join("; ")
        }
    }

    pub(crate) fn status_handle(&self) -> Arc<ArcSwap<Status>> {
        Arc::clone(&self.status)
    }

    fn publish_status(&self) {
        let standing = self.places.iter().filter_map(|place| place.refusal.clone());
        self.status.store(Arc::new(Status {
            epoch: self.ring.as_ref().map(|ring| ring.epoch()),
            refused: self.refused,
            refusal: standing.max_by_key(|refusal| refusal.at),
        }));
    }
}
