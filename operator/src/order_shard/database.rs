//! The operator's work in a shard's database: roles, schema, identity.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use ring::Ordinal;
use secrecy::ExposeSecret as _;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use sqlx::migrate::MigrateError;
use store::admin::{self, AdminError, AdminTarget, Lsn, PgSslMode, SchemaVersion, Setting, ShardIdentity};
use store::moves::{MoveError, ShardSession, observe};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::build::labels::names;
use super::build::services::POSTGRES_PORT;
use super::members::Member;
use super::passwords::{self, ResetError};
use super::secrets::Credentials;
use crate::holdings::takes_part_in_moves;

/// The shop's database.
pub(crate) const DATABASE: &str = "orders";
/// A database that was found as it should be is looked at again after this time: somebody may have changed a password
/// or a role by hand, which no watch tells.
const LOOK_AGAIN: Duration = Duration::from_secs(600);
/// Everything but migrations takes a second or two: a server that is silent for longer is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// A migration may take hours, so it is looked after instead: this often, from a second connection.
const LOOK_AFTER: Duration = Duration::from_secs(15);
/// So many looks without an answer mean that the server is gone.
const SILENT_LOOKS: u32 = 4;
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
    #[error("the session that migrated the schema on {0} was ended from outside; it is begun again")]
    SessionLost(String),
    #[error("the work on the database of {0} ended before its time; it is begun again")]
    Ended(String),
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
    pub(crate) fn at(occasion: Occasion, at: Instant) -> Self {
        Self { occasion, at }
    }

    /// Nothing has happened since that would ask for it again.
    pub(crate) fn still_holds(&self, occasion: &Occasion) -> bool {
        self.occasion == *occasion && self.at.elapsed() < LOOK_AGAIN
    }
}

/// What the work is at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The migration that is being applied; none while roles and the database itself are made.
    pub applying: Option<SchemaVersion>,
    /// Sessions that hold locks which the migration waits for.
    pub blockers: i32,
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Some(SchemaVersion(version)) = self.applying else {
            return f.write_str("roles and schema are being made");
        };
        let newest = admin::newest_schema_version().0;
        write!(
            f,
            "the schema is being migrated: version {version} of {newest} is on its way"
        )?;
        match self.blockers {
            0 => Ok(()),
            sessions => write!(f, " and waits for locks that {sessions} other sessions hold"),
        }
    }
}

/// Makes the master's database what a shard's must be. Idempotent. None: the passwords are right, and the rest waits for
/// a standby.
///
/// `confirmed`: commits are answered. A strict master without a standby answers none, so nothing is begun there but what
/// lets a standby in. A limit of time ends only this side's wait: no cancel is sent, and what was begun is repeated.
pub(crate) async fn prepare(
    pods: Api<Pod>,
    master: Member,
    credentials: Credentials,
    identity: ShardIdentity,
    confirmed: bool,
    progress: watch::Sender<Progress>,
) -> Result<Option<Prepared>, DatabaseError> {
    let begin = async {
        let (mut postgres, passwords_reset) = login(&pods, &master, &credentials).await?;
        if !confirmed {
            return Ok(None);
        }
        admin::ensure_database(&mut postgres, DATABASE).await?;
        admin::ensure_roles(&mut postgres, DATABASE, &credentials.roles).await?;
        let orders = admin::connect(&target(&master, &credentials, DATABASE)?).await?;
        Ok(Some((orders, passwords_reset)))
    };
    let Some((mut orders, passwords_reset)) = patiently(&master, begin).await? else {
        return Ok(None);
    };
    if let Some(schema) = patiently(&master, held_back(&master, &credentials, identity.ordinal)).await? {
        return Ok(Some(Prepared {
            schema,
            migration_waits: true,
            passwords_reset,
        }));
    }
    let schema = migrate(&mut orders, &master, &credentials, &progress).await?;
    let identify = async { Ok(admin::ensure_identity(&mut orders, &identity).await?) };
    patiently(&master, identify).await?;
    Ok(Some(Prepared {
        schema,
        migration_waits: false,
        passwords_reset,
    }))
}

async fn patiently<T>(
    master: &Member,
    work: impl Future<Output = Result<T, DatabaseError>>,
) -> Result<T, DatabaseError> {
    timeout(PATIENCE, work)
        .await
        .unwrap_or_else(|_| Err(DatabaseError::TooSlow(master.name.clone())))
}

