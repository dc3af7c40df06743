//! Crashes on purpose, for tests only: the steps of an operation end as if the process had died there.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use ring::Ordinal;

use crate::error::StoreError;

#[derive(Default)]
pub(crate) struct Failpoint {
    armed: Mutex<Option<&'static str>>,
    crashed: AtomicBool,
}

impl Failpoint {
    /// The next operation that comes to `point` ends there.
    pub(crate) fn arm(&self, point: &'static str) {
        self.crashed.store(false, Ordering::SeqCst);
        *self.armed.lock().unwrap() = Some(point);
    }

    pub(crate) fn hit(&self, point: &'static str) -> Result<(), StoreError> {
        let mut armed = self.armed.lock().unwrap();
        if *armed != Some(point) {
            return Ok(());
        }
        *armed = None;
        self.crashed.store(true, Ordering::SeqCst);
        Err(StoreError::BadRow {
            operation: "survive a failpoint",
            shard: Ordinal(0),
            why: point.to_owned(),
        })
    }

    /// A dead process cleans nothing up.
    pub(crate) fn has_crashed(&self) -> bool {
        self.crashed.load(Ordering::SeqCst)
    }
}
