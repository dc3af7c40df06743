//! Formatting, lints, and what may be depended on.

use std::process::Command;

use anyhow::Result;

use crate::cargo;
use crate::stage::{Stage, Tally};
use crate::workspace::Workspace;

const CARGO_DENY: &str = "0.20.2";

/// Every file is formatted as rustfmt formats it.
pub(crate) fn formatting(stage: &Stage, workspace: &Workspace) -> Result<()> {
    check(stage, cargo::command(workspace, "fmt").args(["--all", "--", "--check"]))
}

/// What the compiler, which is clippy's driver, has to say of the workspace's own crates; also of those that were compiled
/// before, for cargo keeps it.
#[derive(Debug, Default)]
pub(super) struct Lints(Vec<String>);

impl Lints {
    /// Takes in a diagnostic of one target; a file that is part of several is told of by each.
    pub(super) fn take_in(&mut self, rendered: String) {
        if !self.0.contains(&rendered) {
            self.0.push(rendered);
        }
    }

    /// All of them fail the stage, in tests too.
    pub(super) fn judge(self, stage: &Stage) {
        stage.count(Tally {
            passed: u64::from(self.0.is_empty()),
            failed: self.0.len() as u64,
        });
        for lint in self.0 {
            stage.note(&lint);
            stage.failure(format!("clippy: {}", lint.lines().next().unwrap_or_default()));
        }
    }
}

/// Licences, banned crates and where crates come from, by `deny.toml`.
pub(crate) fn dependencies(stage: &Stage, workspace: &Workspace) -> Result<()> {
    let deny = cargo::installed_tool(stage, workspace, "cargo-deny", CARGO_DENY)?;
    let mut command = Command::new(deny);
    command.current_dir(workspace.root()).env("CARGO_TERM_COLOR", "never");
    command.args([
        "--locked",
        "check",
        "--hide-inclusion-graph",
        "bans",
        "licenses",
        "sources",
    ]);
    check(stage, &mut command)
}

/// Runs a command that counts as one check.
pub(crate) fn check(stage: &Stage, command: &mut Command) -> Result<()> {
    stage.run(command)?;
    stage.count(Tally { passed: 1, failed: 0 });
    Ok(())
}
