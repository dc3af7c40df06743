//! What the standard test harness prints, read back as numbers.

use crate::stage::Tally;

/// Adds up the `test result:` lines of one or more suites.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    tally: Tally,
    closed: u64,
}

impl Counter {
    /// Reads one line of output.
    pub(crate) fn line(&mut self, line: &str) {
        // test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
        let Some(result) = line.trim().strip_prefix("test result: ") else {
            return;
        };
        let number = |word: &str| {
            let mut words = result
                .split([' ', ';', '.'])
                .filter(|part| !part.is_empty())
                .collect::<Vec<_>>()
                .into_iter();
            let mut before = words.next()?;
            for next in words {
                if next == word {
                    return before.parse::<u64>().ok();
                }
                before = next;
            }
            None
        };
        if let (Some(passed), Some(failed)) = (number("passed"), number("failed")) {
            self.tally += Tally { passed, failed };
            self.closed += 1;
        }
    }

    /// The numbers. A command that failed though no test did (it crashed, hung, or did not compile) is one failure, and
    /// so is one that ended well without ever closing a suite.
    pub(crate) fn finish(self, succeeded: bool) -> Tally {
        let mut tally = self.tally;
        if tally.failed == 0 && (!succeeded || self.closed == 0) {
            tally.failed = 1;
        }
        tally
    }
}

/// Characters shown of what one failed test said.
const SHOWN_OF_A_MESSAGE: usize = 500;

/// Collects why tests failed, from what the harness tells at its end.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    found: Vec<String>,
    within: Part,
}

/// Of what the harness tells of one failed test.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Its output before it failed, or nothing of it.
    #[default]
    Before,
    /// Its error or panic.
    Message,
}

impl Failures {
    /// Reads one line of output.
    pub(crate) fn line(&mut self, line: &str) {
        // ---- failover::a_killed_master_fails_over stdout ----
        let heading = line
            .strip_prefix("---- ")
            .and_then(|rest| rest.strip_suffix(" stdout ----"));
        if let Some(name) = heading {
            self.found.push(format!("{name}:"));
            self.within = Part::Before;
            return;
        }
        let Some(last) = self.found.last_mut() else {
            return;
        };
        if line.starts_with("Error: ") || (line.starts_with("thread '") && line.contains(" panicked at ")) {
            self.within = Part::Message;
        } else if line.to_lowercase().starts_with("stack backtrace:") || line == "failures:" {
            self.within = Part::Before;
        }
        if self.within == Part::Message && !line.trim().is_empty() {
            let room = SHOWN_OF_A_MESSAGE.saturating_sub(last.chars().count());
            last.extend(format!(" {}", line.trim()).chars().take(room));
        }
    }

    /// One line for each failed test: its name and its error.
    pub(crate) fn finish(self) -> Vec<String> {
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_test_is_told_by_its_name_and_its_error() {
        let output = "test a::b ... FAILED\n\nfailures:\n\n---- a::b stdout ----\nmade a cluster\nError: waited 60 s in vain\n\n\
                      Caused by:\n    refused\n\nStack backtrace:\n   0: std::rt\n\n---- c stdout ----\n\n\
                      thread 'c' (7) panicked at x.rs:1:2:\nleft is not right\nstack backtrace:\n   0: core\n\n\
                      failures:\n    a::b\n    c\n";
        let mut failures = Failures::default();
        output.lines().for_each(|line| failures.line(line));
        assert_eq!(
            failures.finish(),
            [
                "a::b: Error: waited 60 s in vain Caused by: refused",
                "c: thread 'c' (7) panicked at x.rs:1:2: left is not right",
            ]
        );
    }

    fn count(output: &str, succeeded: bool) -> (u64, u64) {
        let mut counter = Counter::default();
        output.lines().for_each(|line| counter.line(line));
        let tally = counter.finish(succeeded);
        (tally.passed, tally.failed)
    }

    const OK: &str = "running 2 tests\ntest result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
    const FAILED: &str =
        "test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n";

    #[test]
    fn suites_add_up() {
        assert_eq!(count(&format!("{OK}{FAILED}"), false), (5, 1));
    }

    #[test]
    fn a_crash_after_passing_tests_is_a_failure() {
        assert_eq!(count(OK, false), (2, 1));
    }

    #[test]
    fn a_suite_that_says_nothing_is_a_failure() {
        assert_eq!(count("", true), (0, 1));
        assert_eq!(count("a program printed: test result: ok\n", true), (0, 1));
    }
}
