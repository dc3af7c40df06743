//! The emails that the development mail server received.

use mail_parser::{MessageParser, MimeHeaders};

/// What its pods are found by.
pub const SELECTOR: &str = "app.kubernetes.io/name=ringwright-mail";
/// Prints every email, in the order in which they came: the file names of a Maildir begin with the time of delivery.
pub const PRINT_ALL: [&str; 3] = [
    "sh",
    "-c",
    "cd /var/mail/ringwright/new 2>/dev/null || exit 0; \
     for file in *; do [ -f \"$file\" ] && cat \"$file\" && printf '\\0'; done; true",
];
/// Stands between two messages; no line of a message can be it (RFC 5322 ends its lines with CR LF and knows no NUL).
const SEPARATOR: char = '\0';

/// A received email.
#[derive(Clone, Debug)]
pub struct Email {
    /// The recipient.
    pub to: String,
    /// The subject, decoded.
    pub subject: String,
    /// The attached files.
    pub attachments: Vec<Attachment>,
}

/// A file in an email.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// What it is called.
    pub name: String,
    /// What it holds, decoded.
    pub content: Vec<u8>,
}

/// What lies in the Maildir cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MailError {
    /// No message.
    #[error("a file in the Maildir is no email")]
    NoEmail,
    /// A message without a recipient.
    #[error("an email in the Maildir is addressed to nobody")]
    NoRecipient,
}

/// Reads what [`PRINT_ALL`] printed.
///
/// # Errors
/// When something in it is no email to anybody.
pub fn read_all(printed: &str) -> Result<Vec<Email>, MailError> {
    printed
        .split(SEPARATOR)
        .filter(|raw| !raw.trim().is_empty())
        .map(|raw| parse(raw.as_bytes()))
        .collect()
}

impl Email {
    /// Whether it went to this address.
    #[must_use]
    pub fn is_to(&self, address: &str) -> bool {
        self.to.eq_ignore_ascii_case(address)
    }
}

fn parse(raw: &[u8]) -> Result<Email, MailError> {
    let message = MessageParser::default().parse(raw).ok_or(MailError::NoEmail)?;
    let to = message.to().and_then(|to| to.first()).and_then(|to| to.address());
    let attachments = message.attachments().map(|part| Attachment {
        name: part.attachment_name().unwrap_or("a file without a name").to_owned(),
        content: part.contents().to_vec(),
    });
    Ok(Email {
        to: to.ok_or(MailError::NoRecipient)?.to_owned(),
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
            (email.attachments[0].name.as_str(), email.attachments[0].content.len()),
            ("invoice-7.pdf", 8)
        );
    }

    #[test]
    fn emails_are_told_apart_and_an_empty_mailbox_has_none() {
        let emails = read_all(&format!("{RAW}\0{RAW}\0\n")).unwrap();
        assert!(emails.len() == 2 && emails[1].is_to("Ada@Example.com"), "{emails:?}");
        assert!(read_all("").unwrap().is_empty());
        assert_eq!(read_all("Subject: x\r\n\r\ny\r\n").unwrap_err(), MailError::NoRecipient);
    }
}
