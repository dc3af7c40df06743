//! Locks that end with their holder, however it ends, and that tell who holds them.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::{Error, Result, files};

/// A held lock; dropping it lets go. The file stays unless [`Lock::remove`] is called.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock at once or says who has it. `what` names it in the error.
    pub(crate) fn take(path: &Path, what: &str) -> Result<Self> {
        loop {
            let file = open(path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::Held {
                        what: what.to_owned(),
                        holder: read_holder(path),
                    });
                }
                Err(TryLockError::Error(error)) => return Err(Error::io("locking", path)(error)),
            }
            if let Some(lock) = Self::settle(file, path)? {
                return Ok(lock);
            }
        }
    }

    /// Waits for the lock: for those held for moments only.
    pub(crate) fn wait(path: &Path) -> Result<Self> {
        loop {
            let file = open(path)?;
            file.lock().map_err(Error::io("locking", path))?;
            if let Some(lock) = Self::settle(file, path)? {
                return Ok(lock);
            }
        }
    }

    /// Who holds the lock, if anyone does.
    pub(crate) fn holder(path: &Path) -> Result<Option<String>> {
        let Ok(file) = File::open(path) else { return Ok(None) };
        match file.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => Ok(Some(read_holder(path))),
            Err(TryLockError::Error(error)) => Err(Error::io("looking at the lock", path)(error)),
        }
    }

    /// Lets go and leaves no file.
    pub(crate) fn remove(self) -> Result<()> {
        files::remove_file(&self.path)
    }

    /// Signs the lock, unless the file was removed by its last holder while this one waited for it.
    fn settle(mut file: File, path: &Path) -> Result<Option<Self>> {
        let locked = file.metadata().map_err(Error::io("looking at", path))?.ino();
        if fs::metadata(path).map(|there| there.ino()).ok() != Some(locked) {
            return Ok(None);
        }
        file.set_len(0).map_err(Error::io("signing", path))?;
        let command: Vec<_> = std::env::args().collect();
        write!(file, "process {} ({})", std::process::id(), command.join(" ")).map_err(Error::io("signing", path))?;
        Ok(Some(Self {
            file,
            path: path.to_owned(),
        }))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing would do; said for the reader.
        let _ = self.file.unlock();
    }
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .map_err(Error::io("opening", path))
}

fn read_holder(path: &Path) -> String {
    fs::read_to_string(path)
        .ok()
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| "a process that did not sign".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_taker_is_told_who_holds_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let held = Lock::take(&path, "the test").unwrap();
        let error = Lock::take(&path, "the test").unwrap_err().to_string();
        assert!(
            error.contains("the test") && error.contains(&format!("process {}", std::process::id())),
            "{error}"
        );
        assert!(Lock::holder(&path).unwrap().is_some());
        drop(held);
        assert_eq!(Lock::holder(&path).unwrap(), None);
        Lock::take(&path, "the test").unwrap();
    }

    #[test]
    fn a_removed_lock_can_be_taken_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        Lock::take(&path, "the test").unwrap().remove().unwrap();
        assert!(!path.exists());
        Lock::take(&path, "the test").unwrap();
    }

    #[test]
    fn who_waits_for_a_lock_that_is_removed_gets_the_new_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let held = Lock::take(&path, "the test").unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| Lock::wait(&path).unwrap());
            held.remove().unwrap();
            let lock = waiting.join().unwrap();
            assert_eq!(fs::metadata(&path).unwrap().ino(), lock.file.metadata().unwrap().ino());
        });
    }
}
