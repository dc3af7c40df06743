//! The programs of the cluster, built from Go modules and cached by a hash of their sources.
//!
//! The sources are part of this crate's binary, so that a build does not depend on where, or whether, the checkout is.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::command::{run, system};
use crate::configuration::PAUSE_IMAGE;
use crate::lock::Lock;
use crate::{Error, Progress, Result, files, prerequisites, state};

const PROGRESS_EVERY: Duration = Duration::from_secs(15);

/// Versions as the programs tell them; a test holds them against `go.mod`.
const KUBERNETES: (&str, &str, &str) = ("v1.34.4", "1", "34");
const HELM: &str = "v3.19.5";

macro_rules! sources {
    ($($path:literal),+ $(,)?) => { &[$(($path, include_str!(concat!("../go/", $path)))),+] };
}

/// Every file below `go/`; a test compares the list with the directory.
const SOURCES: &[(&str, &str)] = sources![
    "coredns/main.go",
    "credentials/credentials.go",
    "go.mod",
    "go.sum",
    "helm/go.mod",
    "helm/go.sum",
    "hermetickube/main.go",
    "pause/main.go",
    "pauseimage/pauseimage.go",
    "provisioner/grow.go",
    "provisioner/main.go",
    "provisioner/volumes.go",
    "supervise/supervise.go",
];

/// Where the built programs lie.
#[derive(Debug, Clone)]
pub struct Tools {
    directory: PathBuf,
}

impl Tools {
    pub(crate) fn at(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// kubectl.
    pub fn kubectl(&self) -> PathBuf {
        self.directory.join("kubectl")
    }

    /// helm.
    pub fn helm(&self) -> PathBuf {
        self.directory.join("helm")
    }

    /// The directory with all of them, fit for PATH.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn hermetickube(&self) -> PathBuf {
        self.directory.join("hermetickube")
    }

    pub(crate) fn pause_image(&self) -> PathBuf {
        self.directory.join("pause.tar")
    }
}

/// Builds what is not built yet: minutes on a new machine, nothing afterwards.
///
/// # Errors
/// When Go is missing or the build fails.
pub fn build(progress: &Progress) -> Result<Tools> {
    let cache = state::cache()?.join("tools");
    let directory = cache.join(fingerprint());
    if directory.exists() {
        return Ok(Tools { directory });
    }
    files::make_directory(&cache)?;
    let _lock = Lock::wait(&cache.join("lock"))?;
    if directory.exists() {
        return Ok(Tools { directory });
    }
    // Complete or not there: built beside, then renamed.
    let unfinished = directory.with_extension("unfinished");
    let sources = unfinished.join("sources");
    files::remove_tree(&sources)?;
    for (path, content) in SOURCES {
        let path = sources.join(path);
        files::make_directory(path.parent().unwrap_or(&sources))?;
        files::write_whole(&path, content)?;
    }
    progress.say("building the cluster's programs (some six minutes on two cores the first time)");
    for program in programs() {
        program.build(&sources, &unfinished, progress)?;
    }
    let tools = Tools {
        directory: unfinished.clone(),
    };
    let mut command = Command::new(tools.hermetickube());
    command
        .arg("pause-image")
        .arg(unfinished.join("pause"))
        .arg(PAUSE_IMAGE)
        .arg(tools.pause_image());
    run("making the pause image", &mut command)?;
    let kubectl = tools.kubectl();
    files::remove_file(&kubectl)?;
    std::os::unix::fs::symlink("hermetickube", &kubectl).map_err(Error::io("linking", &kubectl))?;
    files::remove_tree(&sources)?;
    std::fs::rename(&unfinished, &directory).map_err(Error::io("putting in place", &directory))?;
    progress.say("the cluster's programs are built");
    Ok(Tools { directory })
}

/// The linker would strip the debug information again; without it a seventh of the time is saved.
const COMPILER_FLAGS: &str = "all=-dwarf=false";
/// A compiler that ends after some seconds need not collect garbage, up to this size: another seventh.
const COMPILER_MEMORY: [(&str, &str); 2] = [("GOGC", "off"), ("GOMEMLIMIT", "2GiB")];

/// Go, about to compile as the cluster's programs are compiled: what two compilations share, Go then finds in its cache.
///
/// # Errors
/// When Go is missing.
pub fn go(subcommand: &str) -> Result<Command> {
    let go = prerequisites::go().ok_or_else(|| Error::Prerequisites("  - Go 1.24 or later".into()))?;
    let mut command = Command::new(go);
    command.args([subcommand, "-gcflags", COMPILER_FLAGS]);
    Ok(command)
}

struct Program {
    name: &'static str,
    module: &'static str,
    package: &'static str,
    stamps: Vec<(&'static str, &'static str)>,
}

fn programs() -> Vec<Program> {
    let (version, major, minor) = KUBERNETES;
    let program = |name, module, package, stamps| Program {
        name,
        module,
        package,
        stamps,
    };
    vec![
        program(
            "hermetickube",
            ".",
            "./hermetickube",
            vec![
                // What release builds set; charts and clients compare these.
                ("k8s.io/component-base/version.gitVersion", version),
                ("k8s.io/component-base/version.gitMajor", major),
                ("k8s.io/component-base/version.gitMinor", minor),
            ],
        ),
        program("coredns", ".", "./coredns", vec![]),
        program("provisioner", ".", "./provisioner", vec![]),
        program("pause", ".", "./pause", vec![]),
        program(
            "helm",
            "helm",
            "helm.sh/helm/v3/cmd/helm",
            vec![
                ("helm.sh/helm/v3/internal/version.version", HELM),
                // What charts see as the cluster's version when they are rendered without a cluster.
                ("helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor", major),
                ("helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor", minor),
            ],
        ),
    ]
}

