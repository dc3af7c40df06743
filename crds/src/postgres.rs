//! The Postgres part of a cluster's and of a shard's specification.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::Toleration, apimachinery::pkg::api::resource::Quantity};
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::settings::FREE_PARAMETERS;

/// Postgres settings that belong to the operator, to Patroni or to the image: replication, durability, recovery, encryption,
/// logging to the container's output, what moving keys needs, what loads or runs code in the pod, and the timeouts that must never cut off a session in COMMIT (a cancelled wait for the standby
/// would show a row that no other member has).
pub const OWNED_PARAMETERS: &[&str] = &[
    "allow_system_table_mods",
    "archive_cleanup_command",
    "archive_command",
    "archive_library",
    "archive_mode",
    "client_connection_check_interval",
    "cluster_name",
    "composite_type_mismatch",
    "config_file",
    "data_directory",
    "data_sync_retry",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "dynamic_library_path",
    "event_source",
    "external_pid_file",
    "fsync",
    "full_page_writes",
    "hba_file",
    "hot_standby",
    "hot_standby_feedback",
    "ident_file",
    "ignore_checksum_failure",
    "ignore_invalid_pages",
    "ignore_system_indexes",
    "jit_provider",
    "krb_server_keyfile",
    "lc_messages",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "listen_addresses",
    "local_preload_libraries",
    "log_destination",
    "log_directory",
    "log_filename",
    "log_line_prefix",
    "log_timezone",
    "logging_collector",
    "max_logical_replication_workers",
    "max_prepared_transactions",
    "max_replication_slots",
    "max_slot_wal_keep_size",
    "max_sync_workers_per_subscription",
    "max_wal_senders",
    "max_worker_processes",
    "output_plugin_libraries",
    "password_encryption",
    "port",
    "primary_conninfo",
    "primary_slot_name",
    "promote_trigger_file",
    "recovery_end_command",
    "recovery_target",
    "recovery_target_action",
    "recovery_target_inclusive",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_timeline",
    "recovery_target_xid",
    "restart_after_crash",
    "restore_command",
    "search_path",
    "session_preload_libraries",
    "session_replication_role",
    "shared_preload_libraries",
    "ssl",
    "ssl_ca_file",
    "ssl_cert_file",
    "ssl_ciphers",
    "ssl_crl_dir",
    "ssl_crl_file",
    "ssl_dh_params_file",
    "ssl_ecdh_curve",
    "ssl_key_file",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "ssl_passphrase_command",
    "ssl_passphrase_command_supports_reload",
    "ssl_prefer_server_ciphers",
    "statement_timeout",
    "stats_temp_directory",
    "sync_replication_slots",
    "synchronized_standby_slots",
    "synchronous_commit",
    "synchronous_standby_names",
    "tcp_keepalives_count",
    "tcp_keepalives_idle",
    "tcp_keepalives_interval",
    "tcp_user_timeout",
    "timezone",
    "track_commit_timestamp",
    "transaction_isolation",
    "transaction_read_only",
    "transaction_timeout",
    "unix_socket_directories",
    "unix_socket_group",
    "unix_socket_permissions",
    "wal_keep_size",
    "wal_level",
    "wal_log_hints",
    "wal_receiver_timeout",
    "wal_sender_timeout",
    "zero_damaged_pages",
];

/// Whether a Postgres setting belongs to the operator; names of settings do not distinguish case.
pub fn is_owned_parameter(name: &str) -> bool {
    OWNED_PARAMETERS.iter().any(|owned| owned.eq_ignore_ascii_case(name))
}

/// The CEL rule behind [`OWNED_PARAMETERS`]. It asks the map for each owned name rather than the list for each given
/// one: the API server bounds the cost of a rule by the sizes it knows, and it knows only the list's.
fn no_owned_parameters() -> kube::core::Rule {
    let owned = OWNED_PARAMETERS
        .iter()
        .map(|name| format!("'{name}'"))
        .collect::<Vec<_>>()
        .join(", ");
    kube::core::Rule::new(format!("[{owned}].all(name, !(name in self))"))
        .message("the operator owns this setting; kubectl explain ordercluster.spec.postgres.parameters lists them all")
}

