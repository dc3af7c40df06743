//! The test programs: built together, run one after the other, each with a deadline.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use serde::Deserialize;

use crate::cargo::{self, PROGRAMS, Profile, Programs};
use crate::stage::{Stage, Tally};
use crate::test::libtest::{Counter, Failures};
use crate::test::lints::Lints;
use crate::workspace::Workspace;

/// The package's feature without which cargo passes over the test programs that need a running cluster.
const CLUSTER: &str = "e2e/cluster";
/// The test program of everything but moves.
const PLATFORM: &str = "e2e: platform";
/// That of moves.
const MOVES: &str = "e2e: moves";
/// The program of the long campaign and the benchmark.
const CAMPAIGN: &str = "moves";
/// The test program of the model.
const MODEL: &str = "model";
/// After this long a unit test is stuck, not slow.
const UNIT_DEADLINE: &str = "25m";
/// One program of end-to-end tests.
pub(crate) const END_TO_END_DEADLINE: &str = "60m";

/// Test programs, in the order of their names.
#[derive(Debug, Default)]
pub(crate) struct Suites(Vec<Suite>);

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
    profile: Option<Harness>,
    executable: Option<PathBuf>,
    message: Option<Diagnostic>,
}

/// What the compiler says of a target.
#[derive(Debug, Deserialize)]
struct Diagnostic {
    /// As a person reads it.
    rendered: String,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

/// What cargo calls the profile of an artifact, as far as it is read here.
#[derive(Debug, Deserialize)]
struct Harness {
    test: bool,
}

/// Compiles and lints everything; of the tests, those that need no cluster.
pub(crate) fn build_unit(stage: &Stage, workspace: &Workspace) -> Result<Suites> {
    compile_all(stage, workspace).map(|(unit, _)| unit)
}

/// All tests, and the programs of the images.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) programs: Programs,
    pub(crate) unit: Suites,
    pub(crate) end_to_end: Suites,
}

/// Compiles and lints everything that `make test` runs, once: to optimise it would take longer than all the tests.
pub(crate) fn build_all(stage: &Stage, workspace: &Workspace) -> Result<Built> {
    let (unit, end_to_end) = compile_all(stage, workspace)?;
    Ok(Built {
        programs: Programs::gather(workspace, Profile::Dev)?,
        unit,
        end_to_end,
    })
}

/// The tests that need no cluster, and those that need one.
fn compile_all(stage: &Stage, workspace: &Workspace) -> Result<(Suites, Suites)> {
    let arguments = ["--workspace", "--all-targets", "--features", CLUSTER];
    let suites = compile(stage, workspace, Profile::Dev, &arguments)?.0;
    let (against_cluster, unit) = suites
        .into_iter()
        .partition(|suite| [PLATFORM, MOVES].contains(&suite.name.as_str()));
    Ok((Suites(unit), Suites(against_cluster)))
}

/// Compiles the programs of the images as they are shipped, and the campaign that judges and measures them. In one go: cargo
/// then chooses the features of each dependency once.
pub(crate) fn build_campaign(stage: &Stage, workspace: &Workspace) -> Result<Programs> {
    let mut arguments = vec!["--bin", CAMPAIGN];
    arguments.extend(PROGRAMS.iter().flat_map(|name| ["--bin", *name]));
    compile(stage, workspace, Profile::Release, &arguments)?;
    Programs::gather(workspace, Profile::Release)
}

/// Compiles the model of moves for a long search.
pub(crate) fn build_model(stage: &Stage, workspace: &Workspace) -> Result<Suites> {
    compile(stage, workspace, Profile::Release, &["--test", MODEL])
}

fn compile(stage: &Stage, workspace: &Workspace, profile: Profile, arguments: &[&str]) -> Result<Suites> {
    let mut build = cargo::command(workspace, "build");
    build.arg("--locked").args(arguments);
    profile.choose(&mut build);
    build.arg("--message-format=json");
    let (mut suites, mut lints) = (Suites::default(), Lints::default());
    let built = stage.run_sifting(&mut build, |line| {
        let Ok(mut message) = serde_json::from_str::<Message>(line) else {
            return true;
        };
        if let Some(diagnostic) = message.message.take() {
            lints.take_in(diagnostic.rendered);
        }
        suites.0.extend(suite(message));
        false
    });
    lints.judge(stage);
    built?;
    suites.0.sort_by(|one, other| one.name.cmp(&other.name));
    stage.note(format!("{} test programs", suites.0.len()));
    Ok(suites)
}

/// The test program that the message tells of, if it does.
fn suite(message: Message) -> Option<Suite> {
    let (target, profile) = (message.target?, message.profile?);
    let folder = message.manifest_path?.parent()?.to_owned();
    if message.reason != "compiler-artifact" || !profile.test {
        return None;
    }
    let package = folder.file_name()?.to_string_lossy().into_owned();
    let name = match target.kind.first().map(String::as_str) {
        // Compiled to be linted; `make bench` runs them.
        Some("bench") => return None,
        Some("test") => format!("{package}: {}", target.name),
        Some("bin") if target.name != package => format!("{package}: program {}", target.name),
        _ => package,
    };
    Some(Suite {
        name,
        program: message.executable?,
        folder,
    })
}

impl Suites {
    /// Runs them, and the examples in the documentation.
    pub(crate) fn run_unit(&self, stage: &Stage, workspace: &Workspace, environment: &Environment) {
        self.run(stage, UNIT_DEADLINE, environment, None);
        let mut examples = cargo::command(workspace, "test");
        Profile::Dev.choose(&mut examples);
        examples.args(["--workspace", "--locked", "--doc"]).envs(environment);
        run(stage, "examples in the documentation", examples);
    }

    /// Runs all of them with this deadline for each program, or of each the tests whose names contain `filter`.
    pub(crate) fn run(&self, stage: &Stage, deadline: &str, environment: &Environment, filter: Option<&str>) {
        for suite in &self.0 {
            suite.run(stage, deadline, environment, filter);
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
    let mut failures = Failures::default();
    let result = stage.run_watching(&mut command, |line| {
        counter.line(line);
        failures.line(line);
    });
    let Tally { passed, failed } = counter.finish(result.is_ok());
    stage.count(Tally { passed, failed });
    if failed > 0 {
        stage.note(format!("{name}: {passed} passed, {failed} FAILED"));
        let mut told = failures.finish();
        if let Err(error) = result {
            // Ended before its end, it tells of no test.
            if told.is_empty() {
                told.push(format!("{name}: {error:#}"));
            }
            stage.note(format!("  {error:#}; output: {}", stage.log_path().display()));
        }
        told.into_iter().for_each(|failure| stage.failure(failure));
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
            suite(message("lib", "ring", true)).map(|suite| suite.name),
            Some("ring".to_owned())
        );
        assert_eq!(
            suite(message("test", "balance", true)).map(|suite| suite.name),
            Some("ring: balance".to_owned())
        );
        assert!(suite(message("bin", "ring", false)).is_none());
        assert!(suite(message("bench", "lookup", true)).is_none());
    }

    #[test]
    fn other_messages_are_read_over() {
        let message = serde_json::from_str::<Message>(r#"{"reason":"build-finished","success":true}"#).unwrap();
        assert!(suite(message).is_none());
    }
}