impl Program {
    fn build(&self, sources: &Path, into: &Path, progress: &Progress) -> Result<()> {
        let started = Instant::now();
        let mut flags = "-s -w".to_owned();
        for (variable, value) in &self.stamps {
            let _ = write!(flags, " -X {variable}={value}"); // writing to a String cannot fail
        }
        let mut command = go("build")?;
        command
            .args(["-v", "-ldflags", &flags, "-o"])
            .arg(into.join(self.name))
            .arg(self.package);
        command
            .current_dir(sources.join(self.module))
            .envs(COMPILER_MEMORY)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        if self.name == "pause" {
            // It is alone in its image, without a C library.
            command.env("CGO_ENABLED", "0");
        }
        let failed = |status: String, stderr: String| Error::Command {
            attempt: "building the cluster's programs".into(),
            command: format!("go build {}", self.package),
            status,
            stderr,
        };
        let mut child = command
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| failed("not started".into(), error.to_string()))?;
        let stderr = child.stderr.take();
        let lines = AtomicUsize::new(0);
        let (status, told) = std::thread::scope(|scope| {
            let reader = scope.spawn(|| read_build_output(stderr, &lines));
            let status = loop {
                match child.try_wait() {
                    Ok(None) => std::thread::sleep(Duration::from_millis(100)),
                    ended => break ended,
                }
                self.tell_life(started, &lines, progress);
            };
            (status, reader.join().unwrap_or_default())
        });
        match status {
            Ok(Some(status)) if status.success() => {}
            Ok(status) => {
                return Err(failed(
                    status.map_or_else(String::new, |status| status.to_string()),
                    told,
                ));
            }
            Err(error) => return Err(failed("not waited for".into(), error.to_string())),
        }
        progress.say(format_args!("built {} in {} s", self.name, started.elapsed().as_secs()));
        Ok(())
    }

    /// One line every [`PROGRESS_EVERY`]; called ten times a second.
    fn tell_life(&self, started: Instant, lines: &AtomicUsize, progress: &Progress) {
        let (elapsed, every) = (started.elapsed().as_millis(), PROGRESS_EVERY.as_millis());
        if elapsed / every != (elapsed.saturating_sub(100)) / every {
            let count = lines.load(Ordering::Relaxed);
            progress.say(format_args!(
                "building {}: {count} packages and downloads so far",
                self.name
            ));
        }
    }
}

/// Counts Go's lines and keeps those that tell neither a package nor a download: the errors.
fn read_build_output(stderr: Option<impl std::io::Read>, lines: &AtomicUsize) -> String {
    let mut errors = String::new();
    for line in stderr
        .into_iter()
        .flat_map(|stderr| BufReader::new(stderr).lines())
        .map_while(Result::ok)
    {
        lines.fetch_add(1, Ordering::Relaxed);
        if line.starts_with("go: downloading") || !line.contains([' ', '\t']) {
            continue;
        }
        errors.push_str(&line);
        errors.push('\n');
    }
    errors
}

/// A short name for these sources, with these settings.
fn fingerprint() -> String {
    let mut hash = Sha256::new();
    for (path, content) in SOURCES {
        hash.update(format!("{path}\n{}\n{content}", content.len()));
    }
    hash.update(format!("{KUBERNETES:?} {HELM}"));
    hash.finalize().iter().take(8).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // writing to a String cannot fail
        text
    })
}

/// The tools' directory must be usable by every node: nothing of it may be on a file system they cover.
pub(crate) fn check_location(directory: &Path) -> Result<()> {
    if directory.starts_with("/run") || directory.starts_with("/proc") {
        return Err(Error::Invalid(format!(
            "{} would be hidden from the nodes; set XDG_CACHE_HOME elsewhere",
            directory.display()
        )));
    }
    // Also fails early, and plainly, on a cache made for another kind of machine.
    run(
        "trying the built programs",
        &mut system(
            &directory.join("kubectl").display().to_string(),
            ["version", "--client"],
        ),
    )
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn go_files(directory: &Path, below: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                go_files(&path, below, found);
            } else if !path.to_string_lossy().ends_with("_test.go") {
                found.push(path.strip_prefix(below).unwrap().display().to_string());
            }
        }
    }

    #[test]
    fn every_go_source_is_part_of_the_build() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("go");
        let mut found = Vec::new();
        go_files(&directory, &directory, &mut found);
        found.sort();
        assert_eq!(found, SOURCES.iter().map(|(path, _)| *path).collect::<Vec<_>>());
    }

    #[test]
    fn the_versions_told_are_the_versions_built() {
        let source = |name| SOURCES.iter().find(|(path, _)| *path == name).unwrap().1;
        let (version, major, minor) = KUBERNETES;
        assert!(source("go.mod").contains(&format!("k8s.io/kubernetes {version}\n")));
        assert!(version.starts_with(&format!("v{major}.{minor}.")));
        assert!(source("helm/go.mod").contains(&format!("helm.sh/helm/v3 {HELM} ")));
    }

    #[test]
    fn only_errors_are_kept_of_a_build() {
        let output = "go: downloading example.org/x v1.0.0\nk8s.io/api/core/v1\nmain.go:3:1: syntax error\n";
        let lines = AtomicUsize::new(0);
        assert_eq!(
            read_build_output(Some(output.as_bytes()), &lines),
            "main.go:3:1: syntax error\n"
        );
        assert_eq!(lines.into_inner(), 3);
    }
}