/// The CEL rule behind [`FREE_PARAMETERS`]: the names that are known and those of extensions, which have a dot, are all
/// there are. Like the rule above it goes through the list, whose length the API server knows.
fn no_unknown_parameters() -> kube::core::Rule {
    let known = FREE_PARAMETERS
        .iter()
        .chain(OWNED_PARAMETERS)
        .map(|name| format!("'{name}'"))
        .collect::<Vec<_>>()
        .join(", ");
    kube::core::Rule::new(format!(
        "[{known}].filter(name, name in self).size() + self.filter(name, name.contains('.')).size() == self.size()"
    ))
    .message("PostgreSQL 17 has no setting of that name: check the spelling; SHOW ALL lists its settings")
}

/// How the Postgres of every shard is run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.durability != 'required' || self.instances >= 2")
        .message("durability 'required' waits for a standby with every commit: it needs at least 2 instances")
        .field_path(".durability")
)]
pub struct Postgres {
    /// Database members of each shard: one master and the rest replicas of it.
    #[serde(default = "two_instances")]
    #[schemars(range(min = 1, max = 5))]
    pub instances: i32,
    /// What a commit waits for. 'required': a standby has it, else no write is accepted. 'preferred': a standby has it
    /// as long as there is one; after the loss of the last, writes go on without, and the status says so. 'none': only
    /// the master has it, and a failover may lose the newest writes.
    #[serde(default)]
    pub durability: Durability,
    /// Container image of the database (PostgreSQL 17 with Patroni). Left out, the operator's own default is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// Secrets of the namespace with which the image is pulled from a private registry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 253)))]
    pub image_pull_secrets: Vec<String>,
    /// Postgres settings, in lower case. A name that PostgreSQL 17 does not know is refused; names with a dot belong to
    /// extensions and are not checked. A value that the server does not take as it is written makes the shard not Ready,
    /// with reason ParametersRefused and what the server has instead. Those the operator owns are refused:
    /// allow_system_table_mods, archive_cleanup_command, archive_command, archive_library, archive_mode,
    /// client_connection_check_interval, cluster_name, composite_type_mismatch, config_file, data_directory,
    /// data_sync_retry, default_transaction_isolation, default_transaction_read_only, dynamic_library_path, event_source,
    /// external_pid_file, fsync, full_page_writes, hba_file, hot_standby, hot_standby_feedback, ident_file,
    /// ignore_checksum_failure, ignore_invalid_pages, ignore_system_indexes, jit_provider, krb_server_keyfile, lc_messages,
    /// lc_monetary, lc_numeric, lc_time, listen_addresses, local_preload_libraries, log_destination, log_directory,
    /// log_filename, log_line_prefix, log_timezone, logging_collector, max_logical_replication_workers,
    /// max_prepared_transactions, max_replication_slots, max_slot_wal_keep_size, max_sync_workers_per_subscription,
    /// max_wal_senders, max_worker_processes, output_plugin_libraries, password_encryption, port, primary_conninfo,
    /// primary_slot_name, promote_trigger_file, recovery_end_command, recovery_target, recovery_target_action,
    /// recovery_target_inclusive, recovery_target_lsn, recovery_target_name, recovery_target_time,
    /// recovery_target_timeline, recovery_target_xid, restart_after_crash, restore_command, search_path,
    /// session_preload_libraries, session_replication_role, shared_preload_libraries, ssl, ssl_ca_file, ssl_cert_file,
    /// ssl_ciphers, ssl_crl_dir, ssl_crl_file, ssl_dh_params_file, ssl_ecdh_curve, ssl_key_file, ssl_max_protocol_version,
    /// ssl_min_protocol_version, ssl_passphrase_command, ssl_passphrase_command_supports_reload, ssl_prefer_server_ciphers,
    /// statement_timeout, stats_temp_directory, sync_replication_slots, synchronized_standby_slots, synchronous_commit,
    /// synchronous_standby_names, tcp_keepalives_count, tcp_keepalives_idle, tcp_keepalives_interval, tcp_user_timeout,
    /// timezone, track_commit_timestamp, transaction_isolation, transaction_read_only, transaction_timeout,
    /// unix_socket_directories, unix_socket_group, unix_socket_permissions, wal_keep_size, wal_level, wal_log_hints,
    /// wal_receiver_timeout, wal_sender_timeout, zero_damaged_pages.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "parameters_schema")]
    #[x_kube(
        validation = no_owned_parameters(),
        validation = no_unknown_parameters(),
        validation = Rule::new("self.all(name, name.matches('^[a-z_][a-z0-9_]*([.][a-z_][a-z0-9_]*)?$'))")
            .message("names of Postgres settings are written in lower case: letters, digits, _ and one dot")
    )]
    pub parameters: BTreeMap<String, String>,
    /// CPU and memory of each database container.
    #[serde(default, skip_serializing_if = "PostgresResources::is_empty")]
    pub resources: PostgresResources,
    /// The volume of each member.
    pub storage: Storage,
    /// Where members may run.
    #[serde(default)]
    pub scheduling: Scheduling,
}

