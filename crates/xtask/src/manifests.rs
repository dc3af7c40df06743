//! `deploy/ringwright.yaml`: both charts rendered for `kubectl apply -f`, kept in the repository and checked for drift.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use hermetic_cluster::tools::{self, Tools};

use crate::stage::Stage;
use crate::workspace::Workspace;

/// The rendered file, and the values it is rendered with.
const RENDERED: &str = "deploy/ringwright.yaml";
const VALUES: &str = "deploy/values.yaml";
/// The namespace that the plain manifests are made for.
pub(crate) const NAMESPACE: &str = "ringwright";

const HEADER: &str = "\
# Rendered from charts/ by `make manifests`; do not edit. docs/operations.md tells what to bring before applying it:
#   kubectl apply --server-side -f deploy/ringwright.yaml
";

/// Renders the charts and writes the file.
pub(crate) fn write(stage: &Stage, workspace: &Workspace) -> Result<()> {
    let tools = tools::build(&stage.progress())?;
    let path = path(workspace);
    fs::write(&path, render(stage, workspace, &tools)?).with_context(|| format!("writing {}", path.display()))?;
    stage.note(format!("wrote {RENDERED}"));
    Ok(())
}

/// Refuses a file that is not what the charts render.
pub(crate) fn check_drift(stage: &Stage, workspace: &Workspace, tools: &Tools) -> Result<()> {
    let rendered = render(stage, workspace, tools)?;
    let path = path(workspace);
    let kept = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    if kept != rendered {
        let difference = kept
            .lines()
            .zip(rendered.lines())
            .position(|(kept, rendered)| kept != rendered);
        let line = difference.unwrap_or(kept.lines().count().min(rendered.lines().count())) + 1;
        bail!(
            "{RENDERED} differs from what the charts render, first at line {line}: run `make manifests` and commit it"
        );
    }
    Ok(())
}

/// The file in the checkout.
pub(crate) fn path(workspace: &Workspace) -> PathBuf {
    workspace.root().join(RENDERED)
}

fn render(stage: &Stage, workspace: &Workspace, tools: &Tools) -> Result<String> {
    let namespace = format!("---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: {NAMESPACE}\n");
    let crds = stage.read(&mut template(tools, workspace.root(), "charts/ringwright-crds", &[]))?;
    let platform = stage.read(&mut template(
        tools,
        workspace.root(),
        "charts/ringwright",
        &["--skip-tests", "--values", VALUES],
    ))?;
    Ok(format!("{HEADER}{namespace}{crds}{platform}"))
}

/// `helm template` for one chart, release and namespace named as in the plain manifests.
pub(crate) fn template(tools: &Tools, root: &Path, chart: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(tools.helm());
    command
        .current_dir(root)
        .args(["template", "ringwright", chart, "--namespace", NAMESPACE])
        .args(arguments);
    command
}
