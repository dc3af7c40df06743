//! Cargo, always with the lock file.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::stage::Stage;
use crate::workspace::Workspace;

/// The programs that go into images.
pub(crate) const PROGRAMS: [&str; 4] = ["operator", "order-api", "notifier", "sms-gateway"];

/// What cargo calls to compile the workspace's own crates, instead of rustc.
const WORKSPACE_WRAPPER: &str = "RUSTC_WORKSPACE_WRAPPER";

/// How the programs are compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// In a fraction of the time: for unit tests and for a first look.
    Dev,
    /// What is shipped, and so what is judged under load and measured.
    Release,
}

impl Profile {
    /// Has cargo compile with it. In the dev profile clippy's driver is the compiler: it is rustc with more lints, so what is
    /// tested is linted by the way. Never what is shipped: it optimises less.
    pub(crate) fn choose(self, command: &mut Command) {
        match self {
            Self::Dev => command.env(WORKSPACE_WRAPPER, "clippy-driver"),
            Self::Release => command.arg("--release"),
        };
    }

    /// Where cargo puts programs.
    pub(crate) fn folder(self, workspace: &Workspace) -> PathBuf {
        workspace.target().join(match self {
            Self::Dev => "debug",
            Self::Release => "release",
        })
    }
}

/// Proof that the programs lie where the Dockerfiles copy them from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Programs(());

impl Programs {
    /// Copies what was built to where the Dockerfiles look for it, whatever the profile.
    pub(crate) fn gather(workspace: &Workspace, profile: Profile) -> Result<Self> {
        let (from, to) = (profile.folder(workspace), workspace.target().join("images"));
        fs::create_dir_all(&to).with_context(|| format!("creating {}", to.display()))?;
        for name in PROGRAMS {
            fs::copy(from.join(name), to.join(name))
                .with_context(|| format!("copying {name} from {} to {}", from.display(), to.display()))?;
        }
        Ok(Self(()))
    }
}

/// Builds the programs of the images.
pub(crate) fn build_programs(stage: &Stage, workspace: &Workspace, profile: Profile) -> Result<Programs> {
    let mut build = command(workspace, "build");
    // Without --package: cargo chooses the features of a dependency for the whole workspace, here and for the tests alike,
    // and compiles it once.
    build.arg("--locked");
    profile.choose(&mut build);
    build.args(PROGRAMS.iter().flat_map(|name| ["--bin", name]));
    stage.run(&mut build)?;
    Programs::gather(workspace, profile)
}

/// A cargo command in the checkout.
pub(crate) fn command(workspace: &Workspace, subcommand: &str) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.arg(subcommand).current_dir(workspace.root());
    // Wherever cargo was told to build: the Dockerfiles copy from the checkout's target folder.
    command
        .env("CARGO_TARGET_DIR", workspace.target())
        .env("CARGO_TERM_COLOR", "never")
        .env_remove(WORKSPACE_WRAPPER);
    // What `cargo run` told this program about itself. Build scripts that look at these would run again, and everything
    // above them be compiled again, each time a person's own cargo and this one take turns.
    for (name, _) in std::env::vars_os() {
        let ours = ["CARGO_PKG_", "CARGO_MANIFEST_"].iter();
        if ours
            .into_iter()
            .any(|prefix| name.to_string_lossy().starts_with(prefix))
        {
            command.env_remove(name);
        }
    }
    command
}

/// A tool from the package registry, built once into the cache: its version is fixed here, so nothing changes under us.
pub(crate) fn installed_tool(stage: &Stage, workspace: &Workspace, name: &str, version: &str) -> Result<PathBuf> {
    let root = workspace.cache().join("tools").join(format!("{name}-{version}"));
    let program = root.join("bin").join(name);
    if !program.exists() {
        stage.note(format!("{name} {version}: building it once, into {}", root.display()));
        let target = workspace.cache().join("tools/target");
        let mut install = command(workspace, "install");
        install
            .args(["--locked", "--version", version, name, "--root"])
            .arg(&root);
        // Compiled without optimisation, it takes a third of the time to build and is fast enough for one check.
        install
            .arg("--debug")
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .env("CARGO_TARGET_DIR", &target);
        stage.run(&mut install)?;
        fs::remove_dir_all(&target).with_context(|| format!("removing {}", target.display()))?;
    }
    Ok(program)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    /// The features of every package that cargo compiles when it follows these kinds of dependencies.
    fn features(edges: &str) -> BTreeMap<String, BTreeSet<String>> {
        let mut tree = command(&Workspace::locate().unwrap(), "tree");
        tree.args(["--workspace", "--locked", "--offline", "--prefix", "none"]);
        tree.args(["--format", "{p}: {f}", "--edges", edges]);
        let output = tree.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut features = BTreeMap::<String, BTreeSet<String>>::new();
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            // A star marks what was listed before.
            if let Some((package, chosen)) = line.trim_end_matches(" (*)").split_once(": ") {
                features
                    .entry(package.to_owned())
                    .or_default()
                    .insert(chosen.to_owned());
            }
        }
        features
    }

    #[test]
    fn what_only_tests_depend_on_changes_no_dependency_of_the_programs() {
        let (programs, tests) = (features("normal,build"), features("normal,build,dev"));
        assert!(programs.len() > 100, "cargo lists {programs:?}");
        for (package, chosen) in &programs {
            assert_eq!(
                Some(chosen),
                tests.get(package),
                "{package} has other features (left: for `make up`, right: for `make test`), so it and all above it \
                 are compiled twice: name the missing ones as crates/xtask/Cargo.toml does for bitflags"
            );
        }
    }
}
