//! Files that appear whole or not at all, since the writer may be killed at any point.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use crate::{Error, Result};

/// Replaces the file in one step. Says whether its content changed.
pub(crate) fn write_whole(path: &Path, content: &str) -> Result<bool> {
    if fs::read_to_string(path).is_ok_and(|old| old == content) {
        return Ok(false);
    }
    let unfinished = path.with_added_extension("new");
    fs::write(&unfinished, content).map_err(Error::io("writing", &unfinished))?;
    fs::rename(&unfinished, path).map_err(Error::io("replacing", path))?;
    Ok(true)
}

/// The file's content, or `None` when there is no such file.
pub(crate) fn read_if_there(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("reading", path)(error)),
    }
}

/// Makes the directory and those above it.
pub(crate) fn make_directory(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::io("making the directory", path))
}

/// Removes a tree, which need not be there.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("removing", path)(error)),
        _ => Ok(()),
    }
}

/// Removes a file, which need not be there.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("removing", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_the_same_again_is_no_change() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.json");
        assert!(write_whole(&path, "one").unwrap());
        assert!(!write_whole(&path, "one").unwrap());
        assert!(write_whole(&path, "two").unwrap());
        assert_eq!(read_if_there(&path).unwrap().as_deref(), Some("two"));
    }

    #[test]
    fn what_is_not_there_need_not_be_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("nothing");
        remove_file(&path).unwrap();
        remove_tree(&path).unwrap();
        assert_eq!(read_if_there(&path).unwrap(), None);
    }
}
