//! The tests of the cluster's own Go programs.

use anyhow::Result;
use hermetic_cluster::tools;

use crate::prerequisites::Ready;
use crate::stage::{Stage, Tally};
use crate::workspace::Workspace;

/// The module of those programs, and its packages that have tests.
const MODULE: &str = "e2e/cluster/go";
const PACKAGES: [&str; 3] = ["./credentials", "./pauseimage", "./supervise"];

/// Runs them and counts each test.
pub(crate) fn test(stage: &Stage, workspace: &Workspace, _ready: Ready) -> Result<()> {
    let mut command = tools::go("test")?;
    command.args(["-count=1", "-v"]).args(PACKAGES);
    let mut tally = Tally::default();
    let result = stage.run_watching(command.current_dir(workspace.root().join(MODULE)), |line| {
        tally.passed += u64::from(line.starts_with("--- PASS: "));
        tally.failed += u64::from(line.starts_with("--- FAIL: "));
    });
    stage.count(tally);
    // A failed test has been counted; anything else, such as a package that does not compile, is an error of its own.
    if tally.failed > 0 { Ok(()) } else { result }
}
