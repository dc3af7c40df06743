//! Buildah over an image store of our own.
//!
//! Not the machine's store: ours holds a base image under Docker's name for it, which should surprise nobody else, and
//! removing the cache folder removes it whole.

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

    /// The id of an image, if the store has it.
    pub(crate) fn image_id(&self, stage: &Stage, reference: &str) -> Result<Option<String>> {
        let format = ["images", "--no-trunc", "--format", "{{.Name}}:{{.Tag}} {{.ID}}"];
        let images = stage.read(self.buildah().args(format))?;
        let found = images
            .lines()
            .filter_map(|line| line.split_once(' '))
            .find(|(name, _)| *name == reference);
        Ok(found.map(|(_, id)| id.to_owned()))
    }

    /// Makes the Debian base if it is not there, and returns its image id.
    ///
    /// The Dockerfiles name Docker's own base, so that they build anywhere; here, where only package registries can be
    /// reached, the same system is put together from Debian's packages.
    pub(crate) fn base(&self, stage: &Stage, cache: &Path, rebuild: bool) -> Result<String> {
        let mut recipe = Fingerprint::default();
        recipe.value("mmdebstrap", &BASE_RECIPE.join(" "));
        let ours = format!("localhost/ringwright/debian-base:{}", &recipe.finish()[..12]);
        if rebuild || self.image_id(stage, &ours)?.is_none() {
            stage.note("debian trixie: putting the base together from packages");
            self.bootstrap(stage, &cache.join("debian-base.tar"), &ours)?;
        }
        stage.run(self.buildah().args(["tag", &ours, BASE]))?;
        self.image_id(stage, &ours)?
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

    /// Takes back the mount that buildah leaves on its own folder.
    pub(crate) fn close(&self, stage: &Stage) -> Result<()> {
        let folder = self.root.join("overlay");
        let mounts = std::fs::read_to_string("/proc/self/mounts").context("reading what is mounted")?;
        let mounted = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(1))
            .any(|at| Path::new(at) == folder);
        if mounted {
            stage.run(Command::new("umount").arg(&folder))
        } else {
            Ok(())
        }
    }

    /// A container's file system of an image, mounted. One of that name from an earlier run is thrown away first.
    pub(crate) fn mount(&self, stage: &Stage, name: &str, reference: &str) -> Result<PathBuf> {
        self.unmount(stage, name)?;
        stage.run(self.buildah().args(["from", "--pull=never", "--name", name, reference]))?;
        Ok(PathBuf::from(stage.read(self.buildah().args(["mount", name]))?.trim()))
    }

    /// Throws away the container, with what was written in it.
    pub(crate) fn unmount(&self, stage: &Stage, name: &str) -> Result<()> {
        let containers = stage.read(self.buildah().args(["containers", "--format", "{{.ContainerName}}"]))?;
        if containers.lines().any(|line| line == name) {
            stage.run(self.buildah().args(["rm", name]))?;
        }
        Ok(())
    }
}
