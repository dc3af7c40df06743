//! Email: from rows to a letter, and over SMTP.

mod letter;
mod smtp;
mod smtp_url;

pub use letter::{Addressing, Attachment, Letter, LetterError, Sender};
pub use smtp::{Smtp, SmtpLimits};
pub use smtp_url::{SmtpUrl, SmtpUrlError};
