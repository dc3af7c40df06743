//! `make test-moves`: the long campaign of moving keys, one seed after the other, and the model of the protocol with its
//! deeper bounds; and the benchmark of a scale-out.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::suites::{self, Environment};
use super::{close, end_to_end_environment, running_cluster};
use crate::cargo::Profile;
use crate::instances;
use crate::stage::{Runner, Stage, Tally};
use crate::workspace::Workspace;

const MODEL_DEADLINE: &str = "120m";
/// One campaign of 200,000 orders. After this long it is stuck.
const CAMPAIGN_DEADLINE: &str = "90m";
const BENCH_DEADLINE: &str = "60m";

/// Which campaigns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seeds {
    /// The first.
    pub(crate) from: u64,
    /// How many.
    pub(crate) count: u64,
    /// Under which load.
    pub(crate) load: Load,
}

/// What the keys move under.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Load {
    /// Orders stored before.
    #[arg(long, default_value_t = 200_000)]
    orders: usize,
    /// Requests a second.
    #[arg(long, default_value_t = 500)]
    rate: u32,
}

impl Load {
    fn arguments(self) -> [String; 4] {
        let Self { orders, rate } = self;
        [
            "--orders".to_owned(),
            orders.to_string(),
            "--rate".to_owned(),
            rate.to_string(),
        ]
    }
}

/// Runs a campaign a seed, on a cluster that is left running. Each outcome is a line in `target/moves/results.jsonl`;
/// a seed that has a line from the same commit is not run again, so an interrupted campaign goes on where it ended.
pub(crate) fn test_moves(workspace: &Workspace, seeds: Seeds) -> Result<ExitCode> {
    let mut run = Runner::new("test-moves", workspace)?;
    let instance = instances::test()?;
    let programs = run.stage("programs", Some(()), |stage, ()| {
        suites::build_campaign(stage, workspace)
    });
    let place = running_cluster(&mut run, workspace, &instance, programs);
    // Opened once: what is committed while it runs for hours is not what was run.
    let book = run.stage("campaigns", place.as_ref(), |stage, place| {
        let environment = end_to_end_environment(workspace, place, &instance)?;
        let book = Book::open(stage, workspace)?;
        let known = book.seeds(seeds.load)?;
        for seed in (seeds.from..).take(usize::try_from(seeds.count)?) {
            if known.contains(&seed) {
                stage.note(format!("seed {seed}: has its line already"));
                continue;
            }
            let line = campaign(stage, workspace, &environment, &book, seed, seeds.load)?;
            book.add(&line)?;
            stage.note(format!("seed {seed}: {}", told(&line)));
        }
        stage.count(book.sum_up(stage, seeds)?);
        Ok(book)
    });
    run.stage("model of the protocol", book, |stage, book| {
        if book.has_model()? {
            stage.note("searched already, at this commit");
            return Ok(());
        }
        let deep = Environment::from([("RINGWRIGHT_MODEL", "deep".to_owned())]);
        suites::build_model(stage, workspace)?.run(stage, MODEL_DEADLINE, &deep, None);
        if stage.is_clean() {
            book.add(&json!({"model": "deep", "commit": book.commit}))?;
        }
        Ok(())
    });
    Ok(close(&run))
}

