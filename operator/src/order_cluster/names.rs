//! Names of a cluster's own objects.

/// The ConfigMap that carries the ring.
pub(crate) fn ring(cluster: &str) -> String {
    format!("{cluster}-ring")
}

/// The Secret with the superuser's and Patroni's passwords.
pub(crate) fn system_secret(cluster: &str) -> String {
    format!("{cluster}-postgres")
}

/// The Secret with which a program logs in.
pub(crate) fn program_secret(cluster: &str, program: &str) -> String {
    format!("{cluster}-{program}")
}

/// A shard.
pub(crate) fn shard(cluster: &str, ordinal: u16) -> String {
    format!("{cluster}-{ordinal}")
}

/// Where programs reach a member of a shard: by the name of its pod, so that it stays the same when the pod moves.
pub(crate) fn member_host(namespace: &str, shard: &str, instance: i32) -> String {
    format!("{shard}-{instance}.{shard}.{namespace}.svc:5432")
}

/// Every member of a shard of so many instances.
pub(crate) fn member_hosts(namespace: &str, shard: &str, instances: i32) -> Vec<String> {
    (0..instances)
        .map(|instance| member_host(namespace, shard, instance))
        .collect()
}
