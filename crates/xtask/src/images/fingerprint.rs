//! One digest over everything an image is made of.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// Collects what goes into an image.
#[derive(Default)]
pub(crate) struct Fingerprint(Sha256);

impl Fingerprint {
    /// Adds a named value.
    pub(crate) fn value(&mut self, name: &str, value: &str) {
        // With the lengths, no two different sequences of values run together into the same bytes.
        self.0.update(format!("{}:{name}={}:", name.len(), value.len()));
        self.0.update(value);
    }

    /// Adds a file, or a folder with everything below it. A path that ends in a pattern (`scripts/*.sh`) stands for
    /// the folder it is in: building once too often is cheap, not building is wrong.
    pub(crate) fn files(&mut self, root: &Path, path: &str) -> Result<()> {
        let folder = match path.find(['*', '?', '[']) {
            Some(pattern) => path[..pattern].rsplit_once('/').map_or(".", |(folder, _)| folder),
            None => path,
        };
        let mut files = Vec::new();
        list(&root.join(folder), &mut files).with_context(|| format!("listing {folder}"))?;
        files.sort();
        for file in files {
            let name = file.strip_prefix(root).unwrap_or(&file).to_string_lossy().into_owned();
            self.file(&name, &file).with_context(|| format!("reading {name}"))?;
        }
        Ok(())
    }

    fn file(&mut self, name: &str, file: &Path) -> Result<()> {
        let metadata = fs::symlink_metadata(file)?;
        if metadata.is_symlink() {
            self.value(name, &fs::read_link(file)?.to_string_lossy());
            return Ok(());
        }
        self.value(name, &format!("{:o} {}", metadata.permissions().mode(), metadata.len()));
        let mut content = Sha256::new();
        io::copy(&mut File::open(file)?, &mut DigestWriter(&mut content))?;
        self.0.update(content.finalize());
        Ok(())
    }

    /// The digest, in hexadecimal.
    pub(crate) fn finish(self) -> String {
        self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

struct DigestWriter<'a>(&'a mut Sha256);

impl io::Write for DigestWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn list(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let metadata = fs::symlink_metadata(path).with_context(|| format!("looking at {}", path.display()))?;
    if !metadata.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path).with_context(|| format!("listing {}", path.display()))? {
        list(&entry?.path(), files)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(root: &Path, path: &str) -> String {
        let mut fingerprint = Fingerprint::default();
        fingerprint.files(root, path).unwrap();
        fingerprint.finish()
    }

    #[test]
    fn content_names_and_modes_all_count() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a/start.sh");
        fs::create_dir(folder.path().join("a")).unwrap();
        fs::write(&file, "one").unwrap();
        let first = of(folder.path(), "a");
        assert_eq!(first, of(folder.path(), "a/*.sh"), "a pattern stands for its folder");

        fs::write(&file, "two").unwrap();
        let changed = of(folder.path(), "a");
        assert_ne!(first, changed);

        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        let executable = of(folder.path(), "a");
        assert_ne!(changed, executable);

        fs::rename(&file, folder.path().join("a/stop.sh")).unwrap();
        assert_ne!(executable, of(folder.path(), "a"));
    }

    #[test]
    fn values_do_not_run_together() {
        let mut one = Fingerprint::default();
        one.value("a", "bc");
        let mut other = Fingerprint::default();
        other.value("ab", "c");
        assert_ne!(one.finish(), other.finish());
    }
}
