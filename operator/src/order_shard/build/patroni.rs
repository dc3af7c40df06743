//! Patroni's configuration: the file of all members, the file of each member, and the dynamic part in the DCS.

use std::time::Duration;

use crds::labels;
use serde_json::{Value, json};
use store::admin::Role;

use super::labels::{component, names};
use crate::order_shard::shard::Shard;

/// Seconds after which a silent master loses its lock. 20 is the least Patroni takes.
const TTL: u32 = 20;
/// The same as a time.
pub(crate) const LOCK_LIFE: Duration = Duration::from_secs(TTL as u64);
/// Seconds between two looks of Patroni at its world.
const LOOP_WAIT: u32 = 1;
/// Seconds that Patroni tries to reach the API server, half of it with each request; then its master has to ask all others
/// whether it may go on, and steps down when one of them does not answer. 3 is the least Patroni takes, and too little for
/// an API server that is short of time. Between two renewals of the lock a master may try four things: to write who is its
/// synchronous standby, to tell its own state (with half the time), to load the cluster and to renew. All of it and the
/// loop's second have to fit into the lock's life, or a standby takes over from a master that knows nothing of it.
const RETRY_TIMEOUT: u32 = 5;
const _: () = assert!(LOOP_WAIT + 3 * RETRY_TIMEOUT + RETRY_TIMEOUT.div_ceil(2) <= TTL);

/// Where the volume is mounted. The data lies in a directory below: the file system's root holds `lost+found`, and a
/// later major version gets a directory of its own beside it.
pub(super) const VOLUME: &str = "/var/lib/postgresql";
const DATA: &str = "/var/lib/postgresql/17/data";

/// Who may connect, and how. The first line that fits decides.
///
/// Inside the pod the operating system's user `postgres` is the superuser without a password (the operator resets lost
/// passwords that way); over the network everybody proves a password. Encryption is not asked for yet (`spec.tls` is
/// reserved): `host` lines take both.
fn host_based_authentication() -> Vec<String> {
    let replication = Role::Replication.name();
    let rewind = Role::Rewind.name();
    vec![
        "local all postgres peer".to_owned(),
        // Patroni asks its own server for the timeline's history as the replication role.
        format!("local replication {replication} peer map=patroni"),
        "local all all reject".to_owned(),
        format!("host replication {replication} all scram-sha-256"),
        // The standby's slot synchronisation worker opens an ordinary connection to the master.
        format!("host postgres {replication} all scram-sha-256"),
        format!("host postgres {rewind} all scram-sha-256"),
        "host replication all all reject".to_owned(),
        "host all all all scram-sha-256".to_owned(),
    ]
}

/// The file that all members of the shard share.
pub(super) fn shared_file(shard: &Shard) -> Value {
    json!({
        "scope": shard.name,
        "kubernetes": {
            "labels": {labels::COMPONENT: component::SHARD, labels::CLUSTER: shard.cluster},
            "scope_label": labels::SHARD,
            "role_label": labels::ROLE,
            "leader_label_value": labels::ROLE_MASTER,
            "follower_label_value": labels::ROLE_REPLICA,
            "use_endpoints": false,
            "bypass_api_service": false,
        },
        "restapi": {"listen": "*:8008"},
        "log": {"level": "INFO"},
        // Containers have no watchdog device.
        "watchdog": {"mode": "off"},
        "bootstrap": {
            // Only for the moment in which a new shard's `-config` ConfigMap is missing: the operator writes the whole
            // dynamic configuration there before the first pod starts, and Patroni prefers that.
            "dcs": timing(),
            // The builtin provider sorts the same on every image, so an upgrade of the C library breaks no index.
            "initdb": [
                {"encoding": "UTF8"},
                {"locale-provider": "builtin"},
                {"builtin-locale": "C.UTF-8"},
                {"locale": "C.UTF-8"},
                {"auth-local": "peer"},
                {"auth-host": "scram-sha-256"},
                "data-checksums",
            ],
        },
        "postgresql": {
            "listen": "*:5432",
            "bin_dir": "/usr/lib/postgresql/17/bin",
            "data_dir": DATA,
            // Holds the replication password, hence in memory with the pod and never on the volume.
            "pgpass": "/tmp/pgpass",
            "use_unix_socket": true,
            "use_unix_socket_repl": true,
            "basebackup": [{"checkpoint": "fast"}],
        },
    })
}

/// What only this member has: its logical slots hand a change out after these standbys have it. Its own slot must not
/// be among them, hence a file a member. While it is a replica PostgreSQL ignores the setting.
pub(super) fn member_file(shard: &Shard, member: &str) -> Value {
    let standbys: Vec<String> = shard
        .members()
        .filter(|other| other != member)
        .map(|other| names::slot(&other))
        .collect();
    json!({"postgresql": {"parameters": {"synchronized_standby_slots": standbys.join(",")}}})
}

/// What the Secret gives to all members.
pub(super) fn credentials_file(passwords: &super::SystemPasswords) -> Value {
    use secrecy::ExposeSecret as _;
    let login = |username: &str, password: &secrecy::SecretString| json!({"username": username, "password": password.expose_secret()});
    json!({
        "restapi": {"authentication": login(&passwords.patroni_username, &passwords.patroni_password)},
        "postgresql": {"authentication": {
            "superuser": login("postgres", &passwords.superuser),
            "replication": login(Role::Replication.name(), &passwords.replication),
            "rewind": login(Role::Rewind.name(), &passwords.rewind),
        }},
    })
}

/// The dynamic configuration as Patroni keeps it in the annotation `config` of `<shard>-config`: everything that can
/// change while the shard runs. Compact, as Patroni itself writes it back after the bootstrap.
pub(super) fn dynamic(shard: &Shard) -> String {
    let mut configuration = json!({
        "maximum_lag_on_failover": 1_048_576,
        // An asynchronous standby on an old timeline must not be promoted for being near in bytes.
        "check_timeline": true,
        // Without it every master would be demoted when the API server is away.
        "failsafe_mode": true,
        // A crashed master is not waited for when a standby can take over.
        "primary_start_timeout": 0,
        "synchronous_mode": shard.commit.mode(),
        "synchronous_mode_strict": shard.commit.strict(),
        "synchronous_node_count": 1,
        // Slots of moves are the operator's; Patroni would drop those it does not know as soon as they are inactive.
        "ignore_slots": [{"type": "logical", "plugin": "pgoutput"}],
        "postgresql": {
            "use_slots": true,
            "use_pg_rewind": true,
            // A member that cannot be rewound is copied anew from the master instead of failing for ever.
            "remove_data_directory_on_rewind_failure": true,
            "pg_hba": host_based_authentication(),
            "pg_ident": [
                "patroni postgres postgres".to_owned(),
                format!("patroni postgres {}", Role::Replication.name()),
            ],
            "parameters": shard.parameters,
        },
    });
    if let (Value::Object(all), Value::Object(timing)) = (&mut configuration, timing()) {
        all.extend(timing);
    }
    configuration.to_string()
}

fn timing() -> Value {
    json!({"ttl": TTL, "loop_wait": LOOP_WAIT, "retry_timeout": RETRY_TIMEOUT})
}
