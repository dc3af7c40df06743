//! Remembers what was asked and answered, in memory, and when, on one clock.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::history::History;
use crate::history::record::{Attempt, Intent, Moment, OperationId, Outcome, Read, Span};

/// The monotonic clock of a run. Cheap to copy; all copies agree.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// A clock that begins now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The time since its start.
    pub fn now(&self) -> Moment {
        Moment(u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

/// Takes in what all clients of a run do. Cheap to clone; all clones share it.
#[derive(Debug, Clone)]
pub struct Recorder {
    /// When things happened.
    pub clock: Clock,
    history: Arc<Mutex<History>>,
}

impl Recorder {
    /// An empty history.
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            history: Arc::default(),
        }
    }

    /// A client wants this done; the number is part of what it will write.
    pub fn wish(&self, intent: Intent) -> OperationId {
        let mut history = self.lock();
        history.operations.push(intent);
        OperationId(u32::try_from(history.operations.len() - 1).unwrap_or(u32::MAX))
    }

    /// An attempt has ended.
    pub fn attempt(&self, operation: OperationId, span: Span, outcome: Outcome) {
        self.lock().attempts.push(Attempt {
            operation,
            span,
            outcome,
        });
    }

    /// A read has ended.
    pub fn read(&self, read: Read) {
        self.lock().reads.push(read);
    }

    /// Hands the history over, and begins an empty one.
    pub fn take(&self) -> History {
        std::mem::take(&mut *self.lock())
    }

    /// Nothing is left half done by a panic, so a poisoned lock is as good as any.
    fn lock(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
