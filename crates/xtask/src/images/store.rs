//! Buildah over an image store of our own.
//!
//! Not the machine's store: ours holds a base image under Docker's name for it, which should surprise nobody else, and
//! removing the cache folder removes it whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::images::fingerprint::Fingerprint;
use crate::stage::Stage;

/// The name under which the Dockerfiles ask for the base.
const BASE: &str = "docker.io/library/debian:trixie-slim";
/// Everything the base is made of; a change makes a new one. What is left out, here and of every package that a Dockerfile
/// adds, is what Docker's slim images leave out: documentation, translations, apt's own caches.
const BASE_RECIPE: [&str; 14] = [
    "--variant=minbase",
    "--include=ca-certificates",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
    "--dpkgopt=path-exclude=/usr/share/groff/*",
    "--dpkgopt=path-exclude=/usr/share/info/*",
    "--dpkgopt=path-exclude=/usr/share/lintian/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-include=/usr/share/locale/locale.alias",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--aptopt=Acquire::Languages \"none\"",
    "--aptopt=Dir::Cache::pkgcache \"\"",
    "--aptopt=Dir::Cache::srcpkgcache \"\"",
    "trixie",
];

/// In the name of a container that a process has mounted, before the process's id.
const MOUNTED_BY: &str = "mounted-by-";

/// The store.
#[derive(Debug)]
pub(crate) struct Store {
    root: PathBuf,
    run: PathBuf,
}

impl Store {
    /// The store in this cache folder.
    pub(crate) fn new(cache: &Path) -> Self {
        let root = cache.join("image-store");
        // Which layers are mounted is true until the machine restarts, so it is kept where a restart forgets it; and by
        // root folder, so that two users' stores stay apart.
        let mut name = Fingerprint::default();
        name.value("root", &root.to_string_lossy());
        let run = Path::new("/run/ringwright").join(format!("image-store-{}", &name.finish()[..12]));
        Self { root, run }
    }

    /// Whether anything was ever built.
    pub(crate) fn exists(&self) -> bool {
        self.root.exists()
    }

    /// A buildah command on this store.
    pub(crate) fn buildah(&self) -> Command {
        let mut command = Command::new("buildah");
        command.arg("--root").arg(&self.root).arg("--runroot").arg(&self.run);
        command
    }

    /// The images in the store: full name and id.
    pub(crate) fn images(&self, stage: &Stage) -> Result<BTreeMap<String, String>> {
        let format = ["images", "--no-trunc", "--format", "{{.Name}}:{{.Tag}} {{.ID}}"];
        Ok(parse_images(&stage.read(self.buildah().args(format))?))
    }

    /// Makes the Debian base if it is not there, and returns its image id.
    ///
    /// The Dockerfiles name Docker's own base, so that they build anywhere; here, where only package registries can be
    /// reached, the same system is put together from Debian's packages.
    pub(crate) fn base(&self, stage: &Stage, cache: &Path, rebuild: bool) -> Result<String> {
        let mut recipe = Fingerprint::default();
        recipe.value("mmdebstrap", &BASE_RECIPE.join(" "));
        let ours = format!("localhost/ringwright/debian-base:{}", &recipe.finish()[..12]);
        if rebuild || !self.images(stage)?.contains_key(&ours) {
            stage.note("debian trixie: putting the base together from packages");
            self.bootstrap(stage, &cache.join("debian-base.tar"), &ours)?;
        }
        stage.run(self.buildah().args(["tag", &ours, BASE]))?;
        self.images(stage)?
            .remove(&ours)
            .context("the base image is gone right after it was made")
    }

    fn bootstrap(&self, stage: &Stage, archive: &Path, reference: &str) -> Result<()> {
        stage.run(Command::new("mmdebstrap").args(BASE_RECIPE).arg(archive))?;
        let container = stage.read(self.buildah().args(["from", "scratch"]))?;
        let container = container.trim();
        stage.run(self.buildah().args(["add", "--quiet", container]).arg(archive).arg("/"))?;
        stage.run(self.buildah().args(["config", "--cmd", "/bin/bash", container]))?;
        stage.run(self.buildah().args(["commit", "--quiet", "--rm", container, reference]))?;
        std::fs::remove_file(archive).with_context(|| format!("removing {}", archive.display()))
    }

    /// A container's file system of an image, mounted for as long as this process lives.
    pub(crate) fn mount(&self, stage: &Stage, purpose: &str, image: &str) -> Result<PathBuf> {
        let name = format!("{purpose}-{MOUNTED_BY}{}", std::process::id());
        stage.run(self.buildah().args(["from", "--pull=never", "--name", &name, image]))?;
        Ok(PathBuf::from(stage.read(self.buildah().args(["mount", &name]))?.trim()))
    }

    /// Throws away the containers that this process has mounted.
    pub(crate) fn unmount(&self, stage: &Stage) -> Result<()> {
        self.remove_containers(stage, |owner| owner == Some(std::process::id()))
    }

    /// Throws away the containers of builds and processes that were killed. Not to be called beside a running build.
    pub(crate) fn sweep(&self, stage: &Stage) -> Result<()> {
        let lives = |process: u32| {
            let name = std::fs::read_to_string(format!("/proc/{process}/comm"));
            name.is_ok_and(|name| name.trim() == env!("CARGO_PKG_NAME"))
        };
        self.remove_containers(stage, |owner| !owner.is_some_and(lives))
    }

    fn remove_containers(&self, stage: &Stage, unwanted: impl Fn(Option<u32>) -> bool) -> Result<()> {
        let containers = stage.read(self.buildah().args(["containers", "--format", "{{.ContainerName}}"]))?;
        let mut left = 0;
        for name in containers.lines() {
            let owner = name
                .rsplit_once(MOUNTED_BY)
                .and_then(|(_, process)| process.parse().ok());
            if unwanted(owner) {
                stage.run(self.buildah().args(["rm", name]))?;
            } else {
                left += 1;
            }
        }
        if left == 0 { self.close(stage) } else { Ok(()) }
    }

    /// Takes back the mount that buildah leaves on its own folder.
    fn close(&self, stage: &Stage) -> Result<()> {
        let folder = self.root.join("overlay");
        let mounts = std::fs::read_to_string("/proc/self/mounts").context("reading what is mounted")?;
        let mut mounted = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        if mounted.any(|at| Path::new(at) == folder) {
            stage.run(Command::new("umount").arg(&folder))?;
        }
        Ok(())
    }
}

/// Buildah lines its columns up: how many spaces stand before an id depends on the longest name.
fn parse_images(listing: &str) -> BTreeMap<String, String> {
    let named = listing.lines().filter_map(|line| line.split_once(' '));
    named
        .map(|(name, id)| (name.to_owned(), id.trim().to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_without_the_spaces_of_the_columns() {
        let images =
            parse_images("localhost/a:1      sha256:aa\nlocalhost/longer:1 sha256:bb\n<none>:<none>      sha256:cc\n");
        assert_eq!(images["localhost/a:1"], "sha256:aa");
        assert_eq!(images["localhost/longer:1"], "sha256:bb");
    }
}
