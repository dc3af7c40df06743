//! The database roles and what they may do beside the tables (whose grants come with the migrations).

use secrecy::{ExposeSecret, SecretString};
use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::scram::{fits, scram_verifier};
use super::{AdminError, failed};

/// Owns the schemas; nobody logs in as this role.
pub(super) const OWNER: &str = "ringwright_owner";

/// A login role of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The order API.
    App,
    /// The notifier.
    Notifier,
    /// Logical replication of moved rows.
    Mover,
    /// Streaming replication.
    Replication,
    /// `pg_rewind`.
    Rewind,
    /// Metrics and the operator's observations.
    Monitor,
}

impl Role {
    /// Every login role.
    pub const ALL: [Self; 6] = [
        Self::App,
        Self::Notifier,
        Self::Mover,
        Self::Replication,
        Self::Rewind,
        Self::Monitor,
    ];

    /// Its name in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::App => "ringwright_app",
            Self::Notifier => "ringwright_notifier",
            Self::Mover => "ringwright_mover",
            Self::Replication => "ringwright_replication",
            Self::Rewind => "ringwright_rewind",
            Self::Monitor => "ringwright_monitor",
        }
    }

    fn replicates(self) -> bool {
        matches!(self, Self::Mover | Self::Replication)
    }
}

/// The passwords of all login roles.
#[derive(Debug, Clone)]
pub struct Passwords {
    /// Of [`Role::App`].
    pub app: SecretString,
    /// Of [`Role::Notifier`].
    pub notifier: SecretString,
    /// Of [`Role::Mover`].
    pub mover: SecretString,
    /// Of [`Role::Replication`].
    pub replication: SecretString,
    /// Of [`Role::Rewind`].
    pub rewind: SecretString,
    /// Of [`Role::Monitor`].
    pub monitor: SecretString,
}

impl Passwords {
    /// The password of one role.
    pub fn of(&self, role: Role) -> &SecretString {
        match role {
            Role::App => &self.app,
            Role::Notifier => &self.notifier,
            Role::Mover => &self.mover,
            Role::Replication => &self.replication,
            Role::Rewind => &self.rewind,
            Role::Monitor => &self.monitor,
        }
    }
}

/// What `pg_rewind` may call, by the PostgreSQL documentation ("pg_rewind", notes).
const REWIND_FUNCTIONS: [&str; 4] = [
    "pg_catalog.pg_ls_dir(text, boolean, boolean)",
    "pg_catalog.pg_stat_file(text, boolean)",
    "pg_catalog.pg_read_binary_file(text)",
    "pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean)",
];

/// Makes the shop's database if it is not there. `conn` is a superuser's, on database `postgres`.
pub async fn ensure_database(conn: &mut PgConnection, database: &str) -> Result<(), AdminError> {
    let operation = || format!("make database `{database}`");
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(database)
        .fetch_one(&mut *conn)
        .await
        .map_err(failed(operation))?;
    if exists {
        return Ok(());
    }
    // C.UTF-8 of Postgres' own provider: no surprise by the operating system's collations, on whatever image.
    let sql = format!(
        "CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C.UTF-8'",
        quoted(database)
    );
    execute(conn, sql, operation).await
}

/// Makes or corrects every role with its attributes, memberships and password, and the right to connect to `database`.
/// `conn` is a superuser's, on database `postgres`, after [`ensure_database`].
///
/// Passwords travel as SCRAM-SHA-256 verifiers computed here, so that no plain text reaches the server or its log. What
/// is right already is left alone: a second call writes nothing.
pub async fn ensure_roles(conn: &mut PgConnection, database: &str, passwords: &Passwords) -> Result<(), AdminError> {
    // Roles are shared by all databases of a server: two operators would update one catalog row at once and one of
    // them would fail. The key is this function's own.
    let lock = || "lock the roles".to_owned();
    execute(conn, "BEGIN; SELECT pg_advisory_xact_lock(7274496421)".to_owned(), lock).await?;
    let done = ensure_all(conn, database, passwords).await;
    let end = if done.is_ok() { "COMMIT" } else { "ROLLBACK" };
    execute(conn, end.to_owned(), || {
        "end the transaction that makes the roles".to_owned()
    })
    .await?;
    done
}

async fn ensure_all(conn: &mut PgConnection, database: &str, passwords: &Passwords) -> Result<(), AdminError> {
    ensure_role(conn, OWNER, "NOLOGIN NOREPLICATION").await?;
    for role in Role::ALL {
        let replication = if role.replicates() {
            "REPLICATION"
        } else {
            "NOREPLICATION"
        };
        ensure_role(conn, role.name(), &format!("LOGIN {replication}")).await?;
        if !password_fits(conn, role, passwords.of(role)).await? {
            reset_password(conn, role, passwords.of(role)).await?;
        }
    }
    // A subscription that does not confirm for a while waits for its own standby, or copies; the few seconds after which
    // a standby counts as gone would end its connection. Of a client that has really gone, the keepalives tell. By the
    // role, for the subscription's connection string has no say: Postgres 17 puts its own options in place of it.
    ensure_setting(conn, Role::Mover.name(), "wal_sender_timeout", "30s").await?;
    // The owner's functions show the programs how replication stands, and nothing else of what these roles may see.
    ensure_member(conn, OWNER, "pg_read_all_stats").await?;
    ensure_member(conn, Role::Monitor.name(), "pg_monitor").await?;
    for function in REWIND_FUNCTIONS {
        ensure_execute(conn, Role::Rewind.name(), function).await?;
    }
    ensure_database_rights(conn, database).await
}