fn two_instances() -> i32 {
    2
}

fn parameters_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 128,
        "additionalProperties": {"type": "string", "maxLength": 1024},
    })
}

/// What a commit waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// A standby has it, else no write is accepted.
    Required,
    /// A standby has it as long as there is one.
    #[default]
    Preferred,
    /// Only the master has it.
    None,
}

/// What a commit waits for at this moment, whatever was asked for.
///
/// The order is from strong to weak: a cluster reports the weakest of its shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DurabilityNow {
    /// Every acknowledged commit is on the master and on a standby.
    Synchronous,
    /// Acknowledged commits are on the master only; standbys follow behind.
    Asynchronous,
    /// Not known: no master answers.
    Unknown,
}

/// Requests and limits of CPU and memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PostgresResources {
    /// What the scheduler sets aside, such as 'cpu: 500m' and 'memory: 1Gi'.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "quantities_schema")]
    pub requests: BTreeMap<String, Quantity>,
    /// What the container may use at most.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "quantities_schema")]
    pub limits: BTreeMap<String, Quantity>,
}

impl PostgresResources {
    /// Whether nothing is asked for, so that the operator's defaults hold.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.limits.is_empty()
    }
}

fn quantities_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": {
            "x-kubernetes-int-or-string": true,
            "pattern": "^[0-9]+([.][0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi|E|Ei)?$",
        },
    })
}

/// The volume of each database member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(
        "has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)"
    )
    .message("the storage class of existing volumes cannot change")
    .field_path(".storageClassName")
)]
pub struct Storage {
    /// Size of each volume, such as '72Gi'. It may grow and never shrinks.
    #[schemars(length(max = 32), regex(pattern = "^[0-9]+([.][0-9]+)?(k|Ki|M|Mi|G|Gi|T|Ti|P|Pi)?$"))]
    #[x_kube(
        validation = Rule::new("!isQuantity(self) || quantity(self).compareTo(quantity('256Mi')) >= 0")
            .message("a volume needs at least 256Mi"),
        validation = Rule::new("!isQuantity(self) || !isQuantity(oldSelf) || quantity(self).compareTo(quantity(oldSelf)) >= 0")
            .message("storage never shrinks")
    )]
    pub size: String,
    /// Storage class of the volumes; left out, the cluster's default class. It cannot change later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
}

/// Where database members may run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Scheduling {
    /// Labels a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "node_selector_schema")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that are tolerated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub tolerations: Vec<Toleration>,
    /// Node label that names a failure domain: the members of one shard are kept in different ones.
    #[serde(default = "by_host")]
    #[schemars(length(min = 1, max = 317))]
    pub topology_key: String,
}

impl Default for Scheduling {
    fn default() -> Self {
        Self {
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            topology_key: by_host(),
        }
    }
}

fn by_host() -> String {
    "kubernetes.io/hostname".to_owned()
}

fn node_selector_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {"type": "string", "maxLength": 63},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owned_parameters_are_sorted_lower_case_and_found_in_any_case() {
        assert!(OWNED_PARAMETERS.is_sorted());
        assert!(OWNED_PARAMETERS.iter().all(|name| *name == name.to_lowercase()));
        assert!(is_owned_parameter("WAL_Level"));
        assert!(!is_owned_parameter("work_mem"));
    }

    #[test]
    fn the_description_of_parameters_lists_every_owned_one() {
        let schema = serde_json::to_value(schemars::schema_for!(Postgres)).unwrap();
        let description = schema["properties"]["parameters"]["description"].as_str().unwrap();
        let listed: Vec<&str> = description
            .rsplit_once("are refused:")
            .unwrap()
            .1
            .trim_end_matches('.')
            .split(',')
            .map(str::trim)
            .collect();
        assert_eq!(listed, OWNED_PARAMETERS);
    }
}
