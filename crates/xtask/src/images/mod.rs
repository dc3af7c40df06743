//! The images: ordinary Dockerfiles, built only when what goes into them has changed, and exported as archives.

mod dockerfile;
mod fingerprint;
mod store;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use self::fingerprint::Fingerprint;
pub(crate) use self::store::Store;
use crate::cargo::Programs;
use crate::stage::Stage;
use crate::workspace::{VERSION, Workspace};

/// What an image is built from.
struct Recipe {
    name: &'static str,
    dockerfile: &'static str,
    /// The Dockerfile's target. Our programs are copied as they were built here; their other target, which compiles
    /// them inside the image, is for people without this tool.
    target: Option<&'static str>,
}

const fn third_party(name: &'static str, dockerfile: &'static str) -> Recipe {
    Recipe {
        name,
        dockerfile,
        target: None,
    }
}

const fn program(name: &'static str, dockerfile: &'static str) -> Recipe {
    Recipe {
        name,
        dockerfile,
        target: Some("prebuilt"),
    }
}

const RECIPES: [Recipe; 7] = [
    third_party("postgres", "images/postgres/Dockerfile"),
    third_party("rabbitmq", "images/rabbitmq/Dockerfile"),
    third_party("mail", "images/mail/Dockerfile"),
    program("operator", "operator/Dockerfile"),
    program("order-api", "order-api/Dockerfile"),
    program("notifier", "notifier/Dockerfile"),
    program("sms-gateway", "crates/sms-gateway/Dockerfile"),
];

/// The built images.
#[derive(Debug)]
pub(crate) struct Images {
    /// One archive an image, in the order in which a cluster wants them: slow starters first.
    pub(crate) archives: Vec<PathBuf>,
    /// The store they are in.
    pub(crate) store: Store,
    // Held so that no other run replaces an archive while it is being imported.
    _lock: File,
}

/// What an archive was made from, kept beside it.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    fingerprint: String,
    image: String,
}

/// Where the images are named to come from as long as they never leave the machine.
pub(crate) const LOCAL_REGISTRY: &str = "localhost/ringwright";

/// The full name of one of our images.
pub(crate) fn reference(name: &str) -> String {
    format!("{LOCAL_REGISTRY}/{name}:{VERSION}")
}

impl Images {
    /// Pushes all of them to a registry, where the user has logged in with `buildah login`.
    pub(crate) fn push(&self, stage: &Stage, registry: &str) -> Result<()> {
        for recipe in &RECIPES {
            let destination = format!("docker://{registry}/{}:{VERSION}", recipe.name);
            stage.run(
                self.store
                    .buildah()
                    .args(["push", "--quiet", &reference(recipe.name), &destination]),
            )?;
        }
        Ok(())
    }
}

/// Builds what is not up to date; everything when `rebuild` is set.
pub(crate) fn build(stage: &Stage, workspace: &Workspace, _built: &Programs, rebuild: bool) -> Result<Images> {
    build_those(stage, workspace, |_| true, rebuild)
}

/// Builds the images of the servers alone, for tests that need no program of ours.
pub(crate) fn build_servers(stage: &Stage, workspace: &Workspace) -> Result<Images> {
    build_those(stage, workspace, |recipe| recipe.target.is_none(), false)
}

fn build_those(stage: &Stage, workspace: &Workspace, wanted: fn(&Recipe) -> bool, rebuild: bool) -> Result<Images> {
    let folder = workspace.cache().join("images");
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let lock = lock(stage, &folder.join("lock"))?;
    let store = Store::new(workspace.cache());
    let base = store.base(stage, workspace.cache(), rebuild)?;
    let mut archives = Vec::new();
    for recipe in RECIPES.iter().filter(|recipe| wanted(recipe)) {
        let archive = folder.join(format!("{}.tar", recipe.name));
        let fingerprint = recipe.fingerprint(workspace.root(), &base)?;
        let stamp = read_stamp(&archive);
        if !rebuild && stamp.fingerprint == fingerprint && archive.exists() {
            stage.doing(format!("{}: unchanged", recipe.name));
        } else {
            stage.note(format!("{}: building", recipe.name));
            let image = recipe.build(stage, workspace.root(), &store, &archive)?;
            discard(stage, &store, &stamp.image, &image);
            write_stamp(&archive, &Stamp { fingerprint, image })?;
        }
        archives.push(archive);
    }
    Ok(Images {
        archives,
        store,
        _lock: lock,
    })
}

