//! `make fresh`: the README's commands as somebody sees them who has just cloned the repository.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::stage::{Runner, Stage};
use crate::workspace::Workspace;

/// Clones the last commit and runs both commands with empty caches; then the first one again, to see it warm.
pub(crate) fn fresh(workspace: &Workspace) -> Result<ExitCode> {
    let mut run = Runner::new("fresh", workspace)?;
    let place = run.stage("clone", Some(()), |stage, ()| FreshClone::create(stage, workspace));
    let place = place.as_ref();
    run.stage("make up, cold", place, |stage, place| place.make(stage, "up"));
    run.stage("make up, warm", place, |stage, place| place.make(stage, "up"));
    run.stage("make down", place, |stage, place| place.make(stage, "down"));
    run.stage("make up after down", place, |stage, place| place.make(stage, "up"));
    run.stage("make down again", place, |stage, place| place.make(stage, "down"));
    // The caches are warm by now; a cold test run starts from none.
    run.stage("clone for the tests", place, |stage, place| {
        place.renew(stage, workspace)
    });
    run.stage("make test, cold", place, |stage, place| place.make(stage, "test"));
    run.stage("away with it", place, |stage, place| place.remove(stage));
    Ok(if run.summary() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A clone with a home folder of its own.
struct FreshClone(PathBuf);

impl FreshClone {
    fn create(stage: &Stage, workspace: &Workspace) -> Result<Self> {
        // Not /tmp: that may be small or in memory, and this grows to tens of gigabytes.
        let folder = stage.read(Command::new("mktemp").args(["--directory", "/var/tmp/ringwright-fresh.XXXXXX"]))?;
        let place = Self(PathBuf::from(folder.trim()));
        place.fill(stage, workspace)?;
        Ok(place)
    }

    fn fill(&self, stage: &Stage, workspace: &Workspace) -> Result<()> {
        let dirty = stage.read(
            Command::new("git")
                .args(["status", "--porcelain"])
                .current_dir(workspace.root()),
        )?;
        if !dirty.is_empty() {
            stage.note("there are changes that are not committed: they are not part of this");
        }
        let mut clone = Command::new("git");
        stage.run(
            clone
                .args(["clone", "--quiet", "--no-hardlinks"])
                .arg(workspace.root())
                .arg(self.checkout()),
        )?;
        std::fs::create_dir_all(self.home()).with_context(|| format!("creating {}", self.home().display()))
    }

    fn renew(&self, stage: &Stage, workspace: &Workspace) -> Result<()> {
        self.remove(stage)?;
        self.fill(stage, workspace)
    }

    fn remove(&self, stage: &Stage) -> Result<()> {
        // Go's module cache is read-only, which stops an ordinary removal for everyone but root.
        stage.run(Command::new("chmod").args(["-R", "u+w"]).arg(&self.0))?;
        stage.run(Command::new("rm").args(["-rf", "--one-file-system"]).arg(&self.0))
    }

    fn checkout(&self) -> PathBuf {
        self.0.join("ringwright")
    }

    fn home(&self) -> PathBuf {
        self.0.join("home")
    }

    fn make(&self, stage: &Stage, verb: &str) -> Result<()> {
        let home = self.home();
        let mut make = Command::new("make");
        make.arg(verb).current_dir(self.checkout()).env("HOME", &home);
        make.env("CARGO_HOME", home.join(".cargo"))
            .env("RUSTUP_HOME", rustup_home());
        make.env("GOPATH", home.join("go"))
            .env("GOMODCACHE", home.join("go/pkg/mod"))
            .env("GOCACHE", home.join(".cache/go-build"));
        // Where modules come from is a setting of the machine, not a cache.
        make.env("GOENV", go_settings());
        for variable in [
            "CARGO_TARGET_DIR",
            "XDG_CACHE_HOME",
            "XDG_STATE_HOME",
            "MAKEFLAGS",
            "MFLAGS",
            "MAKELEVEL",
        ] {
            make.env_remove(variable);
        }
        stage.run_watching(&mut make, |line| println!("    | {line}"))
    }
}

fn go_settings() -> PathBuf {
    let settings = || Path::new(&std::env::var_os("HOME").unwrap_or_default()).join(".config/go/env");
    std::env::var_os("GOENV").map_or_else(settings, PathBuf::from)
}

/// The toolchain is a prerequisite, not a cache.
fn rustup_home() -> PathBuf {
    std::env::var_os("RUSTUP_HOME").map_or_else(
        || Path::new(&std::env::var_os("HOME").unwrap_or_default()).join(".rustup"),
        PathBuf::from,
    )
}