/// Runs one campaign; what came of it.
fn campaign(
    stage: &Stage,
    workspace: &Workspace,
    environment: &Environment,
    book: &Book,
    seed: u64,
    load: Load,
) -> Result<Value> {
    let result = book.folder.join(format!("seed-{seed}.json"));
    if result.exists() {
        fs::remove_file(&result).with_context(|| format!("removing {}", result.display()))?;
    }
    let mut command = moves(workspace, CAMPAIGN_DEADLINE, environment);
    command
        .args(["campaign", "--seed", &seed.to_string()])
        .args(load.arguments());
    command.arg("--result").arg(&result);
    let ran = stage.run_watching(&mut command, |line| {
        if line.starts_with("---") || line.starts_with("    ") {
            println!("    {line}");
        }
    });
    let mut line = match fs::read_to_string(&result) {
        Ok(text) => serde_json::from_str(&text).with_context(|| format!("reading {}", result.display()))?,
        // It did not come to a verdict: that is a failure, with its reason in the log.
        Err(_) => {
            let why = ran
                .err()
                .map_or_else(|| "it wrote no result".to_owned(), |error| format!("{error:#}"));
            json!({"seed": seed, "passed": false, "complaints": [why]})
        }
    };
    line["commit"] = book.commit.clone().into();
    line["orders_before"] = load.orders.into();
    line["rate"] = load.rate.into();
    Ok(line)
}

/// Measures a scale-out under load and shows the figures.
pub(crate) fn bench_scale_out(run: &mut Runner, workspace: &Workspace, load: Load) -> Result<()> {
    let instance = instances::test()?;
    let programs = run.stage("programs", Some(()), |stage, ()| {
        suites::build_campaign(stage, workspace)
    });
    let place = running_cluster(run, workspace, &instance, programs);
    run.stage("scale-out under load", place.as_ref(), |stage, place| {
        let environment = end_to_end_environment(workspace, place, &instance)?;
        let mut command = moves(workspace, BENCH_DEADLINE, &environment);
        command.arg("bench").args(load.arguments());
        stage.run_watching(&mut command, |line| println!("    {line}"))
    });
    Ok(())
}

/// The program that moves keys, with a deadline. In the foreground: else Ctrl-C does not reach it.
fn moves(workspace: &Workspace, deadline: &str, environment: &Environment) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--foreground", "--kill-after=10s", deadline]);
    command.arg(Profile::Release.folder(workspace).join("moves"));
    command.envs(environment).env("RUST_BACKTRACE", "1");
    command
}

/// The file with a line for each campaign that was run.
struct Book {
    folder: PathBuf,
    /// What was run. Lines of other commits stay, and do not count.
    commit: String,
}

impl Book {
    fn open(stage: &Stage, workspace: &Workspace) -> Result<Self> {
        let folder = workspace.target().join("moves");
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        let commit = newest_commit(stage, workspace)?;
        Ok(Self { folder, commit })
    }

    fn path(&self) -> PathBuf {
        self.folder.join("results.jsonl")
    }

    fn add(&self, line: &Value) -> Result<()> {
        append(&self.path(), &line.to_string()).with_context(|| format!("writing {}", self.path().display()))
    }

    /// The lines of this commit. One that was cut off by a crash is none.
    fn lines(&self) -> Result<Vec<Value>> {
        let text = match fs::read_to_string(self.path()) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            read => read.with_context(|| format!("reading {}", self.path().display()))?,
        };
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let ours = |line: &Value| line["commit"] == self.commit.as_str();
        Ok(lines.filter(ours).collect())
    }

    /// Those of campaigns under this load.
    fn campaigns(&self, load: Load) -> Result<Vec<Value>> {
        let mut lines = self.lines()?;
        lines.retain(|line| line["orders_before"] == load.orders && line["rate"] == load.rate);
        Ok(lines)
    }

    /// Whether the model has been searched with its deeper bounds, and all was well.
    fn has_model(&self) -> Result<bool> {
        Ok(self.lines()?.iter().any(|line| line["model"] == "deep"))
    }

    fn seeds(&self, load: Load) -> Result<BTreeSet<u64>> {
        let lines = self.campaigns(load)?;
        Ok(lines.iter().filter_map(|line| line["seed"].as_u64()).collect())
    }

    /// What the seeds that were asked for came to.
    fn sum_up(&self, stage: &Stage, seeds: Seeds) -> Result<Tally> {
        let asked = seeds.from..seeds.from + seeds.count;
        let mut lines = self.campaigns(seeds.load)?;
        lines.retain(|line| line["seed"].as_u64().is_some_and(|seed| asked.contains(&seed)));
        let sum = |field: &str| lines.iter().filter_map(|line| line[field].as_u64()).sum::<u64>();
        let passed = lines.iter().filter(|line| line["passed"] == true).count() as u64;
        let failed = lines.len() as u64 - passed;
        stage.note(format!(
            "{} campaigns, {} requests on record, {} rules found broken, {} requests failed (only where members died may they)",
            lines.len(),
            sum("recorded"),
            sum("violations"),
            sum("failed")
        ));
        for line in lines.iter().filter(|line| line["passed"] != true) {
            stage.note(format!("seed {}: {}", line["seed"], told(line)));
        }
        stage.note(format!("lines: {}", self.path().display()));
        Ok(Tally { passed, failed })
    }
}

