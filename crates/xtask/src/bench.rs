//! `make bench`: whatever benchmarks the crates have, and what a scale-out costs under load.

use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::cargo;
use crate::stage::{Runner, Stage};
use crate::test;
use crate::workspace::Workspace;

/// Runs each crate's benchmarks and a scale-out under such a load, and shows what they print.
pub(crate) fn bench(workspace: &Workspace, load: test::Load) -> Result<ExitCode> {
    let mut run = Runner::new("bench", workspace)?;
    let found = run.stage("benchmarks", Some(()), |stage, ()| find(stage, workspace));
    run.stage("run", found, |stage, found| {
        if found.is_empty() {
            stage.note("no crate has a benchmark");
        }
        for (package, name) in found {
            let mut bench = cargo::command(workspace, "bench");
            bench.args(["--locked", "--package", &package, "--bench", &name]);
            stage.run_watching(&mut bench, |line| println!("    {line}"))?;
        }
        Ok(())
    });
    test::bench_scale_out(&mut run, workspace, load)?;
    Ok(if run.summary() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Package and name of each benchmark. Asked for one by one, for `cargo bench` would run every unit test besides.
fn find(stage: &Stage, workspace: &Workspace) -> Result<Vec<(String, String)>> {
    let mut metadata = cargo::command(workspace, "metadata");
    let text = stage.read(metadata.args(["--no-deps", "--format-version", "1", "--locked"]))?;
    let metadata: Value = serde_json::from_str(&text).context("reading what cargo says of the workspace")?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut found = Vec::new();
    for package in list(&metadata["packages"]) {
        for target in list(&package["targets"]) {
            if list(&target["kind"]).iter().any(|kind| kind == "bench") {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                found.push((text(&package["name"]), text(&target["name"])));
            }
        }
    }
    Ok(found)
}
