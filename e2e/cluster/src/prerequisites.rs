//! What the machine must have, and how it gets it.

use crate::{Progress, Result};

/// Says what is missing; `Ok` when nothing is.
///
/// # Errors
/// [`crate::Error::Prerequisites`] with one line for each thing that is missing and the command that installs it.
pub fn check() -> Result<()> {
    todo!()
}

/// Installs what is missing (apt as root). Does nothing, quickly, when nothing is.
///
/// # Errors
/// [`crate::Error::Prerequisites`] when this machine cannot be helped, with the one command to run where there is one.
pub fn install(progress: &Progress) -> Result<()> {
    let _ = progress;
    todo!()
}
