//! Running other programs, with errors that tell what for.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::{Error, Result};

/// How much of a program's stderr goes into an error.
const STDERR_SHOWN: usize = 2000;

/// Where the system's own programs are, also for callers whose PATH lacks the sbin directories.
pub(crate) const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// One of the system's programs with its arguments.
pub(crate) fn system<S: AsRef<std::ffi::OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(program);
    command.args(args).env("PATH", SYSTEM_PATH).env("LC_ALL", "C");
    command
}

/// Runs the command to its end and returns its standard output.
pub(crate) fn run(attempt: &str, command: &mut Command) -> Result<String> {
    run_with_input(attempt, command, "")
}

/// As [`run`], with `input` on its standard input.
pub(crate) fn run_with_input(attempt: &str, command: &mut Command, input: &str) -> Result<String> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let failed = |status: String, stderr: String, command: &Command| Error::Command {
        attempt: attempt.to_owned(),
        command: describe(command),
        status,
        stderr,
    };
    let mut child = command
        .spawn()
        .map_err(|error| failed("not started".into(), error.to_string(), command))?;
    let mut stdin = child.stdin.take();
    let output = std::thread::scope(|scope| {
        // Written beside reading, or both sides could wait for the other. A program that does not read to the end
        // says so by its status.
        scope.spawn(move || stdin.as_mut().map(|stdin| stdin.write_all(input.as_bytes())));
        child.wait_with_output()
    })
    .map_err(|error| failed("not waited for".into(), error.to_string(), command))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(failed(
            output.status.to_string(),
            tail(stderr.trim(), STDERR_SHOWN).to_owned(),
            command,
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs `ip` with arguments as one would type them; none of ours contains a space.
pub(crate) fn ip(attempt: &str, args: &str) -> Result<String> {
    run(attempt, &mut system("ip", args.split_whitespace()))
}

fn describe(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        text.push(' ');
        text.push_str(&arg.to_string_lossy());
    }
    text
}

/// The last `limit` bytes at most, cut between characters.
fn tail(text: &str, limit: usize) -> &str {
    let mut from = text.len().saturating_sub(limit);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    &text[from..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_tells_attempt_command_status_and_stderr() {
        let error = run("proving a point", &mut system("sh", ["-c", "echo no luck >&2; exit 3"]))
            .unwrap_err()
            .to_string();
        for part in ["proving a point", "sh -c", "exit status: 3", "no luck"] {
            assert!(error.contains(part), "{error} lacks {part}");
        }
    }

    #[test]
    fn input_larger_than_a_pipe_passes_through() {
        let input = "x".repeat(1 << 20);
        assert_eq!(
            run_with_input("echoing", &mut system("cat", [""; 0]), &input).unwrap(),
            input
        );
    }

    #[test]
    fn a_tail_is_cut_between_characters() {
        assert_eq!(tail("aéz", 2), "z");
        assert_eq!(tail("short", 10), "short");
    }
}
