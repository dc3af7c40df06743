//! The images: ordinary Dockerfiles, built only when what goes into them has changed, and exported as archives.

mod dockerfile;
mod fingerprint;
mod store;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

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

/// The built images. Each archive has the digest of its making in its name and never changes, so that another run may
/// build while this one imports.
#[derive(Debug)]
pub(crate) struct Images {
    images: Vec<Image>,
    store: Store,
}

#[derive(Debug)]
struct Image {
    name: &'static str,
    /// Its name in the store, by digest.
    stored: String,
    /// Its id, which a pod that runs it reports.
    id: String,
    archive: PathBuf,
}

/// Where the images are named to come from as long as they never leave the machine.
pub(crate) const LOCAL_REGISTRY: &str = "localhost/ringwright";
/// So many makings of an image are kept: the newest, and one that another run or checkout may be using.
const KEPT: usize = 2;

impl Images {
    /// One archive an image, in the order in which a cluster wants them: slow starters first.
    pub(crate) fn archives(&self) -> impl Iterator<Item = &Path> {
        self.images.iter().map(|image| image.archive.as_path())
    }

    /// The store they are in.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// An image's name in the store.
    pub(crate) fn stored(&self, name: &str) -> Result<&str> {
        let found = self.images.iter().find(|image| image.name == name);
        Ok(&found.with_context(|| format!("there is no image {name}"))?.stored)
    }

    /// An image's id, if there is such an image.
    pub(crate) fn id(&self, name: &str) -> Option<&str> {
        self.images
            .iter()
            .find(|image| image.name == name)
            .map(|image| image.id.as_str())
    }

    /// Pushes all of them to a registry, where the user has logged in with `buildah login`.
    pub(crate) fn push(&self, stage: &Stage, registry: &str) -> Result<()> {
        for image in &self.images {
            let destination = format!("docker://{registry}/{}:{VERSION}", image.name);
            stage.run(
                self.store
                    .buildah()
                    .args(["push", "--quiet", &image.stored, &destination]),
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
    let _lock = lock(stage, &folder.join("lock"))?;
    let store = Store::new(workspace.cache());
    store.sweep(stage)?;
    let base = store.base(stage, workspace.cache(), rebuild)?;
    let stored = store.images(stage)?;
    let mut images = Vec::new();
    for recipe in RECIPES.iter().filter(|recipe| wanted(recipe)) {
        let digest = &recipe.digest(workspace.root(), &base)?[..16];
        let mut image = Image {
            name: recipe.name,
            stored: format!("{LOCAL_REGISTRY}/{}:{digest}", recipe.name),
            id: String::new(),
            archive: folder.join(format!("{}-{digest}.tar", recipe.name)),
        };
        match stored.get(&image.stored) {
            Some(id) if !rebuild && image.archive.exists() => {
                stage.doing(format!("{}: unchanged", recipe.name));
                image.id.clone_from(id);
            }
            _ => {
                stage.note(format!("{}: building", recipe.name));
                image.id = recipe.build(stage, workspace.root(), &store, &image)?;
                discard_old(stage, &store, &image, &folder)?;
            }
        }
        images.push(image);
    }
    Ok(Images { images, store })
}

/// Throws away what killed runs have left in the store.
pub(crate) fn sweep(stage: &Stage, workspace: &Workspace) -> Result<()> {
    let (store, lock_file) = (Store::new(workspace.cache()), workspace.cache().join("images/lock"));
    if !store.exists() || !lock_file.exists() {
        return Ok(());
    }
    let _lock = lock(stage, &lock_file)?;
    store.sweep(stage)
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
    /// A digest over everything the image is made of.
    fn digest(&self, root: &Path, base: &str) -> Result<String> {
        let attempt = || {
            format!(
                "finding out what the image {} is made of ({})",
                self.name, self.dockerfile
            )
        };
        let text = fs::read_to_string(root.join(self.dockerfile)).with_context(attempt)?;
        let mut fingerprint = Fingerprint::default();
        fingerprint.value("base", base);
        fingerprint.value("version", VERSION);
        fingerprint.value("target", self.target.unwrap_or_default());
        fingerprint.value("Dockerfile", &text);
        for path in dockerfile::copied_paths(&text, self.target).with_context(attempt)? {
            fingerprint.files(root, &path).with_context(attempt)?;
        }
        Ok(fingerprint.finish())
    }

    /// Builds the image, exports it and returns its id.
    fn build(&self, stage: &Stage, root: &Path, store: &Store, image: &Image) -> Result<String> {
        let mut bud = store.buildah();
        // chroot: the only isolation that needs no more rights than a machine without nested containers gives.
        bud.current_dir(root)
            .args(["bud", "--isolation", "chroot", "--pull=never", "--tag", &image.stored]);
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
        let unfinished = image.archive.with_extension("unfinished");
        let _ = fs::remove_file(&unfinished);
        let destination = format!(
            "docker-archive:{}:{LOCAL_REGISTRY}/{}:{VERSION}",
            unfinished.display(),
            self.name
        );
        stage.run(store.buildah().args(["push", "--quiet", &image.stored, &destination]))?;
        let attempt = || format!("moving the archive to {}", image.archive.display());
        fs::rename(&unfinished, &image.archive).with_context(attempt)?;
        let id = store.images(stage)?.remove(&image.stored);
        id.with_context(|| format!("{} is gone right after it was built", image.stored))
    }
}

/// Removes older makings of an image, in the store and beside the archive; their layers would pile up otherwise.
fn discard_old(stage: &Stage, store: &Store, image: &Image, folder: &Path) -> Result<()> {
    let prefix = format!("{}-", image.name);
    let mut archives = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))? {
        let entry = entry.with_context(|| format!("listing {}", folder.display()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let digest = name.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(".tar"));
        if let Some(digest) = digest.filter(|digest| digest.len() == 16) {
            let written = entry.metadata().and_then(|metadata| metadata.modified());
            archives.push((
                written.context("asking when an archive was written")?,
                digest.to_owned(),
                entry.path(),
            ));
        }
    }
    archives.sort();
    let kept = archives.len().saturating_sub(KEPT);
    for (_, digest, path) in archives.drain(..kept) {
        fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        // It may be in use by a database under test: then it stays until somebody removes the cache.
        let _ = stage.run(
            store
                .buildah()
                .args(["rmi", &format!("{LOCAL_REGISTRY}/{}:{digest}", image.name)]),
        );
    }
    Ok(())
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
