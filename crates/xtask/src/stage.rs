//! The one way long work is run: in named stages, with a sign of life, a log and a time for each.
//!
//! What a stage needs is the value another stage returned. A stage whose input is missing is reported as not run;
//! everything that does not depend on a failure still runs, so one broken test hides no other.

use std::cell::{Cell, RefCell};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hermetic_cluster::Progress;

use crate::workspace::Workspace;

/// When a stage first says that it is alive, and how often after that.
const FIRST_HEARTBEAT: Duration = Duration::from_secs(5);
const HEARTBEAT: Duration = Duration::from_secs(10);
/// How many lines of a failed stage's log are shown.
const SHOWN_ON_FAILURE: usize = 40;

/// Checks and tests that passed and failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    NotRun,
}

#[derive(Debug)]
struct Record {
    name: &'static str,
    took: Duration,
    outcome: Outcome,
    tally: Tally,
}

/// Runs the stages of one verb and remembers how they went.
#[derive(Debug)]
pub(crate) struct Runner {
    logs: PathBuf,
    started: Instant,
    records: Vec<Record>,
    failures: Vec<String>,
}

impl Runner {
    /// A runner whose logs replace those of the verb's last run.
    pub(crate) fn new(verb: &str, workspace: &Workspace) -> Result<Self> {
        let logs = workspace.logs(verb);
        if logs.exists() {
            fs::remove_dir_all(&logs).with_context(|| format!("removing the old logs in {}", logs.display()))?;
        }
        fs::create_dir_all(&logs).with_context(|| format!("creating the log folder {}", logs.display()))?;
        Ok(Self {
            logs,
            started: Instant::now(),
            records: Vec::new(),
            failures: Vec::new(),
        })
    }

    /// Runs `work` with what it needs, or reports the stage as not run when a stage before it did not deliver that.
    pub(crate) fn stage<N, T>(
        &mut self,
        name: &'static str,
        needs: Option<N>,
        work: impl FnOnce(&Stage, N) -> Result<T>,
    ) -> Option<T> {
        let Some(needs) = needs else {
            println!("--- {name}: not run, because a stage it needs did not succeed");
            self.record(name, Duration::ZERO, Outcome::NotRun, Tally::default());
            return None;
        };
        let started = Instant::now();
        println!("==> {name}");
        let log = self
            .logs
            .join(format!("{:02}-{}.log", self.records.len() + 1, name.replace(' ', "-")));
        let (result, tally) = match Stage::open(log.clone()) {
            Ok(stage) => {
                let pulse = stage.start_pulse();
                let result = work(&stage, needs);
                pulse.stop();
                self.failures.extend(stage.failures.take());
                (result, stage.tally.get())
            }
            Err(error) => (Err(error), Tally::default()),
        };
        let took = started.elapsed();
        match result {
            Ok(value) => {
                let outcome = if tally.failed == 0 {
                    Outcome::Passed
                } else {
                    Outcome::Failed
                };
                let word = if outcome == Outcome::Passed { "done" } else { "FAILED" };
                println!("<== {name}: {word} in {}", seconds(took));
                self.record(name, took, outcome, tally);
                Some(value)
            }
            Err(error) => {
                println!("<== {name}: FAILED after {}: {error:#}", seconds(took));
                show_tail(&log);
                self.record(name, took, Outcome::Failed, tally);
                None
            }
        }
    }

    fn record(&mut self, name: &'static str, took: Duration, outcome: Outcome, tally: Tally) {
        self.records.push(Record {
            name,
            took,
            outcome,
            tally,
        });
    }

    /// Prints each stage's seconds and says whether all of them passed.
    pub(crate) fn summary(&self) -> bool {
        println!("\n{:<34} {:>9}  result", "stage", "seconds");
        for record in &self.records {
            let result = match record.outcome {
                Outcome::Passed => "ok",
                Outcome::Failed => "FAILED",
                Outcome::NotRun => "not run",
            };
            let Tally { passed, failed } = record.tally;
            let counts = if passed + failed > 0 {
                format!(" ({passed} passed, {failed} failed)")
            } else {
                String::new()
            };
            println!(
                "{:<34} {:>9.1}  {result}{counts}",
                record.name,
                record.took.as_secs_f64()
            );
        }
        println!("{:<34} {:>9.1}", "total", self.started.elapsed().as_secs_f64());
        let passed = self.records.iter().all(|record| record.outcome == Outcome::Passed);
        if !passed {
            println!("logs: {}", self.logs.display());
            // Once more, where the eye falls: a run is some thousand lines long.
            self.failures.iter().for_each(|failure| println!("failed: {failure}"));
        }
        passed
    }

