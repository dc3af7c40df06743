//! The operator's work in a shard's database: roles, schema, identity.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use ring::Ordinal;
use secrecy::ExposeSecret as _;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use sqlx::migrate::MigrateError;
use store::admin::{self, AdminError, AdminTarget, PgSslMode, SchemaVersion, ShardIdentity};
use store::moves::{MoveError, ShardSession, observe};

use super::build::services::POSTGRES_PORT;
use super::members::Member;
use super::passwords::{self, ResetError};
use super::secrets::Credentials;
use crate::holdings::takes_part_in_moves;

/// The shop's database.
const DATABASE: &str = "orders";
/// A database that was found as it should be is looked at again after this time: somebody may have changed a password
/// or a role by hand, which no watch tells.
const LOOK_AGAIN: Duration = Duration::from_secs(600);
/// A migration of a new database takes a second or two.
const PATIENCE: Duration = Duration::from_secs(30);
/// Before this one there is nothing that a move could be written down in.
const FIRST_SCHEMA_WITH_MOVES: SchemaVersion = SchemaVersion(7);
/// `invalid_password` and `invalid_authorization_specification`.
const LOGIN_REFUSED: [&str; 2] = ["28P01", "28000"];

/// Work that could not be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DatabaseError {
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(transparent)]
    Reset(#[from] ResetError),
    #[error(transparent)]
    Moves(#[from] MoveError),
    #[error("the database of {0} did not answer within {PATIENCE:?}")]
    TooSlow(String),
    #[error("the master's pod {0} has no address yet")]
    NoAddress(String),
}

impl DatabaseError {
    /// It does not pass by itself: a person has to look at the volume, or run a newer operator.
    pub(crate) fn needs_a_person(&self) -> bool {
        let Self::Admin(error) = self else { return false };
        match error {
            AdminError::WrongIdentity { .. } | AdminError::Refused(_) => true,
            AdminError::Migrate(why) => !matches!(
                why,
                MigrateError::Execute(_) | MigrateError::ExecuteMigration(..) | MigrateError::Source(_)
            ),
            _ => false,
        }
    }
}

/// What was done, and found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Prepared {
    pub schema: SchemaVersion,
    /// There is a newer schema, and keys that move have to arrive first.
    pub migration_waits: bool,
    /// The passwords had to be set anew.
    pub passwords_reset: bool,
}

/// What the work depends on. While none of it changes the database is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Occasion {
    master_uid: String,
    timeline: Option<i64>,
    passwords: [u8; 32],
}

impl Occasion {
    pub(crate) fn of(master: &Member, credentials: &Credentials) -> Self {
        let mut hash = Sha256::new();
        let (system, roles) = (&credentials.system, &credentials.roles);
        let all = [
            &system.superuser,
            &roles.app,
            &roles.notifier,
            &roles.mover,
            &roles.monitor,
            &roles.replication,
            &roles.rewind,
        ];
        for password in all {
            // The zero byte keeps neighbours apart.
            hash.update(password.expose_secret());
            hash.update([0]);
        }
        Self {
            master_uid: master.uid.clone(),
            timeline: master.timeline(),
            passwords: hash.finalize().into(),
        }
    }
}

/// When the work was last done, and on what occasion.
#[derive(Debug, Clone)]
pub(crate) struct Done {
    occasion: Occasion,
    at: Instant,
}

impl Done {
    pub(crate) fn now(occasion: Occasion) -> Self {
        Self {
            occasion,
            at: Instant::now(),
        }
    }

    /// Nothing has happened since that would ask for it again.
    pub(crate) fn still_holds(&self, occasion: &Occasion) -> bool {
        self.occasion == *occasion && self.at.elapsed() < LOOK_AGAIN
    }
}