/// The newest commit that changed anything of a campaign (so, neither documents nor the tests of `make e2e`), and whether
/// something else has changed since.
fn newest_commit(stage: &Stage, workspace: &Workspace) -> Result<String> {
    const OF_A_CAMPAIGN: [&str; 5] = ["--", ".", ":(exclude)docs", ":(exclude)*.md", ":(exclude)e2e/tests"];
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.args(arguments).args(OF_A_CAMPAIGN).current_dir(workspace.root());
        stage.read(&mut git)
    };
    let commit = git(&["log", "-1", "--format=%H"])?.trim().to_owned();
    let changed = git(&["status", "--porcelain"])?;
    Ok(match changed.is_empty() {
        true => commit,
        false => format!("{commit}-dirty"),
    })
}

fn append(path: &Path, line: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    writeln!(file, "{line}")?;
    file.sync_data()
}

/// A line for a person.
fn told(line: &Value) -> String {
    if line["passed"] == true {
        return format!("passed, {} requests on record, {} s", line["recorded"], line["seconds"]);
    }
    let first = line["complaints"][0]
        .as_str()
        .unwrap_or("see the report beside the lines");
    format!(
        "FAILED, {} rules found broken; {}",
        line["violations"].as_u64().unwrap_or(0),
        first.lines().next().unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOAD: Load = Load { orders: 10, rate: 5 };

    fn book() -> (tempfile::TempDir, Book) {
        let folder = tempfile::tempdir().unwrap();
        let book = Book {
            folder: folder.path().to_owned(),
            commit: "abc".to_owned(),
        };
        (folder, book)
    }

    #[test]
    fn only_lines_of_the_same_commit_and_load_count() {
        let (_folder, book) = book();
        assert!(book.seeds(LOAD).unwrap().is_empty());
        for (seed, commit, orders, rate) in [
            (1, "abc", 10, 5),
            (2, "other", 10, 5),
            (3, "abc", 20, 5),
            (4, "abc", 10, 6),
        ] {
            let line = json!({"seed": seed, "passed": true, "commit": commit, "orders_before": orders, "rate": rate});
            book.add(&line).unwrap();
        }
        assert_eq!(book.seeds(LOAD).unwrap(), BTreeSet::from([1]));
        assert!(!book.has_model().unwrap());
        book.add(&json!({"model": "deep", "commit": "abc"})).unwrap();
        assert!(book.has_model().unwrap());
        assert_eq!(book.seeds(LOAD).unwrap(), BTreeSet::from([1]));
    }

    #[test]
    fn a_line_that_was_cut_off_is_none() {
        let (_folder, book) = book();
        book.add(&json!({"seed": 1, "passed": false, "commit": "abc", "orders_before": 10, "rate": 5}))
            .unwrap();
        fs::write(
            book.path(),
            fs::read_to_string(book.path()).unwrap() + "{\"seed\": 2, \"pas",
        )
        .unwrap();
        assert_eq!(book.seeds(LOAD).unwrap(), BTreeSet::from([1]));
    }
}
