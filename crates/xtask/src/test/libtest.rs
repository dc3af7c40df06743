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

#[cfg(test)]
mod tests {
    use super::*;

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
