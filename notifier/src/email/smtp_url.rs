//! The mail server's address, with its password, read from a file.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use lettre::transport::smtp::authentication::Credentials;
use url::Url;

/// How the connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Security {
    /// TLS from the first byte: `smtps://`.
    Tls,
    /// STARTTLS, or no connection: `smtp://...?tls=required`.
    StartTls,
    /// In the clear: `smtp://`.
    Plain,
}

/// A parsed SMTP URL. Shows itself without its password.
#[derive(Clone)]
pub struct SmtpUrl {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) security: Security,
    pub(super) credentials: Option<Credentials>,
}

/// Why there is no usable URL. Never quotes the file.
#[derive(Debug, thiserror::Error)]
pub enum SmtpUrlError {
    /// The file cannot be read.
    #[error("cannot read the mail server's URL from {path}: {source}; mount the Secret that holds it there", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It holds no usable URL.
    #[error(
        "{path} does not hold a URL of a mail server: {problem}; expected smtps://user:password@host:465, \
         smtp://user:password@host:587?tls=required or, without a user, smtp://host:25",
        path = path.display()
    )]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
}

impl SmtpUrl {
    /// Reads and checks the URL.
    ///
    /// # Errors
    /// When the file cannot be read or holds no usable URL.
    pub async fn read(path: &Path) -> Result<Self, SmtpUrlError> {
        let text = tokio::fs::read_to_string(path)
            .await
            .map_err(|source| SmtpUrlError::Read {
                path: path.to_owned(),
                source,
            })?;
        Self::parse(text.trim()).map_err(|problem| SmtpUrlError::Invalid {
            path: path.to_owned(),
            problem,
        })
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        let url = Url::parse(text).map_err(|_| "it cannot be parsed")?;
        let host = url
            .host_str()
            .filter(|host| !host.is_empty())
            .ok_or("it names no host")?;
        let tls = url
            .query_pairs()
            .find(|(key, _)| key == "tls")
            .map(|(_, value)| value.into_owned());
        let security = match (url.scheme(), tls.as_deref()) {
            ("smtps", None) => Security::Tls,
            ("smtp", Some("required")) => Security::StartTls,
            ("smtp", None) => Security::Plain,
            ("smtp" | "smtps", Some(_)) => return Err("the only value of tls is required, and only with smtp://"),
            _ => return Err("its scheme is neither smtp nor smtps"),
        };
        let credentials = credentials(&url)?;
        if credentials.is_some() && security == Security::Plain {
            return Err("it would send the password in the clear, use smtps:// or add ?tls=required");
        }
        let default_port = match security {
            Security::Tls => 465,
            Security::StartTls => 587,
            Security::Plain => 25,
        };
        Ok(Self {
            host: host.to_owned(),
            port: url.port().unwrap_or(default_port),
            security,
            credentials,
        })
    }
}

fn credentials(url: &Url) -> Result<Option<Credentials>, &'static str> {
    let decode = |text: &str| {
        percent_encoding::percent_decode_str(text)
            .decode_utf8()
            .map(|text| text.into_owned())
            .map_err(|_| "user or password is not percent-encoded UTF-8")
    };
    match (url.username(), url.password()) {
        ("", None) => Ok(None),
        (user, Some(password)) => Ok(Some(Credentials::new(decode(user)?, decode(password)?))),
        (_, None) => Err("it names a user without a password"),
    }
}

impl fmt::Display for SmtpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.security == Security::Tls {
            "smtps"
        } else {
            "smtp"
        };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for SmtpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SmtpUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_say_how_the_connection_is_protected() {
        let parsed = |text: &str| SmtpUrl::parse(text).map(|url| (url.security, url.port, url.credentials.is_some()));
        assert_eq!(parsed("smtps://u:p@mail.example"), Ok((Security::Tls, 465, true)));
        assert_eq!(
            parsed("smtp://u:p@mail.example?tls=required"),
            Ok((Security::StartTls, 587, true))
        );
        assert_eq!(
            parsed("smtp://shop-mail.ns.svc:2525"),
            Ok((Security::Plain, 2525, false))
        );
    }

    #[test]
    fn a_password_is_never_sent_in_the_clear_and_never_shown() {
        assert!(
            SmtpUrl::parse("smtp://u:s3cret@mail.example")
                .unwrap_err()
                .contains("in the clear")
        );
        let url = SmtpUrl::parse("smtps://u:s3cret@mail.example").unwrap();
        assert_eq!(
            format!("{url} {url:?}"),
            "smtps://mail.example:465 SmtpUrl(smtps://mail.example:465)"
        );
    }

    #[test]
    fn what_is_no_mail_server_is_refused() {
        for text in [
            "",
            "mail.example",
            "http://mail.example",
            "smtp://",
            "smtp://m?tls=opportunistic",
            "smtps://u@m",
        ] {
            assert!(SmtpUrl::parse(text).is_err(), "{text}");
        }
    }
}
