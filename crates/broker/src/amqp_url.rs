//! The broker's address, read from a file so that its password is neither an argument nor in the environment.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use lapin::uri::AMQPUri;

/// Seconds without a word from the broker after which the connection counts as lost (half of it is the interval), when
/// the URL does not say otherwise. The broker would propose 60 s: too long for orders to wait on a node that died.
const HEARTBEAT_SECONDS: u16 = 10;
const CONNECT_TIMEOUT_MS: u64 = 5_000;

/// An AMQP URL. Shows itself without its password, in every form of output.
#[derive(Clone)]
pub struct AmqpUrl(AMQPUri);

/// Why there is no usable URL.
#[derive(Debug, thiserror::Error)]
pub enum UrlError {
    /// The file cannot be read.
    #[error("cannot read the broker's URL from {path}: {source}; mount the Secret that holds it there", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file does not hold a URL. Its content is not shown, since it may hold a password.
    #[error(
        "{path} does not hold an AMQP URL: {problem}; expected amqp://user:password@host:port/vhost, percent-encoded, with %2f for the vhost /",
        path = path.display()
    )]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong, without quoting the content.
        problem: &'static str,
    },
}

impl AmqpUrl {
    /// Reads the first line of a file.
    ///
    /// # Errors
    /// When the file cannot be read or holds no usable URL.
    pub async fn read(path: &Path) -> Result<Self, UrlError> {
        let text = tokio::fs::read_to_string(path).await.map_err(|source| UrlError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(text.trim()).map_err(|problem| UrlError::Invalid {
            path: path.to_owned(),
            problem,
        })
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        if !text.starts_with("amqp://") && !text.starts_with("amqps://") {
            return Err("it does not begin with amqp:// or amqps://");
        }
        // The parser below would silently take an IPv6 address for "localhost".
        if text.contains("@[") || text.contains("://[") {
            return Err("it names the host by an IPv6 address, use a name");
        }
        // The parser's own error quotes the URL with its password.
        let mut uri: AMQPUri = text.parse().map_err(|_| "it cannot be parsed")?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        uri.query.connection_timeout.get_or_insert(CONNECT_TIMEOUT_MS);
        Ok(Self(uri))
    }

    pub(crate) fn uri(&self) -> AMQPUri {
        self.0.clone()
    }
}

impl fmt::Display for AmqpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AMQPUri {
            scheme,
            authority,
            vhost,
            ..
        } = &self.0;
        write!(
            f,
            "{scheme}://{}@{}:{}/{vhost}",
            authority.userinfo.username, authority.host, authority.port
        )
    }
}

impl fmt::Debug for AmqpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AmqpUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_never_shown() {
        let url = AmqpUrl::parse("amqp://shop:s3cret@broker.example:5673/%2f").unwrap();
        assert_eq!(url.to_string(), "amqp://shop@broker.example:5673//");
        assert!(!format!("{url:?}").contains("s3cret"));
    }

    #[tokio::test]
    async fn a_broken_url_is_refused_without_being_quoted() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("url");
        for text in [
            "http://shop:s3cret@broker",
            "amqp://shop:s3cret@[::1]:5672/",
            "amqp://shop:s3cret@bro ker/",
            "",
        ] {
            tokio::fs::write(&file, text).await.unwrap();
            let refusal = AmqpUrl::read(&file).await.unwrap_err().to_string();
            assert!(refusal.contains("does not hold an AMQP URL"), "{refusal}");
            assert!(!refusal.contains("s3cret"), "{refusal}");
        }
    }

    #[test]
    fn a_lost_broker_is_noticed_within_seconds_unless_the_url_says_otherwise() {
        let heartbeat = |text: &str| AmqpUrl::parse(text).unwrap().uri().query.heartbeat;
        assert_eq!(heartbeat("amqp://a:b@c"), Some(HEARTBEAT_SECONDS));
        assert_eq!(heartbeat("amqp://a:b@c?heartbeat=42"), Some(42));
    }
}
