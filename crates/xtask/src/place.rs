//! Where `up` installs: a Kubernetes of its own, or, only when asked by name, somebody else's.

use std::fs::{OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use hermetic_cluster::{Cluster, Instance, tools::Tools};

use crate::images::{self, Images};
use crate::stage::Stage;

/// The choice on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum On {
    /// A three-node Kubernetes on this machine, from package registries alone.
    Hermetic,
    /// A kind cluster named `ringwright`, made beforehand with `kind create cluster --name ringwright`.
    Kind,
    /// Whatever cluster kubectl talks to now. Images are pushed to `--registry`.
    CurrentContext,
}

/// A Kubernetes to install into.
#[derive(Debug)]
pub(crate) struct Place {
    kubectl: PathBuf,
    helm: PathBuf,
    kubeconfig: Option<PathBuf>,
    supply: Supply,
}

/// How images get there.
#[derive(Debug)]
enum Supply {
    /// The cluster's lock is held as long as this is: nobody removes it meanwhile.
    Hermetic(Cluster),
    Kind,
    Registry(String),
}

/// The kind cluster that is used.
const KIND_CLUSTER: &str = "ringwright";

impl Place {
    /// Starts a hermetic instance, or takes it over as it runs.
    pub(crate) fn hermetic(stage: &Stage, tools: &Tools, instance: &Instance) -> Result<Self> {
        let cluster = instance.start(&stage.progress())?;
        Ok(Self {
            kubectl: tools.kubectl(),
            helm: tools.helm(),
            kubeconfig: Some(cluster.kubeconfig_path().to_owned()),
            supply: Supply::Hermetic(cluster),
        })
    }

    /// The kind cluster, through a kubeconfig of its own: the user's current context is left alone.
    pub(crate) fn kind(stage: &Stage, folder: &Path) -> Result<Self> {
        let kubeconfig = folder.join("kind.kubeconfig");
        let text = stage
            .read(Command::new("kind").args(["get", "kubeconfig", "--name", KIND_CLUSTER]))
            .with_context(|| format!("is there one? `kind create cluster --name {KIND_CLUSTER}`"))?;
        write_secret(&kubeconfig, &text).with_context(|| format!("writing {}", kubeconfig.display()))?;
        Ok(Self {
            kubeconfig: Some(kubeconfig),
            ..Self::from_path(Supply::Kind)
        })
    }

    /// The cluster of the current context.
    pub(crate) fn current_context(registry: Option<String>) -> Result<Self> {
        let Some(registry) = registry else {
            bail!(
                "a cluster that is not ours pulls its images: say from where with --registry registry.example/ringwright"
            );
        };
        Ok(Self::from_path(Supply::Registry(registry)))
    }

    fn from_path(supply: Supply) -> Self {
        Self {
            kubectl: "kubectl".into(),
            helm: "helm".into(),
            kubeconfig: None,
            supply,
        }
    }

    /// A kubectl command that talks to this place.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Command {
        self.command(&self.kubectl, arguments)
    }

    /// A helm command that talks to this place.
    pub(crate) fn helm(&self, arguments: &[&str]) -> Command {
        self.command(&self.helm, arguments)
    }

    fn command(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments);
        if let Some(kubeconfig) = &self.kubeconfig {
            command.env("KUBECONFIG", kubeconfig);
        }
        command
    }

    /// A kubectl command for a person to type.
    pub(crate) fn typed_kubectl(&self) -> String {
        match &self.kubeconfig {
            Some(kubeconfig) => format!("KUBECONFIG={} {}", kubeconfig.display(), self.kubectl.display()),
            None => self.kubectl.display().to_string(),
        }
    }

    /// The kubeconfig, where it is not the user's own.
    pub(crate) fn kubeconfig(&self) -> Option<&Path> {
        self.kubeconfig.as_deref()
    }

    /// Where the charts take the images from.
    pub(crate) fn image_registry(&self) -> &str {
        match &self.supply {
            Supply::Registry(registry) => registry,
            Supply::Hermetic(_) | Supply::Kind => images::LOCAL_REGISTRY,
        }
    }

    /// Brings the images there. What is there already is skipped.
    pub(crate) fn supply(&self, stage: &Stage, images: &Images) -> Result<()> {
        match &self.supply {
            Supply::Hermetic(cluster) => import(stage, cluster, images),
            Supply::Kind => {
                for archive in images.archives() {
                    let mut load = Command::new("kind");
                    stage.run(
                        load.args(["load", "image-archive", "--name", KIND_CLUSTER])
                            .arg(archive),
                    )?;
                }
                Ok(())
            }
            Supply::Registry(registry) => images.push(stage, registry),
        }
    }
}

/// Two archives at a time: one is read and unpacked by the nodes while the next one is on its way.
fn import(stage: &Stage, cluster: &Cluster, images: &Images) -> Result<()> {
    let progress = stage.progress();
    let waiting = Mutex::new(images.archives());
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
    let import_the_next_ones = || -> Result<()> {
        while let Some(archive) = next() {
            let name = archive.file_stem().unwrap_or_default().to_string_lossy();
            progress.say(format_args!("importing {name}"));
            cluster.import_image(archive, &progress)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let other = scope.spawn(import_the_next_ones);
        let result = import_the_next_ones();
        let other = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        result.and(other)
    })
}

/// A file that only its owner may read, whatever it was before.
fn write_secret(path: &Path, content: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(content.as_bytes())
}
