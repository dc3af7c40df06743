//! The emails that the development mail server received.

use anyhow::Result;
use installation::mail::{Email, PRINT_ALL, read_all};

use crate::place::Place;
use crate::platform::NAMESPACE;
use crate::stage::Stage;

const MAIL_SERVER: &str = "deployment/ringwright-mail";

/// All emails to this address, in the order in which they came.
pub(crate) fn received(stage: &Stage, place: &Place, address: &str) -> Result<Vec<Email>> {
    let arguments = ["exec", "--namespace", NAMESPACE, MAIL_SERVER, "--"];
    let mut emails = read_all(&stage.read(place.kubectl(&arguments).args(PRINT_ALL))?)?;
    emails.retain(|email| email.is_to(address));
    Ok(emails)
}
