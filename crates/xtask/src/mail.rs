//! The emails that the development mail server received.

use anyhow::{Context, Result, bail};
use mail_parser::{MessageParser, MimeHeaders};

use crate::place::Place;
use crate::platform::NAMESPACE;
use crate::stage::Stage;

const MAIL_SERVER: &str = "deployment/ringwright-mail";
const MAILDIR: &str = "/var/mail/ringwright";
/// Stands between two messages when several are read at once; no line of a message can be it (RFC 5322 ends its lines
/// with CR LF and knows no NUL).
const SEPARATOR: char = '\0';

/// A received email.
#[derive(Debug)]
pub(crate) struct Email {
    pub(crate) to: String,
    pub(crate) subject: String,
    pub(crate) attachments: Vec<Attachment>,
}

/// A file in an email.
#[derive(Debug)]
pub(crate) struct Attachment {
    pub(crate) name: String,
    pub(crate) bytes: usize,
}

/// All emails to this address, in the order in which they came.
pub(crate) fn received(stage: &Stage, place: &Place, address: &str) -> Result<Vec<Email>> {
    // The file names of a Maildir begin with the time of delivery.
    let script = format!(
        "cd {MAILDIR}/new 2>/dev/null || exit 0; for file in *; do [ -f \"$file\" ] && cat \"$file\" && printf '\\0'; done; true"
    );
    let arguments = ["exec", "--namespace", NAMESPACE, MAIL_SERVER, "--", "sh", "-c", &script];
    let text = stage.read(&mut place.kubectl(&arguments))?;
    let mut emails = Vec::new();
    for raw in text.split(SEPARATOR).filter(|raw| !raw.trim().is_empty()) {
        let email = parse(raw.as_bytes())?;
        if email.to.eq_ignore_ascii_case(address) {
            emails.push(email);
        }
    }
    Ok(emails)
}

fn parse(raw: &[u8]) -> Result<Email> {
    let message = MessageParser::default()
        .parse(raw)
        .context("an email in the Maildir is no email")?;
    let to = message.to().and_then(|to| to.first()).and_then(|to| to.address());
    let Some(to) = to else {
        bail!("an email in the Maildir is addressed to nobody")
    };
    let attachments = message.attachments().map(|part| Attachment {
        name: part.attachment_name().unwrap_or("a file without a name").to_owned(),
        bytes: part.contents().len(),
    });
    Ok(Email {
        to: to.to_owned(),
        subject: message.subject().unwrap_or_default().to_owned(),
        attachments: attachments.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAW: &str = "From: Shop <shop@example.com>\r\nTo: Ada <ada@example.com>\r\n\
        Subject: =?utf-8?Q?Your_order_has_been_processed_=E2=80=93_thank_you?=\r\nMIME-Version: 1.0\r\n\
        Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nHello\r\n--b\r\n\
        Content-Type: application/pdf\r\nContent-Disposition: attachment; filename=\"invoice-7.pdf\"\r\n\
        Content-Transfer-Encoding: base64\r\n\r\nJVBERi0xLjc=\r\n--b--\r\n";

    #[test]
    fn subject_and_attachment_are_read_as_a_mail_program_shows_them() {
        let email = parse(RAW.as_bytes()).unwrap();
        assert_eq!(email.to, "ada@example.com");
        assert_eq!(email.subject, "Your order has been processed \u{2013} thank you");
        assert_eq!(email.attachments.len(), 1);
        assert_eq!(
            (email.attachments[0].name.as_str(), email.attachments[0].bytes),
            ("invoice-7.pdf", 8)
        );
    }
}