/// Makes the master's database what a shard's must be. Idempotent. None: the passwords are right, and the rest waits for
/// a standby.
///
/// `confirmed`: commits are answered. A strict master without a standby answers none, so nothing is begun there but what
/// lets a standby in. A limit of time ends only this side's wait: no cancel is sent, and what was begun is repeated.
pub(crate) async fn prepare(
    pods: &Api<Pod>,
    master: &Member,
    credentials: &Credentials,
    identity: &ShardIdentity,
    confirmed: bool,
) -> Result<Option<Prepared>, DatabaseError> {
    let work = async {
        let (mut postgres, passwords_reset) = login(pods, master, credentials).await?;
        if !confirmed {
            return Ok(None);
        }
        let (schema, migration_waits) = set_up(&mut postgres, master, credentials, identity).await?;
        Ok(Some(Prepared {
            schema,
            migration_waits,
            passwords_reset,
        }))
    };
    tokio::time::timeout(PATIENCE, work)
        .await
        .unwrap_or_else(|_| Err(DatabaseError::TooSlow(master.name.clone())))
}

/// A superuser's connection; if the database refuses the password, it is set first. True if it was.
async fn login(
    pods: &Api<Pod>,
    master: &Member,
    credentials: &Credentials,
) -> Result<(PgConnection, bool), DatabaseError> {
    let target = target(master, credentials, "postgres")?;
    match admin::connect(&target).await {
        Err(error) if is_login_refused(&error) => {
            passwords::reset(pods, &master.name, &credentials.system).await?;
            Ok((admin::connect(&target).await?, true))
        }
        other => Ok((other?, false)),
    }
}

async fn set_up(
    postgres: &mut PgConnection,
    master: &Member,
    credentials: &Credentials,
    identity: &ShardIdentity,
) -> Result<(SchemaVersion, bool), DatabaseError> {
    admin::ensure_database(postgres, DATABASE).await?;
    admin::ensure_roles(postgres, DATABASE, &credentials.roles).await?;
    let mut orders = admin::connect(&target(master, credentials, DATABASE)?).await?;
    if let Some(found) = admin::schema_version(&mut orders).await?
        && (FIRST_SCHEMA_WITH_MOVES..admin::newest_schema_version()).contains(&found)
    {
        let mut session = ShardSession::open(orders, identity.ordinal, Vec::new(), Vec::new()).await?;
        if takes_part_in_moves(&observe(&mut session).await?) {
            return Ok((found, true));
        }
        // Moves set their sessions up in their own way.
        orders = admin::connect(&target(master, credentials, DATABASE)?).await?;
    }
    let schema = admin::migrate(&mut orders).await?;
    admin::ensure_identity(&mut orders, identity).await?;
    Ok((schema, false))
}

/// What keeps the shard from going, in words, by its own database; `None`: it holds nothing.
pub(crate) async fn holdings(
    master: &Member,
    credentials: &Credentials,
    ordinal: Ordinal,
) -> Result<Option<String>, DatabaseError> {
    let orders = admin::connect(&target(master, credentials, DATABASE)?).await?;
    let mut session = ShardSession::open(orders, ordinal, Vec::new(), Vec::new()).await?;
    Ok(crate::holdings::holdings(&mut session).await?)
}

/// The identity that the shard's volumes must have.
pub(crate) fn identity(cluster_uid: &str, ordinal: u16) -> ShardIdentity {
    ShardIdentity {
        cluster_uid: cluster_uid.to_owned(),
        ordinal: Ordinal(ordinal),
    }
}

fn target(master: &Member, credentials: &Credentials, database: &str) -> Result<AdminTarget, DatabaseError> {
    let ip = master
        .ip
        .as_ref()
        .ok_or_else(|| DatabaseError::NoAddress(master.name.clone()))?;
    let host = if ip.contains(':') {
        format!("[{ip}]")
    } else {
        ip.clone()
    };
    Ok(AdminTarget {
        host: format!("{host}:{POSTGRES_PORT}"),
        database: database.to_owned(),
        user: "postgres".to_owned(),
        password: credentials.system.superuser.clone(),
        // `spec.tls` is reserved: encrypted where the server offers it.
        ssl_mode: PgSslMode::Prefer,
        ca_file: None,
    })
}

fn is_login_refused(error: &AdminError) -> bool {
    let AdminError::Connect { source, .. } = error else {
        return false;
    };
    source
        .as_database_error()
        .and_then(|e| e.code())
        .is_some_and(|code| LOGIN_REFUSED.contains(&code.as_ref()))
}
