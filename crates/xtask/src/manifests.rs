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

/// Kinds of the charts that live outside of namespaces.
const CLUSTER_SCOPED: [&str; 5] = [
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
];

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
    Ok(format!("{HEADER}{namespace}{crds}{}", with_namespace(&platform)?))
}

/// Writes the namespace into every object that lives in one. Helm leaves it to its command line; a file must not depend
/// on what namespace the reader's kubectl happens to use.
fn with_namespace(manifests: &str) -> Result<String> {
    let mut placed = String::new();
    for manifest in manifests.split_inclusive("\n---\n") {
        let kind = manifest.lines().find_map(|line| line.strip_prefix("kind: "));
        let has_one = manifest.lines().skip_while(|line| *line != "metadata:").skip(1);
        let has_one = has_one
            .take_while(|line| line.starts_with(' '))
            .any(|line| line.starts_with("  namespace:"));
        match kind {
            Some(kind) if !CLUSTER_SCOPED.contains(&kind) && !has_one => {
                let Some((head, tail)) = manifest.split_once("\nmetadata:\n") else {
                    bail!("a {kind} has no metadata block to write its namespace into");
                };
                placed.push_str(&format!("{head}\nmetadata:\n  namespace: {NAMESPACE}\n{tail}"));
            }
            _ => placed.push_str(manifest),
        }
    }
    Ok(placed)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_of_a_namespace_name_it() {
        let rendered = "---\n# Source: a.yaml\nkind: Service\nmetadata:\n  name: a\nspec: {}\n\
            ---\nkind: ClusterRole\nmetadata:\n  name: b\n\
            ---\nkind: Role\nmetadata:\n  name: c\n  namespace: elsewhere\n\
            ---\nkind: Deployment\nmetadata:\n  name: d\nspec:\n  namespace: no\n";
        let placed = with_namespace(rendered).unwrap();
        assert_eq!(
            placed.matches("  namespace: ringwright\n  name: ").count(),
            2,
            "{placed}"
        );
        assert!(placed.contains("kind: ClusterRole\nmetadata:\n  name: b"));
        assert_eq!(placed.replace("  namespace: ringwright\n", ""), rendered);
    }
}
