//! Where an instance keeps what it keeps: a directory of the user, so that any clone finds it.

use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};
use serde::{Deserialize, Serialize};

use crate::{Error, NodeName, Result, files};

/// The directories of one instance.
#[derive(Debug, Clone)]
pub(crate) struct State {
    root: PathBuf,
}

/// What an instance notes about itself when it is first started. Without it, whatever else lies there is rubble.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) slot: u8,
    pub(crate) tools: PathBuf,
}

impl State {
    pub(crate) fn of(name: &str) -> Result<Self> {
        Ok(Self {
            root: base("XDG_STATE_HOME", ".local/state")?.join(name),
        })
    }

    #[cfg(test)]
    pub(crate) fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Beside the state rather than in it, as it is held while the state is removed.
    pub(crate) fn lock(&self) -> PathBuf {
        self.root.with_added_extension("lock")
    }

    pub(crate) fn credentials(&self) -> PathBuf {
        self.root.join("credentials")
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.credentials().join("admin.kubeconfig")
    }

    pub(crate) fn control_plane(&self) -> PathBuf {
        self.root.join("control-plane")
    }

    pub(crate) fn node(&self, node: NodeName) -> PathBuf {
        self.root.join(node.to_string())
    }

    pub(crate) fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    pub(crate) fn record(&self) -> Result<Option<Record>> {
        let path = self.record_path();
        let Some(text) = files::read_if_there(&path)? else {
            return Ok(None);
        };
        serde_json::from_str(&text).map(Some).map_err(|error| {
            Error::Invalid(format!(
                "{} is not readable: {error}; remove it and start again",
                path.display()
            ))
        })
    }

    pub(crate) fn write_record(&self, record: &Record) -> Result<()> {
        let text = serde_json::to_string_pretty(record).map_err(|error| Error::Invalid(error.to_string()))?;
        files::write_whole(&self.record_path(), &text).map(drop)
    }

    fn record_path(&self) -> PathBuf {
        self.root.join("instance.json")
    }
}

/// Where the built tools are kept.
pub(crate) fn cache() -> Result<PathBuf> {
    base("XDG_CACHE_HOME", ".cache")
}

/// Our directory below the one that the variable names, or below that of the home directory.
fn base(variable: &str, fallback: &str) -> Result<PathBuf> {
    let named = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let home = || named("HOME").or_else(|| User::from_uid(Uid::current()).ok().flatten().map(|user| user.dir));
    named(variable)
        .or_else(|| home().map(|home| home.join(fallback)))
        .map(|directory| directory.join("ringwright"))
        .ok_or_else(|| Error::Invalid(format!("neither {variable} nor HOME is set; set one")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_outlives_the_state_and_dots_in_names_do_no_harm() {
        let state = State::at(Path::new("/s/ringwright/up.1"));
        assert_eq!(state.lock(), Path::new("/s/ringwright/up.1.lock"));
        assert!(!state.lock().starts_with(state.root()));
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let state = State::at(directory.path());
        assert_eq!(state.record().unwrap(), None);
        let record = Record {
            slot: 3,
            tools: "/t".into(),
        };
        state.write_record(&record).unwrap();
        assert_eq!(state.record().unwrap(), Some(record));
    }

    #[test]
    fn a_damaged_record_says_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let state = State::at(directory.path());
        std::fs::write(state.record_path(), "{").unwrap();
        assert!(
            state
                .record()
                .unwrap_err()
                .to_string()
                .contains("instance.json is not readable")
        );
    }
}