/// One run at a time builds images; a second one waits and says so.
fn lock(stage: &Stage, path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("opening the lock {}", path.display()))?;
    if file.try_lock().is_err() {
        stage.note("another run is building images: waiting for it");
        file.lock()
            .with_context(|| format!("taking the lock {}", path.display()))?;
    }
    Ok(file)
}

impl Recipe {
    fn fingerprint(&self, root: &Path, base: &str) -> Result<String> {
        let attempt = || {
            format!(
                "finding out what the image {} is made of ({})",
                self.name, self.dockerfile
            )
        };
        let text = fs::read_to_string(root.join(self.dockerfile)).with_context(attempt)?;
        let mut fingerprint = Fingerprint::default();
        fingerprint.value("base", base);
        fingerprint.value("reference", &reference(self.name));
        fingerprint.value("target", self.target.unwrap_or_default());
        fingerprint.value("Dockerfile", &text);
        for path in dockerfile::copied_paths(&text, self.target).with_context(attempt)? {
            fingerprint.files(root, &path).with_context(attempt)?;
        }
        Ok(fingerprint.finish())
    }

    /// Builds the image, exports it and returns its id.
    fn build(&self, stage: &Stage, root: &Path, store: &Store, archive: &Path) -> Result<String> {
        let reference = reference(self.name);
        let mut bud = store.buildah();
        // chroot: the only isolation that needs no more rights than a machine without nested containers gives.
        bud.current_dir(root)
            .args(["bud", "--isolation", "chroot", "--pull=never", "--tag", &reference]);
        // Layers are kept where they are dear to make: installing packages, not copying one program.
        bud.arg(if self.target.is_none() {
            "--layers=true"
        } else {
            "--layers=false"
        });
        bud.args(self.target.iter().flat_map(|target| ["--target", target]));
        bud.args(["--file", self.dockerfile, "."]);
        stage
            .run(&mut bud)
            .with_context(|| format!("building the image {}", self.name))?;

        // Written beside its place and renamed: an interrupted export must not look like a finished one. Not
        // compressed: it is read once or twice on the same machine.
        let unfinished = archive.with_extension("unfinished");
        let _ = fs::remove_file(&unfinished);
        let destination = format!("docker-archive:{}:{reference}", unfinished.display());
        stage.run(store.buildah().args(["push", "--quiet", &reference, &destination]))?;
        fs::rename(&unfinished, archive).with_context(|| format!("moving the archive to {}", archive.display()))?;
        store
            .image_id(stage, &reference)?
            .with_context(|| format!("{reference} is gone right after it was built"))
    }
}

/// Removes the image that `new` replaces; its layers would pile up otherwise.
fn discard(stage: &Stage, store: &Store, old: &str, new: &str) {
    if !old.is_empty() && old != new {
        // It may be gone already, or in use by a database under test: the next rebuild is soon enough then.
        let _ = stage.run(store.buildah().args(["rmi", old]));
    }
}

/// No stamp, an old one or half of one all mean: build.
fn read_stamp(archive: &Path) -> Stamp {
    let text = fs::read_to_string(stamp_path(archive)).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

fn write_stamp(archive: &Path, stamp: &Stamp) -> Result<()> {
    let path = stamp_path(archive);
    let text = serde_json::to_string(stamp).context("writing a stamp as JSON")?;
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}

fn stamp_path(archive: &Path) -> PathBuf {
    archive.with_extension("json")
}

/// Refuses a checkout that has no Dockerfile for one of the images, before minutes are spent on the others.
pub(crate) fn check_recipes(workspace: &Workspace) -> Result<()> {
    let missing: Vec<_> = RECIPES
        .iter()
        .map(|recipe| recipe.dockerfile)
        .filter(|path| !workspace.root().join(path).exists())
        .collect();
    if !missing.is_empty() {
        bail!("the checkout lacks {}", missing.join(", "));
    }
    Ok(())
}
