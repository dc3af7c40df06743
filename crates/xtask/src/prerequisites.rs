//! What the machine must have before anything else makes sense.

use std::process::Command;

use anyhow::{Result, bail};
use hermetic_cluster::prerequisites;

use crate::stage::Stage;

/// Packages that the images are built with; those of the cluster are its own business.
const IMAGE_PACKAGES: [&str; 3] = ["buildah", "mmdebstrap", "ca-certificates"];

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
    let missing: Vec<&str> = IMAGE_PACKAGES
        .into_iter()
        .filter(|package| !installed(package))
        .collect();
    if !missing.is_empty() {
        install(stage, &missing)?;
    }
    Ok(Ready)
}

fn installed(package: &str) -> bool {
    let status = Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status}", package])
        .output();
    status.is_ok_and(|output| output.status.success() && output.stdout == b"installed")
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
