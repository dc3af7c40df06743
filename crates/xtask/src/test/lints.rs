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

/// Clippy finds nothing, in tests neither.
pub(crate) fn clippy(stage: &Stage, workspace: &Workspace) -> Result<()> {
    let mut clippy = cargo::command(workspace, "clippy");
    clippy.args(["--workspace", "--all-targets", "--features", "e2e/cluster", "--locked"]);
    clippy.args(["--", "--deny", "warnings"]);
    check(stage, &mut clippy)
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
