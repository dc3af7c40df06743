//! The charts: linted, their values validated, and everything they render checked by a running API server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use hermetic_cluster::tools::Tools;

use crate::place::Place;
use crate::stage::{Stage, Tally};
use crate::test::lints::check;
use crate::workspace::Workspace;
use crate::{manifests, platform};

const PLATFORM: &str = "charts/ringwright";
const CHARTS: [&str; 2] = ["charts/ringwright-crds", PLATFORM];
/// Values that must render, and values that the schema must refuse, one file a case.
const ACCEPTED: &str = "charts/ringwright/ci";
const REFUSED: &str = "charts/ringwright/ci/refused";

/// `helm lint`, for the defaults and for each set of values.
pub(crate) fn lint(stage: &Stage, workspace: &Workspace, tools: &Tools) -> Result<()> {
    for chart in CHARTS {
        let mut lint = Command::new(tools.helm());
        check(
            stage,
            lint.current_dir(workspace.root()).args(["lint", "--strict", chart]),
        )?;
    }
    for values in accepted(workspace)? {
        let mut lint = Command::new(tools.helm());
        lint.current_dir(workspace.root())
            .args(["lint", "--strict", PLATFORM, "--values"])
            .arg(&values);
        check(stage, &mut lint)?;
    }
    Ok(())
}

/// Values that make no sense are refused before anything is installed, with a message that names what is wrong: the word
/// behind `# Says: ` in the case's file.
pub(crate) fn refuse_bad_values(stage: &Stage, workspace: &Workspace, tools: &Tools) -> Result<()> {
    let cases = values_in(&workspace.root().join(REFUSED))?;
    if cases.is_empty() {
        bail!("{REFUSED} holds no case");
    }
    for values in cases {
        let text = fs::read_to_string(&values).with_context(|| format!("reading {}", values.display()))?;
        let word = text
            .lines()
            .find_map(|line| line.strip_prefix("# Says: "))
            .with_context(|| format!("{} does not say what its refusal says", values.display()))?;
        let mut said = false;
        let mut render = manifests::template(tools, workspace.root(), PLATFORM, &["--values"]);
        let outcome = stage.run_watching(render.arg(&values), |line| said |= line.contains(word));
        let passed = outcome.is_err() && said;
        if !passed {
            stage.note(format!("{} was not refused with a word of {word}", values.display()));
        }
        stage.count(Tally {
            passed: u64::from(passed),
            failed: u64::from(!passed),
        });
    }
    Ok(())
}

/// `deploy/ringwright.yaml` is what the charts render.
pub(crate) fn drift(stage: &Stage, workspace: &Workspace, tools: &Tools) -> Result<()> {
    manifests::check_drift(stage, workspace, tools)?;
    stage.count(Tally { passed: 1, failed: 0 });
    Ok(())
}

/// Every manifest is accepted by the API server with strict field validation: no unknown field, no wrong type, and the
/// admission rules of the objects themselves. Nothing is kept but the definitions and an empty namespace.
pub(crate) fn validate(stage: &Stage, workspace: &Workspace, tools: &Tools, place: &Place) -> Result<()> {
    let root = workspace.root();
    let crds = stage.log_path().with_extension("crds.yaml");
    fs::write(
        &crds,
        stage.read(&mut manifests::template(tools, root, CHARTS[0], &[]))?,
    )
    .context("writing the rendered definitions")?;
    dry_run(stage, place, &crds)?;
    platform::install_definitions(stage, workspace, place)?;
    // A dry run makes no namespace for the objects after it.
    let namespace = stage.log_path().with_extension("namespace.yaml");
    let text = format!(
        "{{apiVersion: v1, kind: Namespace, metadata: {{name: {}}}}}\n",
        manifests::NAMESPACE
    );
    fs::write(&namespace, text).context("writing a namespace")?;
    stage.run(place.kubectl(&["apply", "--server-side", "--filename"]).arg(&namespace))?;

    dry_run(stage, place, &manifests::path(workspace))?;
    for sample in yaml_files(&root.join("deploy"))?.iter().filter(|path| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("sample-"))
    }) {
        dry_run(stage, place, sample)?;
    }
    for (index, values) in accepted(workspace)?.iter().enumerate() {
        let rendered = stage.log_path().with_extension(format!("{index}.yaml"));
        let mut render = manifests::template(tools, root, PLATFORM, &["--values"]);
        fs::write(&rendered, stage.read(render.arg(values))?).context("writing a rendered chart")?;
        dry_run(stage, place, &rendered).with_context(|| format!("rendered with {}", values.display()))?;
    }
    stage.run(&mut place.kubectl(&["delete", "namespace", manifests::NAMESPACE, "--wait=false"]))
}

fn dry_run(stage: &Stage, place: &Place, file: &Path) -> Result<()> {
    let arguments = [
        "apply",
        "--dry-run=server",
        "--validate=strict",
        "--namespace",
        manifests::NAMESPACE,
        "--filename",
    ];
    check(stage, place.kubectl(&arguments).arg(file))
}

/// The sets of values that must work: what `make up` and the plain manifests use, and the chart's own cases.
fn accepted(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    let root = workspace.root();
    let mut files = vec![
        root.join("charts/ringwright/values-dev.yaml"),
        root.join("deploy/values.yaml"),
    ];
    files.extend(values_in(&root.join(ACCEPTED))?);
    Ok(files)
}

fn values_in(folder: &Path) -> Result<Vec<PathBuf>> {
    if folder.exists() {
        yaml_files(folder)
    } else {
        Ok(Vec::new())
    }
}

fn yaml_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))? {
        let path = entry.with_context(|| format!("listing {}", folder.display()))?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
