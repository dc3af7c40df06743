//! Errors in logs and statuses.

use std::error::Error;

/// An error with its causes, in one line: what is left out of a log is missing when somebody is called at night, and the
/// JSON format of the logs writes of an error only what it says of itself.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
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

    #[test]
    fn every_cause_is_told_after_what_it_caused() {
        let error = Outer(std::io::Error::other("the disk is gone"));
        assert_eq!(chain(&error), "could not read the ring: the disk is gone");
    }
}
