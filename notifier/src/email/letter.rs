//! A finished email.

use std::time::SystemTime;

use lettre::{
    Address, Message,
    address::{AddressError, Envelope},
    message::{
        Attachment as Part, Mailbox, MultiPart,
        header::{ContentType, HeaderName, HeaderValue},
    },
};
use row_id::{EmailId, OrderId};

use crate::templates::{EmailText, one_line};

/// Who writes: the parsed `--mail-from`.
#[derive(Clone, Debug)]
pub struct Sender(Mailbox);

impl std::str::FromStr for Sender {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|error: AddressError| {
            format!("{text:?} is no sender ({error}); write Name <address@domain> or address@domain")
        })
    }
}

impl Sender {
    fn domain(&self) -> &str {
        self.0.email.domain()
    }
}

/// A file that comes with an email.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// As the reader sees it.
    pub file_name: String,
    /// A PDF.
    pub pdf: Vec<u8>,
}

/// An email as it will travel.
#[derive(Clone)]
pub struct Letter {
    pub(super) envelope: Envelope,
    pub(super) bytes: Vec<u8>,
}

/// Why there can be no letter.
#[derive(Debug, thiserror::Error)]
pub enum LetterError {
    /// The stored address is none. Does not quote it.
    #[error("the customer's email address is not valid: {0}")]
    Address(AddressError),
    /// lettre refused to build it.
    #[error("cannot build the email: {0}")]
    Build(#[source] lettre::error::Error),
}

/// What is known of an email beside its text.
pub struct Addressing<'a> {
    /// The row.
    pub email_id: EmailId,
    /// The order it is about.
    pub order_id: OrderId,
    /// The customer's full name.
    pub name: String,
    /// The customer's address.
    pub address: &'a str,
}

impl Letter {
    /// Puts an email together. Its Message-ID is made from the row's id, so however often it is sent, it is recognised as
    /// one and the same.
    ///
    /// # Errors
    /// When the address is none, or the parts do not fit together.
    pub fn compose(
        sender: &Sender,
        to: &Addressing<'_>,
        text: &EmailText,
        attachment: Option<Attachment>,
    ) -> Result<Self, LetterError> {
        let address: Address = to.address.parse().map_err(LetterError::Address)?;
        let both = MultiPart::alternative_plain_html(text.plain.clone(), text.html.clone());
        let body = match attachment {
            None => both,
            Some(Attachment { file_name, pdf }) => {
                MultiPart::mixed().multipart(both).singlepart(Part::new(file_name).body(
                    pdf,
                    ContentType::parse("application/pdf").unwrap_or(ContentType::TEXT_PLAIN),
                ))
            }
        };
        let message = Message::builder()
            .from(sender.0.clone())
            // lettre panics at a control character in a name.
            .to(Mailbox::new(Some(one_line(&to.name)), address))
            .subject(text.subject.clone())
            .date(SystemTime::now())
            .message_id(Some(format!("<{}@{}>", to.email_id, sender.domain())))
            .raw_header(header("Content-Language", &text.language))
            // RFC 3834: no out-of-office answers, please.
            .raw_header(header("Auto-Submitted", "auto-generated"))
            .raw_header(header("X-Ringwright-Order", &to.order_id.to_string()))
            .multipart(body)
            .map_err(LetterError::Build)?;
        Ok(Self {
            envelope: message.envelope().clone(),
            bytes: message.formatted(),
        })
    }

    /// The message as it travels, headers and all.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

fn header(name: &'static str, value: &str) -> HeaderValue {
    HeaderValue::new(HeaderName::new_from_ascii_str(name), value.to_owned())
}

#[cfg(test)]
mod tests {
    use row_id::UserId;

    use super::*;

    fn text() -> EmailText {
        EmailText {
            language: "de".to_owned(),
            subject: "Ihre Bestellung für Tee".to_owned(),
            plain: "Grüße".to_owned(),
            html: "<p>Grüße</p>".to_owned(),
        }
    }

    fn compose(address: &str, attachment: Option<Attachment>) -> Result<(EmailId, String), LetterError> {
        let position = UserId::generate().position();
        let to = Addressing {
            email_id: EmailId::generate(position),
            order_id: OrderId::generate(position),
            name: "Ada \"The\" Lovelace\r\nBcc: x@example.com\0\u{7f}".to_owned(),
            address,
        };
        let letter = Letter::compose(&"Shop <orders@shop.example>".parse().unwrap(), &to, &text(), attachment)?;
        Ok((to.email_id, String::from_utf8(letter.bytes).unwrap()))
    }

    #[test]
    fn the_message_id_is_that_of_the_row() {
        let (id, message) = compose("ada@example.com", None).unwrap();
        assert!(
            message.contains(&format!("Message-ID: <{id}@shop.example>\r\n")),
            "{message}"
        );
        assert!(message.contains("Auto-Submitted: auto-generated\r\n"));
        assert!(message.contains("Content-Language: de\r\n"));
    }

    #[test]
    fn the_pdf_is_attached_beside_both_forms_of_the_text() {
        let attachment = Attachment {
            file_name: "invoice-0-1.pdf".to_owned(),
            pdf: b"%PDF-1.7".to_vec(),
        };
        let (_, message) = compose("ada@example.com", Some(attachment)).unwrap();
        for part in [
            "multipart/mixed",
            "multipart/alternative",
            "text/plain",
            "text/html",
            "application/pdf",
        ] {
            assert!(
                message.contains(&format!("Content-Type: {part}")),
                "{part} in {message}"
            );
        }
        assert!(message.contains("filename=\"invoice-0-1.pdf\""), "{message}");
    }

    #[test]
    fn a_name_adds_no_header() {
        let (_, message) = compose("ada@example.com", None).unwrap();
        assert!(!message.lines().any(|line| line.starts_with("Bcc:")), "{message}");
    }

    #[test]
    fn an_address_that_is_none_is_refused_without_being_quoted() {
        let refusal = compose("nobody at home", None).unwrap_err();
        assert!(matches!(refusal, LetterError::Address(_)));
        assert!(!refusal.to_string().contains("nobody"), "{refusal}");
    }
}
