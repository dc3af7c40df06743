//! What the machine must have, and how it gets it.

use std::path::{Path, PathBuf};

use nix::unistd::Uid;

use crate::command::{SYSTEM_PATH, run, system};
use crate::{Error, Progress, Result};

/// Programs that must be found, each with the Debian package that has it.
const PROGRAMS: [(&str, &str); 17] = [
    ("bash", "bash"),
    ("buildah", "buildah"),
    ("conntrack", "conntrack"),
    ("containerd", "containerd"),
    ("containerd-shim-runc-v2", "containerd"),
    ("ctr", "containerd"),
    ("ethtool", "ethtool"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("losetup", "mount"),
    ("mkfs.xfs", "xfsprogs"),
    ("mmdebstrap", "mmdebstrap"),
    ("nft", "nftables"),
    ("nsenter", "util-linux"),
    ("runc", "runc"),
    ("tar", "tar"),
    ("unshare", "util-linux"),
];

/// Where distributions put the network plugins.
pub(crate) const CNI_DIRECTORIES: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];
const CNI_PLUGINS: [&str; 4] = ["bridge", "host-local", "loopback", "portmap"];
const CNI_PACKAGE: &str = "containernetworking-plugins";

/// Kernel features, each with the path that shows it and the module that brings it.
const KERNEL: [(&str, &str); 2] = [("/proc/sys/net/bridge", "br_netfilter"), ("/dev/loop-control", "loop")];

/// Says what is missing; `Ok` when nothing is. Takes milliseconds.
///
/// # Errors
/// [`Error::Prerequisites`] with a line for each thing that is missing and the command that installs it.
pub fn check() -> Result<()> {
    let mut missing = Vec::new();
    if !cfg!(target_os = "linux") {
        missing.push("Linux: nodes are namespaces of its kernel".to_owned());
    }
    if !Uid::effective().is_root() {
        missing.push("root: namespaces, mounts and links need it (try with sudo)".to_owned());
    }
    if go().is_none() {
        missing.push(
            "Go 1.24 or later, on PATH or in /usr/local/go (https://go.dev/dl): Kubernetes is built from Go modules"
                .to_owned(),
        );
    }
    let packages = missing_packages();
    if !packages.is_empty() {
        missing.push(format!("packages; run: {}", install_command(&packages)));
    }
    for (path, module) in KERNEL {
        if !Path::new(path).exists() {
            missing.push(format!("a kernel feature; run: modprobe {module}"));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::Prerequisites(
        missing
            .iter()
            .map(|line| format!("  - {line}"))
            .collect::<Vec<_>>()
            .join("\n"),
    ))
}

/// Installs what is missing (by apt, as root). Does nothing, quickly, when nothing is.
///
/// # Errors
/// [`Error::Prerequisites`] when this machine cannot be helped, with the one command to run where there is one.
pub fn install(progress: &Progress) -> Result<()> {
    let packages = missing_packages();
    if !packages.is_empty() && Uid::effective().is_root() && find_program("apt-get").is_some() {
        progress.say(format_args!("installing {}", packages.join(", ")));
        let apt = |args: &[&str]| {
            let mut command = system("apt-get", args);
            // No service is to be started by an installation: the cluster runs its own container runtime.
            command.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
            run("installing packages", &mut command)
        };
        apt(&["update", "-q"])?;
        apt(&[&["install", "-q", "-y", "--no-install-recommends"][..], &packages].concat())?;
        progress.say("packages installed");
    }
    for (path, module) in KERNEL {
        if !Path::new(path).exists() && Uid::effective().is_root() {
            // Whether it helped is what `check` looks at: the feature may as well be built in under another name.
            let _ = run("loading a kernel module", &mut system("modprobe", [module]));
        }
    }
    check()
}

/// The Go command: from PATH, or from where its own installer puts it.
pub fn go() -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    find_in(&path, "go").or_else(|| find_in("/usr/local/go/bin:/usr/lib/go/bin", "go"))
}

/// One of the system's programs.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    find_in(SYSTEM_PATH, name)
}

fn find_in(path: &str, name: &str) -> Option<PathBuf> {
    std::env::split_paths(path)
        .map(|directory| directory.join(name))
        .find(|program| program.is_file())
}

fn missing_packages() -> Vec<&'static str> {
    let programs = PROGRAMS
        .iter()
        .filter(|(program, _)| find_program(program).is_none())
        .map(|(_, package)| *package);
    let has_plugins = |directory: &&str| {
        CNI_PLUGINS
            .iter()
            .all(|plugin| Path::new(directory).join(plugin).exists())
    };
    let plugins = (!CNI_DIRECTORIES.iter().any(has_plugins)).then_some(CNI_PACKAGE);
    let mut packages: Vec<_> = programs.chain(plugins).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

fn install_command(packages: &[&str]) -> String {
    let packages = packages.join(" ");
    match find_program("apt-get") {
        Some(_) => format!("apt-get update && apt-get install -y --no-install-recommends {packages}"),
        None => format!("your package manager for what Debian calls {packages}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_to_run_names_every_package() {
        let command = install_command(&["runc", "xfsprogs"]);
        assert!(command.ends_with("runc xfsprogs"), "{command}");
    }

    #[test]
    fn programs_are_found_in_the_given_directories_only() {
        assert!(find_in("/nowhere:/bin", "sh").is_some());
        assert!(find_in("/nowhere", "sh").is_none());
    }
}
