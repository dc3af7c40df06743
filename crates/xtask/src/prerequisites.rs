//! What the machine must have before anything else makes sense.

use std::process::Command;

use anyhow::{Result, bail};
use hermetic_cluster::prerequisites;

use crate::stage::Stage;

/// Programs that the images are built with, each in the Debian package of its name; what the cluster needs is its own
/// business.
const IMAGE_PROGRAMS: [&str; 2] = ["buildah", "mmdebstrap"];

/// Proof that programs and images can be built here, and a cluster run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ready;

/// Installs what is missing, or says in plain words what to do.
pub(crate) fn ensure(stage: &Stage) -> Result<Ready> {
    ensure_for_images(stage)?;
    prerequisites::install(&stage.progress())?;
    Ok(Ready)
}

/// As [`ensure`], for building images alone.
pub(crate) fn ensure_for_images(stage: &Stage) -> Result<Ready> {
    if !nix::unistd::Uid::effective().is_root() {
        bail!(
            "root is needed: images are built with chroot, and the cluster's nodes are network namespaces. \
             Run `sudo --preserve-env=PATH make ...`"
        );
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = |name: &&str| std::env::split_paths(&path).any(|folder| folder.join(name).is_file());
    let missing: Vec<&str> = IMAGE_PROGRAMS.into_iter().filter(|name| !there(name)).collect();
    if !missing.is_empty() {
        install(stage, &missing)?;
    }
    Ok(Ready)
}

fn install(stage: &Stage, packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if Command::new("apt-get").arg("--version").output().is_err() {
        bail!("these packages are missing, and there is no apt-get to install them with: {list}");
    }
    stage.note(format!("installing {list}"));
    // Another source of this machine may be unreachable and fail the update; whether the packages we need can be had
    // is what the installation says.
    if let Err(error) = stage.run(&mut apt(&["update"])) {
        stage.note(format!("going on although {error:#}"));
    }
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(packages);
    stage.run(&mut apt(&arguments))
}

fn apt(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    // A machine that has just started may still be running apt of its own.
    command
        .args(["-o", "DPkg::Lock::Timeout=300"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive");
    command
}