/// Sets one role's password (as a verifier).
pub async fn reset_password(conn: &mut PgConnection, role: Role, password: &SecretString) -> Result<(), AdminError> {
    let verifier = scram_verifier(password);
    let sql = format!(
        "ALTER ROLE {} PASSWORD '{}'",
        quoted(role.name()),
        verifier.expose_secret()
    );
    execute(conn, sql, || format!("set the password of role `{}`", role.name())).await
}

async fn password_fits(conn: &mut PgConnection, role: Role, password: &SecretString) -> Result<bool, AdminError> {
    let stored: Option<String> = sqlx::query_scalar("SELECT rolpassword FROM pg_authid WHERE rolname = $1")
        .bind(role.name())
        .fetch_one(conn)
        .await
        .map_err(failed(|| {
            format!("read the password verifier of role `{}`", role.name())
        }))?;
    Ok(stored.is_some_and(|stored| fits(password, &stored)))
}

/// `attributes` are LOGIN and REPLICATION in either form; all others are the weakest there are.
async fn ensure_role(conn: &mut PgConnection, name: &str, attributes: &str) -> Result<(), AdminError> {
    let operation = || format!("make role `{name}`");
    let row = sqlx::query(
        "SELECT rolcanlogin, rolreplication, rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls AS too_strong
         FROM pg_roles WHERE rolname = $1",
    )
    .bind(name)
    .fetch_optional(&mut *conn)
    .await
    .map_err(failed(operation))?;
    let attributes = format!("{attributes} NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS");
    let Some(row) = row else {
        return execute(conn, format!("CREATE ROLE {} {attributes}", quoted(name)), operation).await;
    };
    let wanted = (
        attributes.contains(" LOGIN") || attributes.starts_with("LOGIN"),
        attributes.contains(" REPLICATION"),
    );
    if (row.get::<bool, _>(0), row.get::<bool, _>(1)) == wanted && !row.get::<bool, _>(2) {
        return Ok(());
    }
    execute(conn, format!("ALTER ROLE {} {attributes}", quoted(name)), operation).await
}

/// `value` is a constant that needs no quotes within quotes.
async fn ensure_setting(conn: &mut PgConnection, name: &str, setting: &str, value: &str) -> Result<(), AdminError> {
    let operation = || format!("set `{setting}` of role `{name}`");
    let right: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole
                        WHERE r.rolname = $1 AND s.setdatabase = 0 AND $2 = ANY (s.setconfig))",
    )
    .bind(name)
    .bind(format!("{setting}={value}"))
    .fetch_one(&mut *conn)
    .await
    .map_err(failed(operation))?;
    if right {
        return Ok(());
    }
    let sql = format!("ALTER ROLE {} SET {setting} = '{value}'", quoted(name));
    execute(conn, sql, operation).await
}

async fn ensure_member(conn: &mut PgConnection, name: &str, group: &str) -> Result<(), AdminError> {
    let operation = || format!("make `{name}` a member of `{group}`");
    let member: bool = sqlx::query_scalar("SELECT pg_has_role($1::name, $2::name, 'USAGE')")
        .bind(name)
        .bind(group)
        .fetch_one(&mut *conn)
        .await
        .map_err(failed(operation))?;
    if member {
        return Ok(());
    }
    execute(conn, format!("GRANT {} TO {}", quoted(group), quoted(name)), operation).await
}

pub(super) async fn ensure_execute(conn: &mut PgConnection, name: &str, function: &str) -> Result<(), AdminError> {
    let operation = || format!("let `{name}` call {function}");
    let granted: bool = sqlx::query_scalar("SELECT has_function_privilege($1::name, $2, 'EXECUTE')")
        .bind(name)
        .bind(function)
        .fetch_one(&mut *conn)
        .await
        .map_err(failed(operation))?;
    if granted {
        return Ok(());
    }
    // Two that grant at once would change one row of the catalog at once, and the server would refuse the later one. Sent
    // together, both statements are one transaction, and the second one sees what was granted meanwhile.
    let in_turn = "SELECT pg_advisory_xact_lock(hashtext('ringwright: rights'))";
    execute(
        conn,
        format!("{in_turn}; GRANT EXECUTE ON FUNCTION {function} TO {}", quoted(name)),
        operation,
    )
    .await
}

/// Nobody connects to the shop's database but these roles, and only the owner makes schemas in it.
async fn ensure_database_rights(conn: &mut PgConnection, database: &str) -> Result<(), AdminError> {
    let operation = || format!("grant the rights on database `{database}`");
    let logins: Vec<&str> = Role::ALL
        .into_iter()
        .filter(|role| *role != Role::Rewind)
        .map(Role::name)
        .collect();
    let right: bool = sqlx::query_scalar(
        "SELECT bool_and(has_database_privilege(r::name, $1, 'CONNECT'))
                AND has_database_privilege($3::name, $1, 'CREATE')
                AND NOT EXISTS (SELECT FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
                                WHERE d.datname = $1 AND a.grantee = 0)
         FROM unnest($2::text[]) r",
    )
    .bind(database)
    .bind(&logins)
    .bind(OWNER)
    .fetch_one(&mut *conn)
    .await
    .map_err(failed(operation))?;
    if right {
        return Ok(());
    }
    let database = quoted(database);
    let sql = format!(
        "REVOKE ALL ON DATABASE {database} FROM PUBLIC;
         GRANT CREATE ON DATABASE {database} TO {OWNER};
         GRANT CONNECT ON DATABASE {database} TO {}",
        logins.join(", ")
    );
    execute(conn, sql, operation).await
}

/// Runs a statement that takes no parameters. Callers put only quoted names, constants and verifiers into it.
async fn execute(conn: &mut PgConnection, sql: String, operation: impl Fn() -> String) -> Result<(), AdminError> {
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(conn)
        .await
        .map(drop)
        .map_err(failed(operation))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