    /// Everything that was counted. A stage that failed without counting anything is one failure: a run with a broken
    /// stage must never read "0 failed".
    pub(crate) fn tally(&self) -> Tally {
        let mut total = Tally::default();
        for record in &self.records {
            total += record.tally;
            if record.outcome == Outcome::Failed && record.tally.failed == 0 {
                total.failed += 1;
            }
        }
        total
    }
}

/// A running stage: its log, and what is shown while it works.
#[derive(Debug)]
pub(crate) struct Stage {
    log: Arc<Log>,
    tally: Cell<Tally>,
    failures: RefCell<Vec<String>>,
}

#[derive(Debug)]
struct Log {
    path: PathBuf,
    file: Mutex<File>,
    last_line: Mutex<String>,
}

impl Log {
    /// For the file alone.
    fn record(&self, line: &str) {
        // A log that cannot be written (disk full) must not hide the work's own error.
        let _ = writeln!(unpoisoned(&self.file), "{line}");
    }

    /// For the file, and for the next sign of life.
    fn write(&self, line: &str) {
        self.record(line);
        let shown = line.trim();
        if !shown.is_empty() {
            *unpoisoned(&self.last_line) = shown.chars().take(110).collect();
        }
    }
}

/// Nothing here is left half changed by a panic, so a poisoned lock is as good as any.
fn unpoisoned<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stage {
    fn open(path: PathBuf) -> Result<Self> {
        let file = File::create(&path).with_context(|| format!("creating the log {}", path.display()))?;
        let log = Log {
            path,
            file: Mutex::new(file),
            last_line: Mutex::new(String::new()),
        };
        Ok(Self {
            log: Arc::new(log),
            tally: Cell::default(),
            failures: RefCell::default(),
        })
    }

    /// Something the person at the terminal wants to know.
    pub(crate) fn note(&self, text: impl AsRef<str>) {
        println!("    {}", text.as_ref());
        self.log.write(text.as_ref());
    }

    /// What is being done right now: goes to the log, and is shown with the next sign of life.
    pub(crate) fn doing(&self, text: impl AsRef<str>) {
        self.log.write(text.as_ref());
    }

    /// The cluster's own progress, as lines of this stage.
    pub(crate) fn progress(&self) -> Progress {
        let log = Arc::clone(&self.log);
        Progress::to(move |line| {
            println!("    {line}");
            log.write(line);
        })
    }

    /// Adds to the checks and tests this stage has counted.
    pub(crate) fn count(&self, tally: Tally) {
        let mut sum = self.tally.get();
        sum += tally;
        self.tally.set(sum);
    }

    /// Whether nothing it has counted failed.
    pub(crate) fn is_clean(&self) -> bool {
        self.tally.get().failed == 0
    }

    /// A check or test that failed, and why: shown at once, and again at the end of the run.
    pub(crate) fn failure(&self, text: String) {
        self.note(format!("  FAILED {text}"));
        self.failures.borrow_mut().push(text);
    }

    /// Where this stage's whole output is.
    pub(crate) fn log_path(&self) -> &std::path::Path {
        &self.log.path
    }

    /// Runs a command with its output in the log.
    pub(crate) fn run(&self, command: &mut Command) -> Result<()> {
        self.run_watching(command, |_| ())
    }

    /// Runs a command with its output in the log, showing each line to `watch` as well.
    pub(crate) fn run_watching(&self, command: &mut Command, mut watch: impl FnMut(&str)) -> Result<()> {
        self.run_sifting(command, |line| {
            watch(line);
            true
        })
    }

    /// Runs a command; of its output those lines go to the log for which `keep` says so.
    pub(crate) fn run_sifting(&self, command: &mut Command, mut keep: impl FnMut(&str) -> bool) -> Result<()> {
        let shown = describe(command);
        self.log.write(&format!("$ {shown}"));
        let (reader, writer) = std::io::pipe().context("creating a pipe")?;
        command
            .stdin(Stdio::null())
            .stdout(writer.try_clone().context("cloning a pipe")?)
            .stderr(writer);
        let spawned = command.spawn().with_context(|| format!("starting `{shown}`"));
        // The command holds the pipe's writing ends; without this the reader below would never see the end.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = spawned?;
        for line in BufReader::new(reader).split(b'\n') {
            let line = line.with_context(|| format!("reading the output of `{shown}`"))?;
            let line = String::from_utf8_lossy(&line);
            if keep(line.trim_end()) {
                self.log.write(line.trim_end());
            }
        }
        let status = child.wait().with_context(|| format!("waiting for `{shown}`"))?;
        if !status.success() {
            bail!("`{shown}` failed ({status})");
        }
        Ok(())
    }

    /// Runs a quick command and returns what it wrote to standard output; standard error goes to the log.
    pub(crate) fn read(&self, command: &mut Command) -> Result<String> {
        let shown = describe(command);
        self.log.record(&format!("$ {shown}"));
        let output = command
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("starting `{shown}`"))?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        complaint.lines().for_each(|line| self.log.record(line));
        if !output.status.success() {
            let why = complaint
                .lines()
                .rev()
                .find(|line| !line.trim().is_empty())
                .unwrap_or("it said nothing");
            bail!("`{shown}` failed ({}): {why}", output.status);
        }
        String::from_utf8(output.stdout).with_context(|| format!("`{shown}` wrote something that is not UTF-8"))
    }

    /// A sign of life every few seconds until stopped.
    fn start_pulse(&self) -> Pulse {
        let (stop, stopped) = mpsc::channel::<()>();
        let log = Arc::clone(&self.log);
        let started = Instant::now();
        let thread = thread::spawn(move || {
            let mut wait = FIRST_HEARTBEAT;
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(wait) {
                wait = HEARTBEAT;
                let last = unpoisoned(&log.last_line).clone();
                println!("    ... {:>6}  {last}", seconds(started.elapsed()));
            }
        });
        Pulse { stop, thread }
    }
}