/// Migrates, however long it takes, as long as the session that does it is there.
async fn migrate(
    orders: &mut PgConnection,
    master: &Member,
    credentials: &Credentials,
    progress: &watch::Sender<Progress>,
) -> Result<SchemaVersion, DatabaseError> {
    let session = admin::backend(orders).await?;
    let target = target(master, credentials, DATABASE)?;
    let tell = |version| {
        progress.send_replace(Progress {
            applying: Some(version),
            blockers: 0,
        });
    };
    tokio::select! {
        schema = admin::migrate_telling(orders, tell) => Ok(schema?),
        lost = look_after(session, &target, master, progress) => Err(lost),
    }
}

/// Ends only when the session is gone or the server is.
async fn look_after(
    session: i32,
    target: &AdminTarget,
    master: &Member,
    progress: &watch::Sender<Progress>,
) -> DatabaseError {
    let mut silent = 0;
    while silent < SILENT_LOOKS {
        sleep(LOOK_AFTER).await;
        let look = async {
            let mut beside = admin::connect(target).await?;
            admin::blockers(&mut beside, session).await
        };
        match timeout(LOOK_AFTER, look).await {
            Ok(Ok(Some(blockers))) => {
                silent = 0;
                progress.send_modify(|progress| progress.blockers = blockers);
            }
            Ok(Ok(None)) => return DatabaseError::SessionLost(master.name.clone()),
            Ok(Err(_)) | Err(_) => silent += 1,
        }
    }
    DatabaseError::TooSlow(master.name.clone())
}

/// How far back the master's log goes.
pub(crate) async fn oldest_log(master: &Member, credentials: &Credentials) -> Result<Option<Lsn>, DatabaseError> {
    let reading = async {
        let mut postgres = admin::connect(&target(master, credentials, "postgres")?).await?;
        Ok(admin::oldest_log(&mut postgres).await?)
    };
    patiently(master, reading).await
}

/// Drops the slot of `member` on the master if it keeps nothing any more: Patroni makes a new one.
pub(crate) async fn drop_lost_slot(
    master: &Member,
    credentials: &Credentials,
    member: &Member,
) -> Result<bool, DatabaseError> {
    let dropping = async {
        let mut postgres = admin::connect(&target(master, credentials, "postgres")?).await?;
        Ok(admin::drop_lost_slot(&mut postgres, &names::slot(&member.name)).await?)
    };
    patiently(master, dropping).await
}

/// Drops the slots of moves that a replica has left from its time as master; their names.
pub(crate) async fn drop_stale_slots(
    replica: &Member,
    credentials: &Credentials,
) -> Result<Vec<String>, DatabaseError> {
    let dropping = async {
        let mut postgres = admin::connect(&target(replica, credentials, "postgres")?).await?;
        Ok(admin::drop_stale_slots(&mut postgres).await?)
    };
    patiently(replica, dropping).await
}

/// The master's settings as they are in force.
pub(crate) async fn settings(master: &Member, credentials: &Credentials) -> Result<Vec<Setting>, DatabaseError> {
    let reading = async {
        let mut postgres = admin::connect(&target(master, credentials, "postgres")?).await?;
        Ok(admin::read_settings(&mut postgres).await?)
    };
    patiently(master, reading).await
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

/// The schema's version, if it has to stay as it is until keys have moved.
async fn held_back(
    master: &Member,
    credentials: &Credentials,
    ordinal: Ordinal,
) -> Result<Option<SchemaVersion>, DatabaseError> {
    let mut orders = admin::connect(&target(master, credentials, DATABASE)?).await?;
    let Some(found) = admin::schema_version(&mut orders).await? else {
        return Ok(None);
    };
    if !(FIRST_SCHEMA_WITH_MOVES..admin::newest_schema_version()).contains(&found) {
        return Ok(None);
    }
    let mut session = ShardSession::open(orders, ordinal, Vec::new(), Vec::new()).await?;
    Ok(takes_part_in_moves(&observe(&mut session).await?).then_some(found))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_migration_under_way_says_which_version_it_is_at_and_what_it_waits_for() {
        let newest = admin::newest_schema_version();
        let progress = Progress {
            applying: Some(newest),
            blockers: 2,
        };
        let n = newest.0;
        assert_eq!(
            progress.to_string(),
            format!(
                "the schema is being migrated: version {n} of {n} is on its way and waits for locks that 2 other sessions hold"
            )
        );
        assert_eq!(Progress::default().to_string(), "roles and schema are being made");
    }
}
