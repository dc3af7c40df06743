//! Crashes on purpose: tests let an operation of several steps end as if its process had died between them. Outside of
//! tests nothing of it is left.

use crate::error::StoreError;

#[derive(Default)]
pub(crate) struct Failpoint {
    #[cfg(test)]
    armed: std::sync::Mutex<Option<&'static str>>,
}

#[cfg(not(test))]
impl Failpoint {
    #[inline]
    pub(crate) fn hit(&self, _: &'static str) -> Result<(), StoreError> {
        Ok(())
    }

    #[inline]
    pub(crate) fn is_crash(_: &StoreError) -> bool {
        false
    }
}

#[cfg(test)]
impl Failpoint {
    const OPERATION: &'static str = "survive a failpoint";

    /// The next operation that comes to `point` ends there.
    pub(crate) fn arm(&self, point: &'static str) {
        *self.armed.lock().unwrap() = Some(point);
    }

    pub(crate) fn hit(&self, point: &'static str) -> Result<(), StoreError> {
        let mut armed = self.armed.lock().unwrap();
        if *armed != Some(point) {
            return Ok(());
        }
        *armed = None;
        let (operation, shard) = (Self::OPERATION, ring::Ordinal(0));
        Err(StoreError::BadRow {
            operation,
            shard,
            why: point.to_owned(),
        })
    }

    /// A dead process cleans nothing up.
    pub(crate) fn is_crash(error: &StoreError) -> bool {
        matches!(
            error,
            StoreError::BadRow {
                operation: Self::OPERATION,
                ..
            }
        )
    }
}