struct Pulse {
    stop: mpsc::Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl Pulse {
    fn stop(self) {
        drop(self.stop);
        let _ = self.thread.join();
    }
}

/// A command as a person would type it.
pub(crate) fn describe(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(
        command
            .get_args()
            .map(|argument| argument.to_string_lossy().into_owned()),
    );
    words.join(" ")
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

fn show_tail(log: &std::path::Path) {
    let Ok(text) = fs::read(log) else { return };
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    for line in &lines[lines.len().saturating_sub(SHOWN_ON_FAILURE)..] {
        println!("    | {line}");
    }
    println!("    whole log: {}", log.display());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runner() -> (tempfile::TempDir, Runner) {
        let logs = tempfile::tempdir().unwrap();
        let runner = Runner {
            logs: logs.path().to_owned(),
            started: Instant::now(),
            records: Vec::new(),
            failures: Vec::new(),
        };
        (logs, runner)
    }

    #[test]
    fn a_failure_stops_only_what_needs_it() {
        let (_logs, mut runner) = runner();
        let broken = runner.stage("broken", Some(()), |_, ()| -> Result<()> { bail!("on purpose") });
        let dependent = runner.stage("dependent", broken, |_, ()| Ok(1));
        let independent = runner.stage("independent", Some(()), |_, ()| Ok(2));
        assert_eq!((dependent, independent), (None, Some(2)));
        assert!(!runner.summary());
        assert_eq!(runner.tally(), Tally { passed: 0, failed: 1 });
    }

    #[test]
    fn failed_tests_fail_the_run_but_not_the_stages_after_it() {
        let (_logs, mut runner) = runner();
        let value = runner.stage("tests", Some(()), |stage, ()| {
            stage.count(Tally { passed: 7, failed: 2 });
            Ok(())
        });
        assert!(value.is_some());
        assert!(!runner.summary());
        assert_eq!(runner.tally(), Tally { passed: 7, failed: 2 });
    }

    #[test]
    fn both_outputs_of_a_command_land_in_the_log_and_its_failure_is_told() {
        let (_logs, mut runner) = runner();
        let mut seen = Vec::new();
        let mut path = PathBuf::new();
        runner.stage("command", Some(()), |stage, ()| {
            path = stage.log_path().to_owned();
            let mut command = Command::new("sh");
            command.args(["-c", "echo out; echo err >&2; exit 3"]);
            let error = stage
                .run_watching(&mut command, |line| seen.push(line.to_owned()))
                .unwrap_err();
            assert!(error.to_string().contains("exit status: 3"), "{error}");
            Ok(())
        });
        assert_eq!(seen, ["out", "err"]);
        let log = fs::read_to_string(path).unwrap();
        assert!(log.contains("out\nerr\n"), "{log}");
    }
}
