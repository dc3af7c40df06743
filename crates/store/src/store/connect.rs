//! How connections to the shards are opened.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};

use crate::config::StoreConfig;

/// Splits `host:port`.
pub(crate) fn host_and_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    Some((host.trim_start_matches('[').trim_end_matches(']'), port.parse().ok()?))
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Transactions.
    Write,
    /// Queries on master or replica; the session refuses writes, so that it is safe to give up.
    Read,
}

/// Opens connections, with credentials that may change while the program runs.
pub(crate) struct Dialer {
    config: StoreConfig,
    credentials: ArcSwapOption<Credentials>,
}

struct Credentials {
    user: String,
    password: SecretString,
}

impl Dialer {
    pub(crate) fn new(config: StoreConfig) -> Self {
        Self {
            config,
            credentials: ArcSwapOption::empty(),
        }
    }

    /// Opens a connection. A refused login reads the credentials again and tries once more: they may have been rotated.
    pub(crate) async fn dial(&self, address: &str, purpose: Purpose) -> Result<PgConnection, sqlx::Error> {
        let fresh = self.credentials.load().is_none();
        match self.attempt(address, purpose).await {
            Err(error) if !fresh && is_login_refused(&error) => {
                tracing::info!(host = address, "the login was refused; reading the credentials again");
                self.credentials.store(None);
                self.attempt(address, purpose).await
            }
            outcome => outcome,
        }
    }

    async fn attempt(&self, address: &str, purpose: Purpose) -> Result<PgConnection, sqlx::Error> {
        let options = self.options(address, purpose).await?;
        match tokio::time::timeout(self.config.pool.connect_timeout, PgConnection::connect_with(&options)).await {
            Ok(connected) => connected,
            Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
        }
    }

    async fn options(&self, address: &str, purpose: Purpose) -> Result<PgConnectOptions, sqlx::Error> {
        let (host, port) = host_and_port(address)
            .ok_or_else(|| sqlx::Error::Configuration(format!("the ring names `{address}`, not host:port").into()))?;
        let credentials = self.credentials().await?;
        let mut options = PgConnectOptions::new_without_pgpass()
            .host(host)
            .port(port)
            .database(&self.config.database)
            .username(&credentials.user)
            .password(credentials.password.expose_secret())
            .ssl_mode(self.config.ssl_mode)
            .application_name(&self.config.application_name)
            .options(session_settings(purpose, self.config.read_deadline))
            .statement_cache_capacity(200)
            .log_statements(log::LevelFilter::Off)
            .log_slow_statements(log::LevelFilter::Warn, Duration::from_secs(1));
        if let Some(ca) = &self.config.ca_file {
            options = options.ssl_root_cert(ca);
        }
        Ok(options)
    }

    async fn credentials(&self) -> Result<Arc<Credentials>, sqlx::Error> {
        if let Some(known) = self.credentials.load_full() {
            return Ok(known);
        }
        let read = Arc::new(Credentials {
            user: self.read_file("username").await?,
            password: self.read_file("password").await?.into(),
        });
        self.credentials.store(Some(Arc::clone(&read)));
        Ok(read)
    }

    async fn read_file(&self, name: &str) -> Result<String, sqlx::Error> {
        let path: PathBuf = self.config.credentials_dir.join(name);
        match tokio::fs::read_to_string(&path).await {
            Ok(text) => Ok(text.trim_end_matches(['\r', '\n']).to_owned()),
            Err(error) => Err(sqlx::Error::Configuration(
                format!(
                    "cannot read the database {name} from {}: {error}; mount the Secret there",
                    path.display()
                )
                .into(),
            )),
        }
    }
}

/// What every session must be sure of, whatever the server's, database's or role's defaults say.
fn session_settings(purpose: Purpose, read_deadline: Duration) -> Vec<(&'static str, String)> {
    let mut settings = vec![
        // A commit's warning must arrive: it says that the outcome is unknown.
        ("client_min_messages", "warning".to_owned()),
        ("jit", "off".to_owned()),
        ("search_path", "pg_catalog".to_owned()),
        // Nothing may end a session in COMMIT: a cancelled wait for the standby answers success and shows the row.
        ("transaction_timeout", "0".to_owned()),
        ("client_connection_check_interval", "0".to_owned()),
        // A program that is stopped in a transaction keeps its locks, and others waiting: an operator for one.
        ("idle_in_transaction_session_timeout", "5s".to_owned()),
    ];
    match purpose {
        Purpose::Write => settings.extend([
            ("statement_timeout", "0".to_owned()),
            ("lock_timeout", "2s".to_owned()),
            ("synchronous_commit", "on".to_owned()),
        ]),
        Purpose::Read => settings.extend([
            ("default_transaction_read_only", "on".to_owned()),
            ("statement_timeout", format!("{}ms", read_deadline.as_millis())),
        ]),
    }
    settings
}

/// Wrong password, no such role, or no entry in `pg_hba.conf`.
fn is_login_refused(error: &sqlx::Error) -> bool {
    matches!(
        error.as_database_error().and_then(|error| error.code()).as_deref(),
        Some("28P01" | "28000")
    )
}

#[cfg(test)]
mod tests {
    use super::host_and_port;

    #[test]
    fn an_address_is_host_and_port() {
        assert_eq!(
            host_and_port("shop-0-0.shop-0.ns.svc:5432"),
            Some(("shop-0-0.shop-0.ns.svc", 5432))
        );
        assert_eq!(host_and_port("[::1]:5432"), Some(("::1", 5432)));
        assert_eq!(host_and_port("shop"), None);
        assert_eq!(host_and_port("shop:port"), None);
    }
}
