//! The test programs: built together, run one after the other, each with a deadline.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};
use serde::Deserialize;

use crate::cargo::{self, Programs};
use crate::stage::{Stage, Tally};
use crate::test::libtest::Counter;
use crate::workspace::Workspace;

/// The package whose tests need a running cluster, except those that lie beside its code.
const END_TO_END: &str = "e2e";
/// After this long a unit test is stuck, not slow.
const UNIT_DEADLINE: &str = "15m";
/// One program of end-to-end tests.
const END_TO_END_DEADLINE: &str = "40m";

/// Lines shown of what the failed tests of one program said.
const SHOWN_OF_A_FAILURE: usize = 60;

/// Every test program of the workspace.
#[derive(Debug, Default)]
pub(crate) struct Suites {
    unit: Vec<Suite>,
    end_to_end: Vec<Suite>,
}

#[derive(Debug)]
struct Suite {
    name: String,
    program: PathBuf,
    /// Tests find their files relative to their package.
    folder: PathBuf,
}

/// Variables for the tests, such as where the test database is.
pub(crate) type Environment = BTreeMap<&'static str, String>;

/// One line of `cargo build --message-format=json`, as far as it is read here.
#[derive(Debug, Deserialize)]
struct Message {
    reason: String,
    manifest_path: Option<PathBuf>,
    target: Option<Target>,
    profile: Option<Profile>,
    executable: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Profile {
    test: bool,
}

/// Compiles the programs and all their tests in one go: cargo then chooses the features of each dependency once.
pub(crate) fn build(stage: &Stage, workspace: &Workspace) -> Result<(Programs, Suites)> {
    let mut build = cargo::command(workspace, "build");
    build.args(["--workspace", "--release", "--locked", "--lib", "--bins", "--tests"]);
    build.arg("--message-format=json-render-diagnostics");
    let mut suites = Suites::default();
    stage.run_sifting(&mut build, |line| {
        let Ok(message) = serde_json::from_str::<Message>(line) else {
            return true;
        };
        if let Some((needs, suite)) = suite(message) {
            let suites = if needs == Needs::Cluster {
                &mut suites.end_to_end
            } else {
                &mut suites.unit
            };
            suites.push(suite);
        }
        false
    })?;
    suites.unit.sort_by(|one, other| one.name.cmp(&other.name));
    suites.end_to_end.sort_by(|one, other| one.name.cmp(&other.name));
    stage.note(format!(
        "{} unit and {} end-to-end test programs",
        suites.unit.len(),
        suites.end_to_end.len()
    ));
    Ok((Programs, suites))
}

/// What a test program runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// This machine, and the test servers.
    Servers,
    /// A Kubernetes.
    Cluster,
}

/// A test program and what it needs, if the message tells of one.
fn suite(message: Message) -> Option<(Needs, Suite)> {
    let (target, profile) = (message.target?, message.profile?);
    let folder = message.manifest_path?.parent()?.to_owned();
    if message.reason != "compiler-artifact" || !profile.test {
        return None;
    }
    let package = folder.file_name()?.to_string_lossy().into_owned();
    let kind = target.kind.first().map(String::as_str);
    let needs = if package == END_TO_END && kind == Some("test") {
        Needs::Cluster
    } else {
        Needs::Servers
    };
    let name = match kind {
        Some("test") => format!("{package}: {}", target.name),
        Some("bin") if target.name != package => format!("{package}: program {}", target.name),
        _ => package.clone(),
    };
    Some((
        needs,
        Suite {
            name,
            program: message.executable?,
            folder,
        },
    ))
}

impl Suites {
    /// Runs everything that needs no cluster, documentation examples included.
    pub(crate) fn run_unit(&self, stage: &Stage, workspace: &Workspace, environment: &Environment) {
        for suite in &self.unit {
            suite.run(stage, UNIT_DEADLINE, environment, None);
        }
        let mut examples = cargo::command(workspace, "test");
        examples
            .args(["--workspace", "--release", "--locked", "--doc"])
            .envs(environment);
        run(stage, "examples in the documentation", examples);
    }

