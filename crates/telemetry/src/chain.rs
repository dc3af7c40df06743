//! Errors in logs and statuses.

use std::error::Error;

/// An error with its causes, in one line: what is left out of a log is missing when somebody is called at night, and the
/// JSON format of the logs writes of an error only what it says of itself. A cause that an error has told already at the
/// end of its own message, as those of many libraries do, is not told twice.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.ends_with(&message) {
            text = format!("{text}: {message}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("could not read the ring")]
    struct Outer(#[source] std::io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("the ring is of no use: {0}")]
    struct Repeating(#[source] Outer);

    #[test]
    fn a_cause_that_was_told_already_is_not_told_again() {
        let error = Repeating(Outer(std::io::Error::other("the disk is gone")));
        assert_eq!(
            chain(&error),
            "the ring is of no use: could not read the ring: the disk is gone"
        );
    }

    #[test]
    fn every_cause_is_told_after_what_it_caused() {
        let error = Outer(std::io::Error::other("the disk is gone"));
        assert_eq!(chain(&error), "could not read the ring: the disk is gone");
    }
}