    /// Runs the tests of one package, with these variables and a deadline for each program.
    pub(crate) fn run_package(
        &self,
        stage: &Stage,
        package: &str,
        deadline: &str,
        environment: &Environment,
    ) -> Result<()> {
        let prefix = format!("{package}: ");
        let of_package = |suite: &&Suite| suite.name == package || suite.name.starts_with(&prefix);
        let suites: Vec<&Suite> = self.unit.iter().filter(of_package).collect();
        ensure!(!suites.is_empty(), "the workspace has no tests of {package}");
        for suite in suites {
            suite.run(stage, deadline, environment, None);
        }
        Ok(())
    }

    /// Runs the end-to-end tests whose names contain `filter`, or all of them.
    pub(crate) fn run_end_to_end(&self, stage: &Stage, environment: &Environment, filter: Option<&str>) {
        for suite in &self.end_to_end {
            suite.run(stage, END_TO_END_DEADLINE, environment, filter);
        }
    }
}

impl Suite {
    fn run(&self, stage: &Stage, deadline: &str, environment: &Environment, filter: Option<&str>) {
        // In the foreground: else timeout makes a process group of its own, which Ctrl-C does not reach.
        let mut command = Command::new("timeout");
        command
            .args(["--foreground", "--kill-after=10s", deadline])
            .arg(&self.program)
            .args(filter)
            .current_dir(&self.folder);
        command.envs(environment).env("CARGO_MANIFEST_DIR", &self.folder);
        run(stage, &self.name, command);
    }
}

/// Runs test programs and counts; a failure is told at once, for the stage goes on with the next one.
fn run(stage: &Stage, name: &str, mut command: Command) {
    // Snapshots are compared, never written: this is the judge, not the author.
    command
        .env("INSTA_UPDATE", "no")
        .env("INSTA_FORCE_PASS", "0")
        .env("RUST_BACKTRACE", "1");
    let mut counter = Counter::default();
    let mut failures = Vec::new();
    let result = stage.run_watching(&mut command, |line| {
        counter.line(line);
        // From here on the harness tells what the failed tests said.
        if !failures.is_empty() || line == "failures:" {
            failures.push(line.to_owned());
        }
    });
    let Tally { passed, failed } = counter.finish(result.is_ok());
    stage.count(Tally { passed, failed });
    if failed > 0 {
        stage.note(format!("{name}: {passed} passed, {failed} FAILED"));
        failures
            .iter()
            .take(SHOWN_OF_A_FAILURE)
            .for_each(|line| println!("    | {line}"));
        if let Err(error) = result {
            stage.note(format!("  {error:#}; output: {}", stage.log_path().display()));
        }
    } else if passed > 0 {
        stage.note(format!("{name}: {passed} passed"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: &str, name: &str, test: bool) -> Message {
        let text = format!(
            r#"{{"reason":"compiler-artifact","package_id":"x","manifest_path":"/src/crates/ring/Cargo.toml",
            "target":{{"kind":["{kind}"],"name":"{name}"}},"profile":{{"test":{test}}},"executable":"/t/x-1"}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn test_programs_are_told_from_ordinary_ones() {
        assert_eq!(
            suite(message("lib", "ring", true)).map(|(_, suite)| suite.name),
            Some("ring".to_owned())
        );
        assert_eq!(
            suite(message("test", "balance", true)).map(|(_, suite)| suite.name),
            Some("ring: balance".to_owned())
        );
        assert!(suite(message("bin", "ring", false)).is_none());
    }

    #[test]
    fn only_the_tests_of_the_end_to_end_package_that_lie_apart_need_a_cluster() {
        let needs = |package: &str, kind: &str| {
            let mut message = message(kind, "any", true);
            message.manifest_path = Some(format!("/src/{package}/Cargo.toml").into());
            suite(message).map(|(needs, _)| needs)
        };
        assert_eq!(needs("e2e", "test"), Some(Needs::Cluster));
        assert_eq!(needs("e2e", "lib"), Some(Needs::Servers));
        assert_eq!(needs("store", "test"), Some(Needs::Servers));
    }

    #[test]
    fn other_messages_are_read_over() {
        let message = serde_json::from_str::<Message>(r#"{"reason":"build-finished","success":true}"#).unwrap();
        assert!(suite(message).is_none());
    }
}
